"""`python -m bench.sweep`: every variant by every path, each cell in a process of its own."""
