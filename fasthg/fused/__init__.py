"""A network rewritten over this project's fused operators: weights, plan, buffers, execution."""
