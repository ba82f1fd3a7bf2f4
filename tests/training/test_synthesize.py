"""A rendered dataset on disk: readable like MPII, the same for a seed, whole or not there."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fasthg.console import run_command
from fasthg.data.dataset import load_dataset
from fasthg.errors import FasthgError
from training.people.synthetic import chunk
from training.synthesize import main, synthesize

SMALL = (160, 120)

# Fields of a record of mpii_annotations.json.gz, bearpaw's file.
BEARPAW_FIELDS = {
    "dataset", "isValidation", "img_paths", "img_width", "img_height", "objpos", "joint_self", "scale_provided",
    "joint_others", "scale_provided_other", "objpos_other", "annolist_index", "people_index", "numOtherPeople",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk, "IMAGES", 3)


def render(out: Path, train: int | None = 6, val: int | None = 2, seed: int = 1, **options: Any) -> Path:
    options = {"size": SMALL, "progress": False, "workers": 1} | options
    return synthesize(out, train, val, seed, **options)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def records(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "annotations.json").read_text())


def write_annotations(path: Path, people: Any) -> Path:
    path.write_text(json.dumps(people))
    return path


class TestDataset:
    def test_it_reads_like_mpii(self, tmp_path: Path) -> None:
        folder = render(tmp_path / "people")
        train, val = load_dataset(folder, "train").people, load_dataset(folder, "val").people
        assert (len(train), len(val)) == (6, 2)
        assert not set(train.images) & set(val.images)
        for people in (train, val):
            np.testing.assert_allclose(people.head_size, 0.6 * 200 * people.scale / 4.8, rtol=1e-3)
            inside = people.joints[people.labelled]
            assert ((inside >= 0) & (inside <= SMALL)).all()
            assert people.labelled.mean() > 0.7

    def test_records_have_the_fields_of_bearpaws_file_and_the_heads_box(self, tmp_path: Path) -> None:
        for person in records(render(tmp_path / "people")):
            assert set(person) == BEARPAW_FIELDS | {"head_box"}
            assert np.shape(person["joint_self"]) == (16, 3)
            count = int(person["numOtherPeople"])
            assert np.size(person["joint_others"]) == count * 48
            assert np.size(person["scale_provided_other"]) == count

    def test_images_have_the_size_that_was_asked_for(self, tmp_path: Path) -> None:
        folder = render(tmp_path / "people", train=1, val=0, size=(200, 100))
        assert cv2.imread(str(folder / "images" / "000001.jpg")).shape == (100, 200, 3)

    def test_any_number_of_workers_draws_the_same_bytes(self, tmp_path: Path) -> None:
        alone, together = (content(render(tmp_path / str(workers), workers=workers)) for workers in (1, 2))
        assert alone == together

    def test_more_people_leave_the_first_ones_as_they_are(self, tmp_path: Path) -> None:
        few, many = (render(tmp_path / str(train), train=train, val=1) for train in (2, 4))
        for name in ("000001.jpg", "000002.jpg"):
            assert (few / "images" / name).read_bytes() == (many / "images" / name).read_bytes()
        assert (few / "images/000003.jpg").read_bytes() == (many / "images/000005.jpg").read_bytes()  # validation

    def test_another_seed_draws_other_people(self, tmp_path: Path) -> None:
        first, second = (records(render(tmp_path / str(seed), seed=seed)) for seed in (1, 2))
        assert all(one["joint_self"] != other["joint_self"] for one, other in zip(first, second))


class TestInterruption:
    def test_an_interrupted_run_is_no_dataset_and_goes_on_to_the_same_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        drawn: list[str] = []
        draw = chunk.SampledImage.draw

        def draw_until_interrupted(image: chunk.SampledImage) -> tuple[bytes, list[dict[str, Any]]]:
            if len(drawn) == 4:
                raise KeyboardInterrupt
            drawn.append(image.name)
            return draw(image)

        monkeypatch.setattr(chunk.SampledImage, "draw", draw_until_interrupted)
        with pytest.raises(KeyboardInterrupt):
            render(tmp_path / "people")
        with pytest.raises(FasthgError, match=r"annotations\.json"):
            load_dataset(tmp_path / "people", "train")
        (tmp_path / "people" / "images" / ".000005.jpg.4711").write_bytes(b"half a JPEG of a process that was killed")
        monkeypatch.setattr(chunk.SampledImage, "draw", lambda image: (drawn.append(image.name), draw(image))[1])
        render(tmp_path / "people")
        assert sorted(set(drawn)) == [f"{number:06d}.jpg" for number in range(1, 9)]
        assert len(drawn) == 9  # of the unfinished chunk of three, one image was drawn twice
        monkeypatch.undo()
        assert content(tmp_path / "people") == content(render(tmp_path / "whole"))

    def test_a_finished_dataset_is_not_drawn_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        before = content(render(tmp_path / "people"))
        monkeypatch.setattr(chunk.SampledImage, "draw", None)
        assert content(render(tmp_path / "people")) == before

    def test_nothing_but_the_dataset_is_left(self, tmp_path: Path) -> None:
        folder = render(tmp_path / "people")
        assert {path.name for path in folder.iterdir()} == {"images", "annotations.json", "synthesis.json"}
        assert len(list((folder / "images").iterdir())) == 8


class TestPoses:
    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        """Annotations of a dataset that was rendered itself: 6 and 2 people, most with neighbours."""
        return render(tmp_path / "source", seed=9) / "annotations.json"

    def test_real_coordinates_are_kept_at_the_photographs_own_size(self, source: Path, tmp_path: Path) -> None:
        folder = render(tmp_path / "posed", None, None, poses=source, size=None)
        for split in ("train", "val"):
            posed, real = (load_dataset(path, split).people for path in (folder, source.parent))
            assert posed.images == real.images
            np.testing.assert_allclose(posed.joints, real.joints, atol=1e-3)
            np.testing.assert_array_equal(posed.visible, real.visible)
            np.testing.assert_allclose(posed.center, real.center, atol=1e-3)
            np.testing.assert_allclose(posed.scale, real.scale, atol=1e-4)
            np.testing.assert_allclose(posed.head_size, real.head_size, rtol=1e-3)
        assert cv2.imread(str(folder / "images" / "000001.jpg")).shape == (120, 160, 3)

    def test_coordinates_follow_the_size_of_the_image(self, source: Path, tmp_path: Path) -> None:
        folder = render(tmp_path / "posed", None, None, poses=source, size=(80, 200))
        posed, real = (load_dataset(path, "train").people for path in (folder, source.parent))
        np.testing.assert_allclose(posed.joints, real.joints / 2, atol=1e-3)
        np.testing.assert_allclose(posed.head_size, real.head_size / 2, rtol=1e-2)
        assert cv2.imread(str(folder / "images" / "000001.jpg")).shape == (60, 80, 3)

    def test_people_of_one_photograph_stand_in_one_image(self, source: Path, tmp_path: Path) -> None:
        people = records(source.parent)
        for person in people[:2]:
            person["img_paths"] = "both.jpg"
        shared = write_annotations(tmp_path / "shared.json", people[:2])
        folder = render(tmp_path / "posed", None, None, poses=shared)
        assert [path.name for path in (folder / "images").iterdir()] == ["both.jpg"]
        posed = records(folder)
        assert len(posed) == 2
        others = np.reshape(posed[0]["joint_others"], (-1, 16, 3)).tolist()
        assert posed[1]["joint_self"] in others

    def test_train_and_val_limit_the_people(self, source: Path, tmp_path: Path) -> None:
        posed = records(render(tmp_path / "posed", train=2, val=1, poses=source))
        assert [person["isValidation"] for person in posed] == [0, 0, 1]

    def test_mpiis_own_people_and_neighbours_are_drawn(self, mpii_dir: Path, tmp_path: Path) -> None:
        with gzip.open(mpii_dir / "mpii_annotations.json.gz") as file:
            source = write_annotations(tmp_path / "mpii.json", json.load(file)[:100])
        folder = render(tmp_path / "posed", train=3, val=3, poses=source, size=(320, 180))
        posed = records(folder)
        # The first record of the file: 1280 x 720, objpos 594, 257, scale 3.021; one neighbour.
        assert posed[0]["img_paths"] == "015601864.jpg"
        assert posed[0]["objpos"] == [(594 - 0.5) / 4 + 0.5, (257 - 0.5) / 4 + 0.5]
        assert posed[0]["scale_provided"] == pytest.approx(3.021 / 4, abs=1e-4)
        assert posed[0]["joint_self"][0] == [(620 - 0.5) / 4 + 0.5, (394 - 0.5) / 4 + 0.5, 1.0]
        assert posed[0]["numOtherPeople"] == 1
        assert posed[1]["joint_self"] == posed[0]["joint_others"]

    @pytest.mark.parametrize(
        ("people", "message"),
        [
            ([], "expected a JSON list of people"),
            ({"images": []}, "expected a JSON list of people"),
            ([{"joint_self": [[0, 0, 0]] * 16, "objpos": [1, 1], "scale_provided": 1}], "row 0 has no file name"),
        ],
    )
    def test_files_without_people_are_refused(self, people: Any, message: str, tmp_path: Path) -> None:
        poses = write_annotations(tmp_path / "poses.json", people)
        with pytest.raises(FasthgError, match=message):
            render(tmp_path / "posed", None, None, poses=poses)
        assert not (tmp_path / "posed").exists()

    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [
            ("img_width", None, "row 0 has no number 'img_width'"),
            ("img_height", 0, "an image of 160.0 x 0 pixels"),
            ("img_paths", "../../outside.jpg", "not a plain file name"),
            ("scale_provided", -1.0, "scale is -1.0"),
            ("scale_provided_other", [1.0] * 7, "row 0: its 1 neighbours cannot be read"),
        ],
    )
    def test_a_damaged_record_is_named(
        self, field: str, value: Any, message: str, source: Path, tmp_path: Path
    ) -> None:
        people = [person for person in records(source.parent) if person["numOtherPeople"] == 1][:1]
        people[0][field] = value
        poses = write_annotations(tmp_path / "poses.json", people)
        with pytest.raises(FasthgError, match=message):
            render(tmp_path / "posed", None, None, poses=poses)
        assert not (tmp_path / "posed").exists()

    def test_a_split_without_people_is_named(self, source: Path, tmp_path: Path) -> None:
        people = [person for person in records(source.parent) if not person["isValidation"]]
        poses = write_annotations(tmp_path / "poses.json", people)
        with pytest.raises(FasthgError, match="no people of the wanted splits"):
            render(tmp_path / "posed", 0, 5, poses=poses)

    def test_a_format_without_image_sizes_is_refused(self, mpii_dir: Path, tmp_path: Path) -> None:
        for name in ("test_mpii.json", "valid.h5"):
            with pytest.raises(FasthgError, match="bearpaw's JSON"):
                render(tmp_path / "posed", None, None, poses=mpii_dir / name)


class TestBadUse:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"train": 0, "val": 0}, "nothing to render: --train 0 --val 0"),
            ({"train": -1}, "nothing to render: --train -1"),
            ({"train": None}, "--train and --val are needed"),
            ({"seed": -3}, "--seed -3 is negative"),
            ({"size": (10, 120)}, "--size 10x120"),
            ({"size": None}, "goes with --poses only"),
        ],
    )
    def test_senseless_arguments_are_named(self, arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
        with pytest.raises(FasthgError, match=message):
            render(tmp_path / "people", **arguments)
        assert not (tmp_path / "people").exists()

    def test_a_folder_with_other_things_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.txt").write_text("important")
        with pytest.raises(FasthgError, match="no empty folder; choose another --out"):
            render(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]

    def test_a_dataset_of_other_settings_is_not_overwritten(self, tmp_path: Path) -> None:
        before = content(render(tmp_path / "people"))
        with pytest.raises(FasthgError, match="other settings"):
            render(tmp_path / "people", seed=2)
        assert content(tmp_path / "people") == before

    def test_a_file_in_the_way_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        for out in (tmp_path / "file", tmp_path / "file" / "below"):
            with pytest.raises(FasthgError, match=r"choose another (--out|folder)"):
                render(out)

    def test_the_command_prints_one_line_and_ends_with_2(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = ["--out", str(tmp_path / "people"), "--train", "1", "--val", "1", "--size", "wide"]
        assert run_command(main, arguments) == 2
        assert capsys.readouterr().err.count("\n") == 1

    def test_the_command_renders(self, tmp_path: Path) -> None:
        arguments = ["--train", "1", "--val", "1", "--size", "160x120", "--workers", "1"]
        assert run_command(main, ["--out", str(tmp_path / "people"), *arguments]) == 0
        assert len(records(tmp_path / "people")) == 2
