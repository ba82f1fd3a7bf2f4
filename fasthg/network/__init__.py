"""The networks: `variants` by name, their `model`, and rewritings that keep answers (`fold`, `precision`, `stacks`).

`load` finds weights by name or path; `checkpoint` keeps them, `published` fetches others', which `convert` reads.
"""
