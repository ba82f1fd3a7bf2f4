"""The machine's own limit, measured in the run that it is compared with.

One large matrix product for each precision (what an ideal convolution could reach) and one large copy (what memory
gives). A share of the limit says how much of the machine a path uses; it does not depend on a data sheet.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bench.measure.timing import measure, synchronise
from fasthg.network.precision import without_tf32
from fasthg.runtimes.pytorch import unavailable

MATRIX = {"cpu": 2048, "cuda": 8192}  # side: large enough to stream from the caches, small enough for a second
COPY_BYTES = {"cpu": 2**28, "cuda": 2**31}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BUDGET_S = 1.0  # of repeats of each
PRECISIONS = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "bf16", "fp16")}


@dataclass(frozen=True)
class Limits:
    """What the machine can do.

    tflops      the best matrix product of each precision, 10^12 FLOP/s
    copy_gb_s   10^9 bytes read and written a second
    """

    tflops: dict[str, float]
    copy_gb_s: float


def measure_limits(device: str = "cpu") -> Limits:
    """Measure for about a second each what PyTorch computes there; the best repeat counts: what can be is the limit."""
    kind = device.partition(":")[0]
    able = [name for name in PRECISIONS[kind] if not unavailable(torch.device(device), name)]
    return Limits(
        {name: matrix_product(device, DTYPES[name], MATRIX[kind], BUDGET_S) for name in able},
        copy(device, COPY_BYTES[kind], BUDGET_S),
    )


@without_tf32()
def matrix_product(device: str, dtype: torch.dtype, side: int, budget: float) -> float:
    """10^12 FLOP/s of one `side` x `side` matrix product."""
    a = torch.randn(side, side, device=device).to(dtype)
    b = torch.randn(side, side, device=device).to(dtype)
    out = torch.empty(side, side, device=device, dtype=dtype)
    synchronise(device)
    timing = measure(lambda: torch.mm(a, b, out=out), device=device, budget=budget)
    return 2 * side**3 / min(timing.seconds) / 1e12


def copy(device: str, size: int, budget: float) -> float:
    """10^9 bytes a second that a copy of `size` bytes reads and writes."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    timing = measure(lambda: target.copy_(source), device=device, budget=budget)
    return 2 * size / min(timing.seconds) / 1e9
