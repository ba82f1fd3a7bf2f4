"""Every execution path that this machine can run, one crop at a time, held to eager fp32 before it is timed.

    pytest bench/micro/test_paths.py --benchmark-only
    pytest bench/micro/test_paths.py --benchmark-only -k openvino

`small` has the weights that ship; `feats64`, the study's cheapest change, has fresh ones.
"""

import pytest
import torch

from bench.measure.parity import verdict
from bench.measure.timing import synchronise
from bench.sweep.plan import FULL_EXTRA_PATHS, default_paths, with_precision
from fasthg.data.crops import load_crops
from fasthg.metrics.agreement import relative_error
from fasthg.network.flops import count_flops
from fasthg.network.load import create_model
from fasthg.network.variants import get_config
from fasthg.pixels.image import normalise
from fasthg.runtimes.paths import PATHS, prepare

DEVICE = "cuda:0" if torch.cuda.is_available() else "cpu"
LABELS = list(dict.fromkeys(":".join(with_precision(path, DEVICE)) for path in default_paths(full=False)))
INT8 = [path for path in FULL_EXTRA_PATHS if path.endswith(":int8")]


@pytest.fixture(scope="module")
def crops():
    """Crops that ship with the package."""
    return load_crops(None)


@pytest.fixture(scope="module")
def networks(crops):
    """By variant: the network, one crop [1, 3, 256, 256], and eager's heatmaps of it."""
    images = normalise(crops.images[:1])
    found = {}
    for variant in ("small", "feats64"):
        torch.manual_seed(0)
        model = create_model(variant, weights="default" if variant == "small" else None).eval()
        with torch.inference_mode():
            found[variant] = model, images, model.final(images)
    return found


@pytest.mark.benchmark(max_time=0.5, min_rounds=3)
@pytest.mark.parametrize("label", [*LABELS, *INT8])
@pytest.mark.parametrize("variant", ["small", "feats64"])
def test_path(benchmark, networks, crops, tmp_path, variant, label):
    path, precision = label.split(":")
    if reason := PATHS[path].why_not(DEVICE, precision):
        pytest.skip(reason)
    if precision == "int8" and variant != "small":
        pytest.skip("int8 needs weights that have learnt something; only `small` ships with them")
    model, images, expected = networks[variant]
    calibration = normalise(crops.calibration[:16]) if precision == "int8" else None
    prepared = prepare(model, label, images, device=DEVICE, calibration=calibration, cache_dir=tmp_path)
    error = relative_error(prepared(images).cpu(), expected)
    assert not verdict(error, precision)
    on_device = images.to(DEVICE)

    def run():
        prepared(on_device)
        synchronise(DEVICE)

    benchmark(run)
    seconds = benchmark.stats.stats.median
    flops = count_flops(get_config(variant), 256)
    benchmark.extra_info |= {"relative_error": error, "gflop_s": flops / seconds / 1e9}
    benchmark.extra_info |= {"startup_s": prepared.startup_s, "device": prepared.device, "precision": precision}
