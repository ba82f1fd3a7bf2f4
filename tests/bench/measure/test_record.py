"""Rows that were measured once must survive whatever happens to the process that wrote them."""

import csv
import json

import pytest

from bench.measure.record import Cell, Results, Row, digest_of, write_csv
from fasthg.errors import FasthgError

ROW = Row("small", "eager", "fp32", "infer", 1, "ok", median_ms=12.5, versions={"torch": "2.13.0"})


def test_rows_come_back_as_they_were_written(tmp_path):
    Results(tmp_path / "results.jsonl").add(ROW)
    assert Results(tmp_path / "results.jsonl").rows == [ROW]


def test_a_later_row_of_a_cell_replaces_the_earlier(tmp_path):
    results = Results(tmp_path / "results.jsonl")
    results.add(ROW)
    results.add(Row("small", "eager", "fp32", "infer", 1, "error", reason="crash"))
    assert [row.status for row in Results(results.path).rows] == ["error"]


def test_a_line_cut_short_by_a_crash_loses_that_row_only(tmp_path):
    path = tmp_path / "results.jsonl"
    Results(path).add(ROW)
    with open(path, "a") as file:
        file.write('{"row": {"variant": "sma')
    again = Results(path)
    assert again.rows == [ROW]
    again.add(Row("small", "amp", "bf16", "infer", 1, "ok"))
    assert [row.path for row in Results(path).rows] == ["eager", "amp"]


def test_damage_inside_the_file_is_named_with_its_line(tmp_path):
    path = tmp_path / "results.jsonl"
    Results(path).add(ROW)
    path.write_text("not json\n" + path.read_text())
    with pytest.raises(FasthgError, match="line 1"):
        Results(path)


def test_rows_of_another_configuration_do_not_mix_into_the_table(tmp_path):
    results = Results(tmp_path / "results.jsonl")
    results.describe({"configuration": "first"})
    results.add(Row("small", "eager", "fp32", "infer", 1, "ok", configuration="first"))
    results.describe({"configuration": "second"})
    results.add(Row("small", "amp", "bf16", "infer", 1, "ok", configuration="second"))
    assert [row.path for row in Results(results.path).rows] == ["amp"]


def test_csv_holds_every_row_with_a_column_for_every_field(tmp_path):
    write_csv([ROW], tmp_path / "results.csv")
    with open(tmp_path / "results.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["variant"], row["median_ms"], row["versions"]) == ("small", "12.5", "torch=2.13.0")
    assert set(row) == set(json.loads(json.dumps(vars(ROW)))) - {"turns"}


def test_digest_changes_with_anything_that_changes_a_result():
    cell = Cell("small", "eager", "fp32", "infer", 1)
    assert digest_of(vars(cell), {"size": 256}) == digest_of(vars(cell), {"size": 256})
    assert digest_of(vars(cell), {"size": 256}) != digest_of(vars(cell), {"size": 128})
