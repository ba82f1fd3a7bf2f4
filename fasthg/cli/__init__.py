"""The command line `fasthg`."""
