"""The operators that everything hangs on, each held to its meaning before it is timed.

    pytest bench/micro/test_operators.py --benchmark-only

Those of heatmaps and crops beside their plain reference; those of the fused network as `small` calls them, on whatever
device there is: on a CPU that is their reference, for comparison only.
"""

import numpy as np
import pytest
import torch

from bench.gpu.calls import Oracle, distinct_calls
from bench.measure.timing import synchronise
from fasthg.fused.net import fuse
from fasthg.kernels import cpu, reference
from fasthg.kernels.ops import heatmaps as ops
from fasthg.network.load import create_model
from fasthg.pixels import geometry
from fasthg.pixels.image import normalise
from fasthg.pixels.skeleton import MPII
from training.loading.augment import colour_table
from training.loading.batches import colour

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BATCH_SIZE = 16
SIZE = 256
NETWORK_SIZE = 256 if DEVICE == "cuda" else 64
DTYPE = torch.float16 if DEVICE == "cuda" else torch.float32


@pytest.fixture
def timed(benchmark):
    """Time a call with the device's queue waited for."""

    def time_call(function, *arguments):
        def call():
            function(*arguments)
            synchronise(DEVICE)

        benchmark(call)

    return time_call


@pytest.mark.parametrize("implementation", [ops, reference], ids=["operator", "reference"])
def test_decode_heatmaps(timed, implementation):
    heatmaps = torch.rand(BATCH_SIZE, len(MPII), 64, 64, device=DEVICE)
    heatmaps[0, 0] = 0.0
    heatmaps[0, 0, 20, 30], heatmaps[0, 0, 20, 31] = 2.0, 1.0  # the peak's centre, a quarter toward its neighbour
    points, scores = implementation.decode_heatmaps(heatmaps)
    assert points[0, 0].tolist() == [30.75, 20.5]
    torch.testing.assert_close(scores, heatmaps.amax((2, 3)))
    timed(implementation.decode_heatmaps, heatmaps)


@pytest.mark.parametrize("implementation", [ops, reference], ids=["operator", "reference"])
def test_render_targets(timed, implementation):
    points = torch.rand(BATCH_SIZE, len(MPII), 2, device=DEVICE) * 64
    weights = (torch.rand(BATCH_SIZE, len(MPII), device=DEVICE) > 0.2).float()
    arguments = (points, weights, 64, 64, 1.0)
    targets = implementation.render_targets(*arguments)
    centres = torch.arange(64, device=DEVICE, dtype=torch.float64) + 0.5
    dx = centres - points[..., 0].double()[..., None, None]
    dy = centres[:, None] - points[..., 1].double()[..., None, None]
    inside = (dx.abs() <= 3) & (dy.abs() <= 3)
    expected = torch.exp(-(dx.square() + dy.square()) / 2) * inside * weights[..., None, None]
    torch.testing.assert_close(targets.double(), expected, rtol=0, atol=1e-5)
    timed(implementation.render_targets, *arguments)


def by_arithmetic(photograph, matrix, out):
    """The crop as the network wants it, in plain steps."""
    out[:] = normalise(geometry.warp(photograph, matrix, SIZE)[None])[0].numpy()


def by_table(photograph, matrix, out):
    """OpenCV's warp, then each byte looked up once."""
    colour(geometry.warp(photograph, matrix, SIZE), colour_table(np.ones(3)), out)


def compiled(photograph, matrix, out):
    """All in one pass; the photograph has a fourth channel."""
    mean, gain = np.array(geometry.MEAN, np.float32), np.ones(3, np.float32)
    cpu._native.cut_crop(photograph, geometry.invert(matrix), gain, mean, False, out)


@pytest.mark.parametrize("function", [by_arithmetic, by_table, compiled])
def test_crop_warp_normalise(benchmark, function):
    if function is compiled and not hasattr(getattr(cpu, "_native", None), "cut_crop"):
        pytest.skip("fasthg.kernels.cpu._native has no cut_crop; install the package with `pip install .` to build it")
    rows, columns = np.mgrid[:720, :1280]
    channels = 4 if function is compiled else 3
    photograph = np.repeat((0.1 * (rows + columns)).round().astype(np.uint8)[..., None], channels, axis=-1)
    matrix = geometry.crop_matrix((640.0, 360.0), 1.8, SIZE, rotation=20.0)
    out = np.empty((3, SIZE, SIZE), np.float32)
    function(photograph, matrix, out)
    # Of a plane, bilinear interpolation is the plane itself; the bytes are half a step off it, and rounded once more.
    corners = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE)), axis=-1) + 0.5
    plane = 0.1 * (geometry.apply(geometry.invert(matrix), corners.reshape(-1, 2)).sum(-1) - 1).reshape(SIZE, SIZE)
    expected = plane / 255 - np.array(geometry.MEAN)[:, None, None]
    np.testing.assert_allclose(out, expected, rtol=0, atol=1.1 / 255)
    benchmark(function, photograph, matrix, out)


def network_calls():
    """The costliest call of every operator that a batch of `small` makes."""
    torch.manual_seed(0)
    images = torch.rand(BATCH_SIZE, 3, NETWORK_SIZE, NETWORK_SIZE, device=DEVICE) - 0.4
    network = fuse(create_model("small").eval().to(DEVICE), images, DTYPE, cuda_graph=False)
    network(images)
    calls = sorted(distinct_calls(network, tuple(images.shape)), key=lambda call: call.flops)
    return {call.operator: call for call in calls}


@pytest.fixture(scope="module")
def calls():
    return network_calls()


@pytest.mark.parametrize("operator", ["stem", "conv3x3", "bottleneck", "max_pool", "head"])
def test_network_operator(timed, benchmark, calls, operator):
    if operator not in calls:
        pytest.skip(f"{operator}: `small` in {DTYPE} on {DEVICE} makes no such call")
    call = calls[operator]
    assert Oracle(call).relative_error() <= call.tolerance
    timed(call.run)
    benchmark.extra_info["gflop_s"] = call.flops / benchmark.stats.stats.median / 1e9
