"""What the package's tests share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fasthg.cli.app import main
from fasthg.data.dataset import load_dataset
from fasthg.data.people import People
from fasthg.network.checkpoint import save
from fasthg.network.model import HourglassNet
from fasthg.network.variants import HourglassConfig


@pytest.fixture(scope="session")
def mpii_people(mpii_dir: Path) -> People:
    """MPII's 2,958 validation people, from the JSON, with head sizes."""
    return load_dataset(mpii_dir, "val", check_files=False).people


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fresh weights of a network of two stacks that takes 256-pixel crops quickly."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save(HourglassNet(HourglassConfig(num_stacks=2, num_feats=8, depths=1, stem_feats=(8, 8))), path)
    return path


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must end with an exit code, 2 where nothing is said, and gives its one line of an error."""

    def run(*argv: object, code: int = 2) -> str:
        assert main([str(arg) for arg in argv]) == code
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fasthg: ")]
        assert len(lines) == 1
        return lines[0]

    return run
