"""Every variant's exports are checked and written down by one command that says what failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.exports import main, run_all
from bench.measure.exported import RESULTS, read_rows
from bench.report.tables import exports_table
from fasthg.console import run_command
from fasthg.errors import FasthgError


def test_an_export_that_cannot_be_made_is_a_row_with_its_reason_and_is_tried_again(tmp_path: Path) -> None:
    for _time in range(2):
        (row,) = run_all(["small"], ["onnx:bf16"], tmp_path, workers=1)
        assert "onnx has no bf16" in row.reason
    assert read_rows(tmp_path / RESULTS) == [row]
    assert exports_table([row]).lines[0].values == ["small", "none"]


def test_the_shipped_network_is_exported_within_the_tolerances(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (row,) = run_all(["small"], ["onnx:fp32"], tmp_path, workers=1)
    assert row.reason == ""
    assert row.heatmap_error is not None
    assert row.heatmap_error < 1e-5
    assert row.pckh_change == pytest.approx(0.0, abs=0.1)
    assert run_all(["small"], ["onnx:fp32"], tmp_path, workers=1) == [row]  # it is there already


def test_first_stacks_are_exported_with_their_weights_and_follow_their_network(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    rows = run_all(["small@1"], ["onnx:fp32"], tmp_path, workers=1)
    assert rows[0].reason == ""
    assert rows[0].weights.startswith("small.safetensors")
    run_all(["small@1", "small", "original"], ["onnx:bf16"], tmp_path, workers=1)
    kept = [(row.variant, row.format) for row in read_rows(tmp_path / RESULTS)]
    assert kept[-3:] == [("small", "onnx:bf16"), ("small@1", "onnx:bf16"), ("small@1", "onnx:fp32")]


@pytest.mark.parametrize(
    ("options", "line"),
    [(["--variants", "tiny"], "unknown variant 'tiny'"), (["--formats", "onnx:fp8"], "unknown format 'onnx:fp8'")],
)
def test_a_bad_request_is_one_line(
    options: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(main, [*options, "--out", str(tmp_path)]) == 2
    assert line in capsys.readouterr().err
    assert not (tmp_path / RESULTS).exists()


def test_results_of_another_version_are_named(tmp_path: Path) -> None:
    (tmp_path / RESULTS).write_text('{"rows": [{"network": "small"}]}')
    with pytest.raises(FasthgError, match=r"holds no exports of this version"):
        read_rows(tmp_path / RESULTS)
