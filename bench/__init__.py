"""Measuring: `sweep` every path, `study` and `gpu` by commands of their own, `micro` under pytest-benchmark, `exports`
every format; `measure` takes the figures and `report` makes pages of them, which lie under `results`."""
