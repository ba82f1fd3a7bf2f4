"""The sweep from end to end on real processes: what is killed, wrong, slow or absent costs no measured cell."""

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.measure.record import Cell, Results
from bench.sweep import cells, passes, reduced
from bench.sweep.__main__ import main
from bench.sweep.display import Display
from bench.sweep.materials import make_reference
from bench.sweep.reduced import make_reduced_reference, make_scored_crops
from bench.sweep.run import Sweep, SweepRequest, choose_folder, plan_request, sweep
from bench.sweep.settings import Settings
from fasthg.errors import FasthgError
from fasthg.runtimes.paths import prepare

#: The sweep is killed first, then goes on.
pytestmark = [pytest.mark.in_order, pytest.mark.slow]

NAMES = ("eager", "channels_last", "fused", "openvino")
PATHS = ("eager", "channels_last", "fused:int12", "openvino")  # the last holds, prepared, while the others are timed


@pytest.fixture(scope="module", autouse=True)
def _few_rounds():
    """Two rounds are enough: no later pass refines them for long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passes, "ROUNDS", 2)
        yield


@pytest.fixture(scope="module")
def request_of(tiny_dataset, tmp_path_factory):
    """A sweep that takes seconds: `small` on crops of 64 pixels."""
    return SweepRequest(
        variants=("small",),
        paths=PATHS,
        modes=("infer",),
        batch_sizes=(1,),
        data=tiny_dataset,
        weights=tmp_path_factory.mktemp("none"),  # fresh ones: those that ship are for crops of 256 pixels
        device="cpu",
        size=64,
        threads=1,
        minutes=60,  # whose shares are long enough for the rounds of a slow machine
        out=tmp_path_factory.mktemp("sweep") / "out",
    )


@pytest.fixture(scope="module")
def killed(request_of):
    """The folder of a sweep that was killed by SIGKILL after its first turns, while other paths were holding, and the
    lines it had written by then."""
    options = {"variants": "small", "paths": ",".join(PATHS), "modes": "infer", "batch-sizes": "1"}
    options |= {
        "data": str(request_of.data),
        "weights": str(request_of.weights),
        "device": "cpu",
        "size": "64",
        "threads": "1",
        "out": str(request_of.out),
    }
    command = [sys.executable, "-m", "bench.sweep"]
    command += [part for name, value in options.items() for part in (f"--{name}", value)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        rows = wait_for(lambda: [line for line in lines_of(request_of.out) if "row" in line], 240, process)
        family = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.kill()
        process.wait()
    wait_for(lambda: not [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE], 20)
    return request_of.out, rows


@pytest.fixture(scope="module")
def resumed(killed, request_of):
    """The folder after --resume has gone on."""
    return sweep(dataclasses.replace(request_of, resume=True))


def wait_for(condition, seconds, process=None):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        assert process is None or process.poll() is None, "the sweep ended by itself"
        time.sleep(0.02)
    raise AssertionError(f"nothing came of it within {seconds} s")


def lines_of(out):
    path = out / "results.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")] if path.exists() else []


def test_killed_sweep_keeps_its_rows_and_leaves_nothing_running(killed):
    out, rows = killed
    kept = {row.path: row for row in Results(out / "results.jsonl").rows}
    assert 0 < len(kept) < len(PATHS)
    for line in rows:
        row = line["row"]
        assert kept[row["path"]].turns[: len(row["turns"])] == row["turns"]
        assert row["turns"]
        assert row["median_ms"] > 0


def test_resume_measures_what_is_left_and_keeps_every_turn(killed, resumed):
    out, before = killed
    rows = {row.path: row for row in Results(out / "results.jsonl").rows}
    assert set(rows) == set(NAMES)
    assert {row.status for row in rows.values()} == {"ok"}
    for line in before:
        row = line["row"]
        assert rows[row["path"]].turns[: len(row["turns"])] == row["turns"]
    for row in rows.values():
        rounds = [turn["round"] for turn in row.turns]
        assert rounds == sorted(set(rounds)), row.path


def test_what_has_too_few_rounds_is_measured_again(resumed, request_of, monkeypatch):
    def turns():
        return {row.path: row.turns for row in Results(resumed / "results.jsonl").rows}

    before = turns()
    most = max(len(before[path]) for path in ("channels_last", "openvino"))
    monkeypatch.setattr(passes, "ROUNDS", most + 1)
    sweep(dataclasses.replace(request_of, paths=("eager", "channels_last"), resume=True))
    after = turns()
    for path, kept in before.items():
        assert after[path][: len(kept)] == kept
        assert (len(after[path]) > most) == (len(kept) > most or path == "channels_last")


def test_ratios_are_of_common_rounds_with_eager(resumed):
    rows = {row.path: row for row in Results(resumed / "results.jsonl").rows}
    assert rows["eager"].ratio == rows["eager"].ratio_low == rows["eager"].ratio_high == 1.0
    assert rows["openvino"].ratio_low <= rows["openvino"].ratio <= rows["openvino"].ratio_high
    theirs = {turn["round"] for turn in rows["eager"].turns}
    assert all({turn["round"] for turn in row.turns} <= theirs for row in rows.values())


def test_rows_carry_what_a_reader_needs_to_judge_them(resumed):
    rows = {row.path: row for row in Results(resumed / "results.jsonl").rows}
    for row in rows.values():
        assert 0 < row.p10_ms <= row.median_ms <= row.p90_ms
        assert row.repeats == sum(len(turn["ms"]) for turn in row.turns) or not row.disturbed
        assert row.rounds >= 1
        assert row.images_s == pytest.approx(1000 / row.median_ms)
        assert row.validation_minutes == pytest.approx(2958 / row.images_s / 60)
        # 5.02 GFLOP at 256 pixels, and a sixteenth of it at 64.
        assert row.tflops == pytest.approx(row.images_s * row.gflop / 1000)
        assert torch.__version__.startswith(row.versions["torch"])  # whose "+cu130" a wheel may leave out
        assert row.load is not None
        assert row.photo_ms > 0
    assert rows["channels_last"].error <= 1e-5
    assert 1e-6 < rows["fused"].error <= 5e-3
    assert (rows["eager"].precision, rows["fused"].precision) == ("fp32", "int12")


def test_reports_are_written_and_name_every_cell(resumed):
    for name in ("report.md", "report.html", "results.csv"):
        text = (resumed / name).read_text()
        assert all(path in text for path in NAMES), name
    assert "83.18" in (resumed / "report.md").read_text()  # the study's PCKh of the original


def test_wrong_cell_prints_wrong_and_no_time(resumed, request_of, capsys):
    (reference,) = resumed.glob("cache/*/small/reference.safetensors")
    good = reference.read_bytes()
    tensors = load_file(reference)
    tensors["heatmaps"][0, 3] += 0.1 * tensors["heatmaps"].abs().max()
    save_file(tensors, reference)
    try:
        sweep(dataclasses.replace(request_of, paths=("onnxruntime",), resume=True))
    finally:
        reference.write_bytes(good)
    row = Results(resumed / "results.jsonl").find(Cell("small", "onnxruntime", "fp32", "infer", 1))
    assert row.status == "WRONG"
    assert "fp32 allows 1e-05" in row.reason
    assert (row.median_ms, row.images_s, row.tflops) == (None, None, None)
    assert "WRONG" in next(line for line in capsys.readouterr().out.splitlines() if "onnxruntime:fp32" in line)
    assert "| WRONG |" in (resumed / "report.md").read_text()


def never(_found):
    pytest.fail("a wrong cell took its turn")


def test_one_weight_scaled_by_a_tenth_in_one_path_is_wrong(tiny_dataset, tmp_path, monkeypatch):
    settings = Settings(tmp_path / "cache", tiny_dataset, weights=tmp_path, size=64)
    make_reference(settings, "small")

    def faulty(model, *arguments, **options):
        with torch.no_grad():
            model.stacks[1].score.weight[3] *= 1.1
        return prepare(model, *arguments, **options)

    row = cells.measure_cell(Cell("small", "channels_last", "fp32", "infer", 1), settings, lambda found: cells.Order())
    assert row["status"] == "ok"
    monkeypatch.setattr(cells, "prepare", faulty)
    row = cells.measure_cell(Cell("small", "channels_last", "fp32", "infer", 1), settings, never)
    assert row["status"] == "WRONG"
    assert "fp32 allows 1e-05" in row["reason"]
    assert not {"median_ms", "turns", "photo_ms"} & row.keys()


def test_int8_that_loses_two_points_of_pckh_is_wrong(tiny_dataset, tmp_path, monkeypatch):
    """Whatever else int8 does is left out: eager computes, and loses the joints of every twentieth crop, or of none."""
    settings = Settings(tmp_path / "cache", tiny_dataset, size=64, views=256)
    make_scored_crops(settings)
    make_reference(settings, "original")
    make_reduced_reference(settings, "original")
    cell = Cell("original", "openvino", "int8", "infer", 1)
    every = 10**9

    def eager(model, _path, images, **_options):
        run = prepare(model, "eager", images, device="cpu", threads=1)
        shown = iter(range(0, 10**6, reduced.BATCH_SIZE))

        def lossy(images):
            heatmaps, start = run(images).clone(), next(shown)
            lost = [row for row in range(len(images)) if (start + row) % every == 1]
            heatmaps[lost] = heatmaps[lost].flip(-1, -2)
            return heatmaps

        return dataclasses.replace(run, run=lossy)

    for module in (cells, reduced):
        monkeypatch.setattr(module, "prepare", eager)
    monkeypatch.setattr(cells, "calibration_crops", lambda *_: None)
    monkeypatch.setattr(reduced, "calibration", lambda *_: None)
    row = cells.measure_cell(cell, settings, lambda found: cells.Order())
    assert row["status"] == "ok"
    every = 20
    reduced.found_file(settings, "original", "openvino", "int8").unlink()
    row = cells.measure_cell(cell, settings, never)
    assert row["status"] == "WRONG"
    assert "int8 allows -0.30" in row["reason"]
    assert row["pckh_change"] < -1
    assert not {"median_ms", "turns", "photo_ms"} & row.keys()


def test_slow_and_absent_cells_are_rows_with_their_reason(resumed, request_of):
    others = {
        "modes": ("train", "infer"),
        "paths": ("channels_last", "tensorrt"),
        "batch_sizes": (2,),
        "cell_limit": 0.05,
    }
    sweep(dataclasses.replace(request_of, resume=True, **others))
    results = Results(resumed / "results.jsonl")
    slow = results.find(Cell("small", "channels_last", "fp32", "train", 2))
    assert (slow.status, slow.median_ms) == ("error", None)
    assert "past its limit" in slow.reason
    absent = results.find(Cell("small", "tensorrt", "fp16", "infer", 2))
    assert (absent.status, absent.reason) == ("skipped", "tensorrt: runs on cuda only, not on cpu")
    assert results.find(Cell("small", "channels_last", "fp32", "infer", 1)).status == "ok"  # measured before, kept


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(killed, request_of):
    # A shell starts what it puts in the background with SIGINT ignored, and children inherit that.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "bench.sweep", "--resume", "--variants", "small"]
    command += ["--paths", "eager,onnxruntime"]
    command += ["--modes", "infer", "--batch-sizes", "3", "--size", "64", "--threads", "1"]
    command += ["--data", str(request_of.data), "--weights", str(request_of.weights), "--out", str(request_of.out)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
    wait_for(lambda: (request_of.out / ".lock").exists() and psutil.Process(process.pid).children(), 120, process)
    os.kill(process.pid, signal.SIGINT)
    _out, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in errors
    assert "Traceback" not in errors


def test_a_folder_that_holds_a_sweep_is_not_written_over(resumed, request_of):
    before = (resumed / "results.jsonl").read_bytes()
    with pytest.raises(FasthgError, match="--resume"):
        sweep(request_of)
    assert (resumed / "results.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("variants", ("vast",), "vast"),
        ("paths", ("warp",), "warp"),
        ("modes", ("dream",), "dream"),
        ("batch_sizes", (0,), "0"),
        ("device", "tpu", "tpu"),
        ("weights", "nowhere", "nowhere"),
        ("size", 100, "size is 100; small takes multiples of 64"),
        ("minutes", math.nan, "nan minutes"),
        ("minutes", math.inf, "inf minutes"),
        ("cell_limit", math.inf, "inf seconds for a cell"),
        ("cell_limit", 1e9, "1e\\+09 seconds for a cell"),
    ],
)
def test_bad_requests_are_named_before_anything_is_written(request_of, tmp_path, field, value, named):
    out = tmp_path / "out"
    value = tmp_path / value if field == "weights" else value
    with pytest.raises(FasthgError, match=named):
        plan_request(dataclasses.replace(request_of, out=out, **{field: value}))
    assert not out.exists()


def test_a_folder_that_is_not_there_is_not_gone_on_with(request_of, tmp_path):
    """One that is there and empty is that of a sweep which was killed before its first result."""
    going_on = dataclasses.replace(request_of, resume=True, out=tmp_path / "out")
    with pytest.raises(FasthgError, match="out: no such folder to resume; give that of a sweep"):
        sweep(going_on)
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    assert choose_folder(going_on) == tmp_path / "out"


@pytest.mark.parametrize("folder", ["/proc", "/sys"])  # where nobody may write
def test_a_folder_that_cannot_be_written_is_named(request_of, folder):
    with pytest.raises(FasthgError, match=f"cannot write {folder}: .*; choose"):
        sweep(dataclasses.replace(request_of, out=Path(folder)))


def test_a_sweep_that_is_resumed_behind_others_does_not_claim_that_it_went_first(request_of, tmp_path):
    run = Sweep(dataclasses.replace(request_of, resume=True), plan_request(request_of), tmp_path, Display())
    limits = {"tflops": {"fp32": 1.0}, "copy_gb_s": 1.0}
    run.results.describe({"configuration": run.configuration, "niceness": -15, "limits": limits})
    run.measure_machine()
    kept = Results(run.results.path).machine
    assert (kept["niceness"], kept["limits"]) == (os.getpriority(os.PRIO_PROCESS, 0), limits)
    run.results.describe({"niceness": 19})
    run.measure_machine()
    assert Results(run.results.path).machine["niceness"] == 19  # some cells did not


def test_options_of_the_contract_are_there():
    import inspect

    wanted = {"variants", "paths", "modes", "batch_sizes", "data", "weights", "device", "full", "out", "resume"}
    assert wanted <= set(inspect.signature(main).parameters)
