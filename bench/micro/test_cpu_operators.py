"""The CPU core's operators at each level of `original`, beside oneDNN's direct convolutions of the same size.

    pytest bench/micro/test_cpu_operators.py --benchmark-only --benchmark-group-by=param:operator,param:side

`gflops` in the extra info counts a direct convolution's operations, whatever the kernel really multiplies: more than
the processor's peak is what Winograd saves. Each is held to float64 before it is timed.
"""

import pytest
import torch
import torch.nn.functional as F

from fasthg.kernels.cpu import network
from fasthg.kernels.layout import Grid, pack_conv1x1, pack_conv3x3
from fasthg.runtimes.pytorch import unavailable
from fasthg.runtimes.request import DTYPES

SIDES = (64, 32, 16, 8, 4)
FEATS, CHANNELS = 128, 256  # of `original`: its 3x3s and its trunk
CORE = {"core fp32": "fp32", "core int12": "int12", "core bf16": "bf16", "core bf16+int12": "bf16+int12"}
ONEDNN = {"oneDNN fp32": "fp32", "oneDNN bf16": "bf16"}


def channels(operator):
    """Inputs and outputs."""
    return (FEATS, FEATS) if operator == "conv3x3" else (FEATS, CHANNELS)


def on_core(operator, precision, images, weight, bias):
    """(call, result [N, C, H, W]) of one operator as a program of its own."""
    outputs = channels(operator)[1]
    grid = Grid(1, *images.shape[2:])
    x, out = grid.pack(images), grid.empty(outputs, torch.float32)
    if operator == "conv3x3":
        call: network.Call = ("conv3x3", (x, pack_conv3x3(weight), bias, out, *grid.size))
    else:
        no_norm, no_residual = (None, None, 0.0), (None, None, None)
        weights = (pack_conv1x1(weight), bias)
        call = ("norm_conv1x1", (x, *no_norm, *weights, *no_residual, out, None, *grid.size))
    return network.Program([call], precision), grid.images(out)


def on_onednn(operator, dtype, images, weight, bias):
    """The same by PyTorch, channels last; without the 3x3's ReLU, which oneDNN would have for nothing."""
    images, weight = (t.to(dtype, memory_format=torch.channels_last) for t in (images, weight))
    bias, padding = bias.to(dtype), 1 if operator == "conv3x3" else 0

    def call():
        return F.conv2d(images, weight, bias, padding=padding)

    return call, call().relu() if operator == "conv3x3" else call()


@pytest.mark.benchmark(max_time=0.2, min_rounds=5)
@pytest.mark.parametrize("implementation", [*CORE, *ONEDNN])
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("operator", ["conv3x3", "conv1x1"])
def test_convolution(benchmark, operator, side, implementation):
    precision = CORE.get(implementation)
    reason = network.unavailable(precision) if precision else unavailable(torch.device("cpu"), ONEDNN[implementation])
    if reason:
        pytest.skip(reason)
    if operator == "conv3x3" and precision == "bf16":
        pytest.skip("3x3s of this precision are those of fp32")
    torch.manual_seed(0)
    inputs, outputs = channels(operator)
    taps = 3 if operator == "conv3x3" else 1
    images = torch.randn(1, inputs, side, side)
    weight, bias = torch.randn(outputs, inputs, taps, taps) / (inputs * taps * taps) ** 0.5, torch.randn(outputs)
    expected = F.conv2d(images.double(), weight.double(), bias.double(), padding=taps // 2)
    expected = expected.relu() if operator == "conv3x3" else expected
    build = on_core if precision else on_onednn
    with torch.inference_mode():
        call, found = build(operator, precision or DTYPES[ONEDNN[implementation]], images, weight, bias)
        call()
        tolerance = 3e-6 if implementation.endswith("fp32") else 6e-3
        assert (found - expected).norm() < tolerance * expected.norm()
        benchmark(call)
    if benchmark.stats:
        operations = 2 * side * side * taps * taps * inputs * outputs
        benchmark.extra_info["gflops"] = round(operations / benchmark.stats.stats.median / 1e9)
