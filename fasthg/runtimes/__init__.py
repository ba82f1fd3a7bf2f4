"""The execution paths: one file for each library that can run a network, `paths.py` with their names on top."""
