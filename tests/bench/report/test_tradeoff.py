"""The plane of score against time: trained networks alone, each where its figures say."""

from __future__ import annotations

import re

import pytest

from bench.measure.record import Row
from bench.report.charts import colour_of
from bench.report.report import make_sections
from bench.report.tradeoff import Point, points_of, tradeoff_chart
from fasthg.runtimes.paths import PATHS

BASIS = "shipped weights, 256 px, 128 crops"


def row(variant: str, ms: float, pckh: float | None, basis: str = BASIS, batch: int = 1) -> Row:
    return Row(variant, "eager", "fp32", "infer", batch, "ok", median_ms=ms, images_s=1e3 * batch / ms, pckh=pckh,
               pckh_basis=basis, error=1e-7, gflop=1.0)  # fmt: skip


def test_networks_that_learnt_nothing_have_no_place() -> None:
    rows = [row("small", 40, 90.0), row("small@1", 44, 85.0, batch=2), row("original", 400, 99.0, "reduced network")]
    assert points_of([*rows, row("feats64", 90, None)]) == [
        Point("eager:fp32", "small", 40, 90.0),
        Point("eager:fp32", "small@1", 22, 85.0),
    ]


def test_the_report_shows_them_with_their_figures() -> None:
    pytest.importorskip("matplotlib")
    sections = {section.title: section for section in make_sections([row("small", 40, 90.0), row("small@1", 22, 85.0)])}
    section = sections["Score against time"]
    lines = [line.values for line in section.tables[0].lines]
    assert lines == [["eager:fp32", "small@1", "22.0", "85.00"], ["eager:fp32", "small", "40.0", "90.00"]]
    assert section.chart_file == "score-against-time.svg"
    for rows in ([row("original", 9, 9.0, "reduced network")], [row("small", 40, 90.0)]):
        assert "Score against time" not in {section.title for section in make_sections(rows)}


def _places(svg: str, labels: list[str]) -> dict[str, list[float]]:
    """Where the labels stand, in the SVG's units."""
    places = {}
    for label in labels:
        found = re.search(rf'translate\(([\d.]+) ([\d.]+)\)[^>]*>{label}<|x="([\d.]+)" y="([\d.]+)"[^>]*>{label}<', svg)
        assert found, label
        places[label] = [float(value) for value in found.groups() if value]
    return places


def test_better_is_higher_and_quicker_further_left() -> None:
    pytest.importorskip("matplotlib")
    svg = tradeoff_chart(
        [Point("a", "LOW", 10, 50), Point("a", "HIGH", 30, 90, 1.5), Point("b", "FAR", 60, 91)], "PCKh"
    )
    places = _places(svg, ["LOW", "HIGH", "FAR"])
    assert places["LOW"][0] < places["HIGH"][0] < places["FAR"][0]
    assert places["LOW"][1] > places["HIGH"][1] > places["FAR"][1]  # SVG counts downwards
    assert "PCKh, %" in svg


def test_stacks_of_one_network_are_joined_and_nothing_else() -> None:
    pytest.importorskip("matplotlib")
    points = [Point("a", "small@1", 10, 50), Point("a", "small", 20, 60), Point("a", "convs4", 30, 70)]
    svg = tradeoff_chart([*points, Point("b", "small", 15, 60)], "PCKh")
    joined = re.findall(r'd="M [\d.\s]+L[\d.\s]+" clip-path="[^"]+" style="[^"]*stroke-width: 1.2;', svg)
    assert len(joined) == 1


def test_paths_of_a_network_share_its_label_and_students_have_their_own() -> None:
    pytest.importorskip("matplotlib")
    paths = [Point("a", "small", 10, 90.1), Point("b", "small", 20, 90.0), Point("b", "original", 30, 40)]
    svg = tradeoff_chart([*paths, Point("c", "student", 5, 60), Point("d", "student", 5, 70)], "PCKh")
    assert [svg.count(f">{name}<") for name in ("small", "original", "student")] == [1, 1, 2]


def test_times_far_apart_stand_on_a_logarithmic_axis() -> None:
    pytest.importorskip("matplotlib")

    def centre(middle: float) -> float:
        points = [Point("a", name, ms, ms) for name, ms in (("LEFT", 1), ("MIDDLE", middle), ("RIGHT", middle**2))]
        places = _places(tradeoff_chart(points, "PCKh"), [point.label for point in points])
        left, here, right = (x for x, _y in places.values())
        return (here - left) / (right - left)

    assert centre(10) == pytest.approx(0.5, abs=0.01)  # 1, 10 and 100 ms
    assert centre(2) == pytest.approx(1 / 3, abs=0.01)  # 1, 2 and 4 ms


def test_a_path_has_one_colour_in_every_chart_and_no_two_share_one() -> None:
    """Precisions of GPUs and CPUs that never meet in one chart may look alike."""
    labels = [f"{name}:{precision}" for name, path in PATHS.items() for precision in path.precisions]
    assert [colour_of(label, place) for place, label in enumerate(labels)] == [colour_of(label) for label in labels]
    on_cpu = [f"{name}:{precision}" for name, path in PATHS.items() for precision in path.on.get("cpu", ())]
    assert len({colour_of(label) for label in on_cpu}) == len(on_cpu)
