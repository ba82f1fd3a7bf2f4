"""The operators `torch.ops.fasthg.*`: schemas, what they accept, and which implementation runs on which device.

An operator's default implementation is its meaning in `fasthg.kernels.reference`, on any device. A faster one is
registered by `operator.register_kernel("cpu")` or `("cuda")`. Fake implementations let `torch.compile` see through.
"""

from fasthg.kernels.ops import heatmaps, network, norm  # importing them registers their operators

__all__ = ["heatmaps", "network", "norm"]
