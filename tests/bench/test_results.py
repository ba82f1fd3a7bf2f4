"""Every folder of results that somebody adds holds rows that can be read, judged, and found again in its reports."""

import csv
from pathlib import Path

import pytest

from bench.measure.record import Results
from bench.report.tables import number, path_label

RESULTS = Path(__file__).parents[2] / "bench" / "results"
SWEEPS = sorted(path.parent for path in RESULTS.glob("*/results.jsonl") if (path.parent / "results.csv").exists())
SWEEPS = [folder for folder in SWEEPS if '"machine"' in (folder / "results.jsonl").read_text(encoding="utf-8")]
FILES = {"results.jsonl", "results.csv", "report.md", "report.html"}


@pytest.fixture(params=SWEEPS, ids=lambda folder: folder.name)
def folder(request):
    return request.param


def test_there_is_a_folder():
    assert SWEEPS


def test_the_folder_holds_rows_reports_and_charts_and_nothing_else(folder):
    names = {path.name for path in folder.iterdir() if path.name not in ("cache", "logs", "people", ".lock")}
    assert names >= FILES
    assert {name for name in names - FILES if not name.endswith(".svg")} == set()


def test_the_machine_is_described(folder):
    machine = Results(folder / "results.jsonl").machine
    assert machine["model"]
    assert machine["versions"]["torch"]
    assert machine["commit"].strip("+").isalnum()
    assert machine["limits"]["tflops"]["fp32"] > 0


def test_times_stand_with_what_judges_them_and_the_rest_with_a_reason(folder):
    rows = Results(folder / "results.jsonl").rows
    assert any(row.status == "ok" for row in rows)
    for row in rows:
        if row.status != "ok":
            assert row.reason, row.cell
            assert row.median_ms is None, row.cell
            continue
        assert row.commit, row.cell
        assert 0 < row.p10_ms <= row.median_ms <= row.p90_ms, row.cell
        assert row.repeats >= 1, row.cell
        assert row.load is not None, row.cell
        if row.mode != "loader":
            assert row.error is not None, row.cell


def test_the_reports_are_those_of_the_rows(folder):
    rows = Results(folder / "results.jsonl").rows
    with open(folder / "results.csv", newline="", encoding="utf-8") as file:
        lines = {
            (line["variant"], line["path"], line["precision"], line["mode"], line["batch_size"]): line
            for line in csv.DictReader(file)
        }
    pages = [(folder / name).read_text(encoding="utf-8") for name in ("report.md", "report.html")]
    for row in rows:
        line = lines[row.variant, row.path, row.precision, row.mode, str(row.batch_size)]
        assert line["status"] == row.status
        if row.status == "ok":
            assert float(line["median_ms"]) == row.median_ms
            assert all(path_label(row) in page and number(row.images_s) in page for page in pages)
