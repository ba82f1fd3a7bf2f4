"""`python -m bench.gpu`: the fused path checked and measured on a GPU, and its tuner."""
