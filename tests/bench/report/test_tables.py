"""What the report and the README print must be what the rows say, and a wrong cell must show no time."""

import dataclasses
from pathlib import Path

import pytest

from bench.measure.record import Row
from bench.report import readme
from bench.report.report import make_sections, tables
from fasthg.errors import FasthgError

README = Path(__file__).parents[3] / "README.md"


def row(path, precision="fp32", variant="original", mode="infer", **fields):
    return Row(variant, path, precision, mode, 1, fields.pop("status", "ok"), **fields)


EAGER = row("eager", median_ms=400.0, p10_ms=390.0, p90_ms=410.0, images_s=2.5, error=0.0, share=0.5, pckh_change=0.0)
QUICK = row(
    "openvino", "bf16", median_ms=100.0, p10_ms=99.0, p90_ms=101.0, images_s=10.0, error=1e-2, pckh_change=-0.03
)
WRONG = row("amp", "bf16", status="WRONG", reason="off", error=0.5)
ABSENT = row("tensorrt", "fp16", status="skipped", reason="runs on cuda only")
ROWS = [EAGER, WRONG, QUICK, ABSENT]


def columns_of(table, first):
    line = next(line.values for line in table.lines if first in line.values)
    return dict(zip(table.columns, line))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (0, "0"),
        (1234.5, "1,234"),
        (0.09996, "0.100"),
        (99.96, "100"),
        (2.534, "2.53"),
        (0.00123, "0.00123"),
    ],
)
def test_numbers_have_three_significant_digits(value, text):
    assert tables.number(value) == text


def test_times_eager_is_the_ratio_of_the_rates():
    table = tables.infer_table(ROWS)
    assert columns_of(table, "openvino:bf16")["× eager"] == "4.0"
    assert columns_of(table, "eager:fp32")["× eager"] == "1.0"


def test_wrong_cell_shows_no_time_in_any_table():
    line = columns_of(tables.infer_table(ROWS), "amp:bf16")
    assert line["ms"] == "WRONG"
    assert not any(line[name] for name in ("images/s", "× eager", "TFLOP/s", "min / 2,958*"))
    assert "amp:bf16" not in readme.markdown(readme.ladder(ROWS))


def test_every_cell_without_a_time_stands_with_its_reason():
    lines = {line.values[1]: line.values for line in tables.missing_table(ROWS).lines}
    assert lines.keys() == {"amp:bf16", "tensorrt:fp16"}
    assert lines["tensorrt:fp16"][-1] == "runs on cuda only"


def test_parity_shows_the_worst_variant_and_the_range_of_changes():
    other = dataclasses.replace(QUICK, variant="feats64", error=2e-2, pckh_change=0.05)
    line = columns_of(tables.parity_table([*ROWS, other]), "openvino:bf16")
    assert (line["Variants"], line["Largest error"], line["In"]) == ("2", "2.0e-02", "feats64")
    assert line["PCKh change"] == "-0.03 to +0.05"
    assert columns_of(tables.parity_table(ROWS), "amp:bf16")["WRONG"] == "1"


def test_training_shows_how_far_loss_and_gradients_are_off():
    step = row("amp", "bf16", mode="train", median_ms=1e3, images_s=1.0, error=1e-3, gradient_error=8e-3)
    line = columns_of(tables.train_table([step]), "amp:bf16")
    assert (line["Loss error"], line["Gradient error"]) == ("1.0e-03", "8.0e-03")


def test_study_stands_beside_the_fastest_path_that_was_right():
    quick = dataclasses.replace(QUICK, validation_minutes=4.9)
    liar = dataclasses.replace(WRONG, images_s=1e3)
    line = tables.study_table([EAGER, liar, quick]).lines[0].values
    assert line[0] == "original"
    assert {"18.0", "83.18", "openvino:bf16", "4.90"} <= set(line)


def test_report_has_a_section_for_all_that_was_measured():
    step = row("amp", "bf16", mode="train", median_ms=1e3, p10_ms=1e3, p90_ms=1e3, images_s=1.0)
    loader = Row("-", "packed", "-", "loader", 16, "ok", median_ms=1.0, images_s=900.0)
    titles = [section.title for section in make_sections([*ROWS, step, loader])]
    assert {"Inference", "Training step", "Loaders", "Beside the study", "Without a time"} <= set(titles)
    assert "Loaders" not in [section.title for section in make_sections(ROWS)]


def test_ladder_goes_from_the_slowest_path_to_the_fastest():
    lines = [line.values for line in readme.ladder(ROWS).lines]
    assert [line[0] for line in lines] == ["eager:fp32", "openvino:bf16"]
    assert lines[1][1:5] == ["100", "99.0–101", "10.0", "4.0"]
    assert lines[1][-2:] == ["1e-02", "-0.03"]


def test_variants_have_a_column_for_each_path_wrong_ones_too_and_training_for_a_person():
    step = Row("original", "amp", "bf16", "train", 4, "ok", median_ms=2000.0, images_s=2.0)
    other = dataclasses.replace(EAGER, variant="feats64", median_ms=150.0)
    assert readme.markdown(readme.variants([*ROWS, other, step])).splitlines()[2:] == [
        "| original | 400 | WRONG | 100 | 500 |",
        "| feats64 | 150 |  |  |  |",
    ]


def test_readme_holds_what_the_committed_results_say():
    text = README.read_text(encoding="utf-8")
    assert readme.fill(text) == text


def test_a_table_that_nobody_knows_is_named():
    with pytest.raises(FasthgError, match="heights"):
        readme.fill("<!-- heights: cpu-2-cores -->\n<!-- end -->")
