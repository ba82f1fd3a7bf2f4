"""The whole network as a chain of fused operators: its plan of buffers and steps, its packed weights, its graphs."""
