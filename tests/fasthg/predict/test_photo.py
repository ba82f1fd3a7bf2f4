"""What a run goes on without."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from fasthg.cli import app
from fasthg.data.dataset import load_dataset
from fasthg.network.checkpoint import save
from fasthg.network.model import HourglassNet
from fasthg.network.variants import HourglassConfig
from fasthg.predict.photo import LeftOut


def test_the_first_few_are_named_and_all_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    left_out = LeftOut(named=3)
    with caplog.at_level(logging.WARNING, "fasthg"):
        for person in range(5_000):
            left_out(f"person {person}")
    assert left_out.count == 5_000
    assert [record.getMessage() for record in caplog.records] == [
        "left out: person 0",
        "left out: person 1",
        "left out: person 2",
        "left out: more, which are counted but not named",
    ]


def test_eval_names_a_few_of_many_photographs_that_are_missing(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    people, weights = shutil.copytree(tiny_dataset, tmp_path / "people"), tmp_path / "tiny.safetensors"
    save(HourglassNet(HourglassConfig(num_stacks=1, num_feats=16, depths=1)), weights)
    dataset = load_dataset(people, "val")
    for row in range(1, len(dataset)):
        dataset.image_path(row).unlink(missing_ok=True)
    monkeypatch.setattr("fasthg.cli.evaluate._NAMED", 2)
    arguments = ["eval", "--data", people, "--weights", weights, "--path", "eager", "--size", "64", "--json"]
    with caplog.at_level(logging.WARNING, "fasthg"):
        assert app.main(list(map(str, arguments))) == 5
    assert len([record for record in caplog.records if "left out" in record.getMessage()]) == 3
