"""Hot operators, paths and loaders under pytest-benchmark."""
