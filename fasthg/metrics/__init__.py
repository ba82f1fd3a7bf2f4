"""Shares of joints found by every published protocol, over a dataset or a file of predictions."""
