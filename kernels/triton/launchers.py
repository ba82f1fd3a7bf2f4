"""The fused operators by Triton's kernels: one function for each, over the same parts as `fasthg.kernels.ops.plain`."""

from fasthg.kernels.triton.bottleneck import bottleneck
from fasthg.kernels.triton.conv3x3 import conv3x3
from fasthg.kernels.triton.head import head
from fasthg.kernels.triton.norm_conv import norm_conv1x1, norm_conv3x3
from fasthg.kernels.triton.pointwise import max_pool, normalise
from fasthg.kernels.triton.stem import stem

__all__ = ["bottleneck", "conv3x3", "head", "max_pool", "norm_conv1x1", "norm_conv3x3", "normalise", "stem"]
