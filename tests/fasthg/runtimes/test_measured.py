"""`auto` takes what was fastest on this very device, and only what can run here."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import fasthg
from fasthg.network.checkpoint import weights_digest
from fasthg.network.variants import VARIANTS
from fasthg.predict.predictor import Predictor
from fasthg.runtimes.choose import choose_path
from fasthg.runtimes.measured import Measurement, cache_file, device_model, measurements, ranking, remember_measurement


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    monkeypatch.setenv("FASTHG_CACHE", str(tmp_path / "cache"))
    return cache_file()


@pytest.fixture
def here() -> Measurement:
    return Measurement("small", "channels_last:fp32", device_model("cpu"), torch.get_num_threads(), 1, 10.0)


def test_the_fastest_path_measured_here_is_taken_and_said(here: Measurement) -> None:
    remember_measurement(replace(here, path="eager:fp32", ms_per_image=30.0))
    remember_measurement(here)
    path, why = choose_path(VARIANTS["small"], "cpu")
    assert path == "channels_last:fp32"
    assert why == "channels_last:fp32 was the fastest measured here (10 ms an image at batch 1)"


def test_a_newer_measurement_replaces_the_older(here: Measurement) -> None:
    remember_measurement(here)
    remember_measurement(replace(here, ms_per_image=50.0))
    remember_measurement(replace(here, path="eager:fp32", ms_per_image=30.0))
    assert choose_path(VARIANTS["small"], "cpu")[0] == "eager:fp32"
    assert len(measurements()) == 2


@pytest.mark.parametrize(
    "other",
    [{"device": "another CPU"}, {"threads": 999}, {"variant": "original"}],
    ids=["device", "threads", "variant"],
)
def test_measurements_under_other_conditions_do_not_count(here: Measurement, other: dict[str, object]) -> None:
    remember_measurement(replace(here, **other))  # type: ignore[arg-type]
    path, why = choose_path(VARIANTS["small"], "cpu")
    assert path == "fused:fp32"
    assert "nothing was measured here for this network" in why


def test_the_nearest_batch_size_decides(here: Measurement) -> None:
    remember_measurement(here)
    remember_measurement(replace(here, path="eager:fp32", batch_size=16, ms_per_image=5.0))
    remember_measurement(replace(here, batch_size=16, ms_per_image=8.0))
    assert choose_path(VARIANTS["small"], "cpu", batch_size=2)[0] == "channels_last:fp32"
    assert choose_path(VARIANTS["small"], "cpu", batch_size=12)[0] == "eager:fp32"
    assert [m.ms_per_image for m in ranking("small", here.device, here.threads, 64)] == [5.0, 8.0]


def test_a_path_that_no_longer_runs_or_needs_calibration_is_passed_over(here: Measurement) -> None:
    remember_measurement(replace(here, path="tensorrt:fp16", ms_per_image=1.0))
    remember_measurement(replace(here, path="openvino:int8", ms_per_image=2.0))
    remember_measurement(here)
    assert choose_path(VARIANTS["small"], "cpu")[0] == "channels_last:fp32"


def test_a_path_that_rounds_is_taken_on_the_weights_it_was_checked_on_only(here: Measurement) -> None:
    torch.manual_seed(1)
    checked, other = (fasthg.create_model("small").eval() for _ in range(2))
    remember_measurement(here)
    remember_measurement(replace(here, path="fused:int12", ms_per_image=1.0, weights=weights_digest(checked)))
    assert choose_path(checked, "cpu")[0] == "fused:int12"
    assert choose_path(other, "cpu")[0] == "channels_last:fp32"
    assert choose_path(VARIANTS["small"], "cpu")[0] == "channels_last:fp32"
    remember_measurement(replace(here, path="fused:int12", ms_per_image=20.0, weights=weights_digest(other)))
    assert choose_path(checked, "cpu")[0] == "channels_last:fp32"  # the newer time counts for both
    assert choose_path(other, "cpu")[0] == "channels_last:fp32"


def test_half_precision_is_not_taken_unchecked_on_a_gpu_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _device: "a GPU")
    assert choose_path(VARIANTS["small"], "cuda")[0] == "channels_last"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"version": 99, "measurements": []}', '{"version": 1, "measurements": [{}]}']
)
def test_a_damaged_or_foreign_file_is_nothing_measured(cache: Path, here: Measurement, content: str) -> None:
    cache.parent.mkdir(exist_ok=True)
    cache.write_text(content)
    assert measurements() == []
    remember_measurement(here)
    assert measurements() == [here]


def test_processes_that_measure_at_once_lose_nothing(here: Measurement) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda size: remember_measurement(replace(here, batch_size=size)), range(1, 21)))
    assert sorted(m.batch_size for m in measurements()) == list(range(1, 21))


def test_the_predictor_runs_what_auto_chose(here: Measurement) -> None:
    remember_measurement(replace(here, path="eager:fp32", batch_size=2))
    predictor = Predictor(fasthg.create_model("small").eval(), device="cpu", batch_size=2, size=64)
    assert (predictor.path, predictor.precision, predictor.device) == ("eager", "fp32", "cpu")
    assert "fastest measured here" in predictor.choice
