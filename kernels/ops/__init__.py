"""The operators `torch.ops.fasthg.*`: schemas, what they accept, and which implementation runs on which device.

An operator's default implementation is its meaning in `fasthg.kernels.reference`, on any device. A faster one is
registered by `operator.register_kernel("cpu")` or `("cuda")`. Fake implementations let `torch.compile` see through.
"""

import logging

# Where Triton is not installed, PyTorch would warn of it once for every operator; the CPU needs none.
logging.getLogger("torch._library.triton").setLevel(logging.ERROR)

from fasthg.kernels.ops import heatmaps, network, norm  # noqa: E402  importing them registers their operators

__all__ = ["heatmaps", "network", "norm"]
