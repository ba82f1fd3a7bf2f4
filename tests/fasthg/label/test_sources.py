"""What a run is given to label: photographs, lists and folders, and none of its own results."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from fasthg.errors import FasthgError
from fasthg.predict.sources import photos as predicted

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
from fasthg.label.items import Item, cut_blocks, list_items  # noqa: E402  they need pyarrow
from fasthg.label.places import Place  # noqa: E402
from fasthg.label.run import label  # noqa: E402
from tests.fasthg.label.running import options, rows  # noqa: E402


def test_a_list_of_paths_gives_each_person_a_row(weights: Path, photos: Path, tmp_path: Path) -> None:
    """Two people, a box outside the photograph, and one without a box; rows of a photograph lie apart."""
    columns = {
        "path": [str(photos / name) for name in ("0.jpg", "1.jpg", "0.jpg", "2.jpg", "1.jpg", "absent.jpg")],
        "x": [1.0, 2, 5, None, 500, None],
        "y": [1.0, 2, 5, None, 5, None],
        "w": [20.0, 30, 20, None, 20, None],
        "h": [30.0, 30, 20, None, 20, None],
    }
    pq.write_table(pa.table(columns), tmp_path / "people.parquet")
    counts = label([str(tmp_path / "people.parquet")], str(tmp_path / "out"), options(weights))
    assert (counts.people, counts.left_out) == (4, 2)
    found = rows(tmp_path / "out")
    boxes = [(Path(row.image).name, row.pose.box) for row in found if row.pose]
    wanted = [("0.jpg", (1, 1, 20, 30)), ("0.jpg", (5, 5, 20, 20))]
    assert boxes == [*wanted, ("1.jpg", (2, 2, 30, 30)), ("2.jpg", (0, 0, 60, 52))]
    reasons = [row.reason or "" for row in found if not row.pose]
    assert any("box 500,5,20,20 lies outside" in reason for reason in reasons)
    assert any("absent.jpg" in reason for reason in reasons)


def test_names_that_are_not_utf8_are_labelled(weights: Path, photos: Path, tmp_path: Path) -> None:
    os.rename(photos / "1.jpg", name := os.fsencode(photos) + b"/\xff.jpg")
    label([str(photos), os.fsdecode(name)], str(tmp_path / "out"), options(weights))
    found = [row for row in rows(tmp_path / "out") if row.pose]
    assert [Path(row.image).name for row in found] == ["0.jpg", "2.jpg", "4.jpg", "5.jpg", "6.jpg", "\\udcff.jpg"]


@pytest.mark.parametrize("name", ["a", "a.ppm", "a.jp2", "a.pcx", "a.ico"])
def test_a_photograph_is_told_as_predict_tells_it(tmp_path: Path, name: str) -> None:
    kinds = {"a": "JPEG", "a.jp2": "JPEG2000"}
    picture = PIL.Image.fromarray(np.full((64, 64, 3), 90, np.uint8))
    picture.save(tmp_path / name, kinds.get(name))
    by_predict = [photo.frame for photo in predicted([tmp_path / name])]
    assert [item.start for item in list_items([str(tmp_path / name)], 8)] == by_predict


def test_the_results_are_no_source(
    weights: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `label * -o labels` names them the second time."""
    monkeypatch.chdir(tmp_path)
    label(["photos"], "labels", options(weights))
    assert label(["labels", "photos"], "labels", options(weights)).images == 0
    assert (
        label(["labels/part-*", "./labels/label.json", "photos"], str(tmp_path / "labels"), options(weights)).images
        == 0
    )
    with pytest.raises(FasthgError, match="nothing to label"):
        label(["labels"], "labels", options(weights))


def test_blocks_keep_their_names_while_nothing_of_them_is_done() -> None:
    items = [Item(f"{number}.jpg") for number in range(10)]
    blocks = list(cut_blocks(items, 4))
    assert [len(block.items) for block in blocks] == [4, 4, 2]
    left = list(cut_blocks(items, 4, frozenset({items[0].key})))
    assert [block.name for block in left[1:]] == [block.name for block in blocks[1:]]
    assert left[0].items == tuple(items[1:4])
    assert len({item.key for item in [*items, Item("0.jpg", ((1, 2, 3, 4),)), Item("0.jpg", None, 0, 4)]}) == 12


@pytest.mark.parametrize("alias", [False, True])
def test_nothing_of_the_output_folder_is_labelled_whatever_its_name(alias: bool, photos: Path) -> None:
    """`label *` finds the folder of a run before too, and a link to it."""
    out = photos / "labels"
    out.mkdir()
    shutil.copy(photos / "0.jpg", out / "overlay.jpg")
    (photos / "again").symlink_to(out)
    chosen = Place(photos / ("again" if alias else "labels"))
    for sources in ([str(photos)], [str(photos / name) for name in ("0.jpg", "labels", "again")]):
        assert not [item for item in list_items(sources, 10, chosen) if "overlay" in item.path]


def test_links_into_and_out_of_the_output_folder_are_what_they_are_called(photos: Path, tmp_path: Path) -> None:
    subset, out = tmp_path / "subset", photos / "labels"
    subset.mkdir()
    out.mkdir()
    (subset / "a.jpg").symlink_to(photos / "0.jpg")  # a photograph, though the results go to where it lies
    for source in (subset, subset / "*.jpg", subset / "a.jpg"):
        assert [item.path for item in list_items([str(source)], 10, Place(photos))] == [str(subset / "a.jpg")]
    (out / "o.jpg").symlink_to(subset / "a.jpg")  # a result, wherever it leads
    assert not [item for item in list_items([str(photos / "**" / "*.jpg")], 10, Place(out)) if "o.jpg" in item.path]
