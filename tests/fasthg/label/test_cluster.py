"""Labels by Ray on this machine: the same joints, nothing lost or twice when a worker is killed, and nobody is told."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

import fasthg
from fasthg.network.checkpoint import save
from fasthg.network.variants import HourglassConfig

pytest.importorskip("ray.data")
from fasthg.label.places import Place
from fasthg.label.rows import read_rows
from fasthg.label.run import LabelOptions, label

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photographs and a network."""
    folder, rng = tmp_path_factory.mktemp("given"), np.random.default_rng(0)
    (folder / "photos").mkdir()
    for number in range(12):
        cv2.imwrite(str(folder / "photos" / f"{number:02}.jpg"), rng.integers(0, 256, (60, 60, 3), np.uint8))
    config = HourglassConfig(num_stacks=1, num_feats=8, depths=1, stem_feats=(8, 8))
    save(fasthg.HourglassNet(config), folder / "tiny.safetensors")
    return folder


def command(given: Path, out: Path) -> list[str]:
    arguments = f"--weights {given}/tiny.safetensors --path eager --device cpu --block 1 --threads 1 --actors 2 --ray"
    return [sys.executable, "-m", "fasthg.cli", "label", str(given / "photos"), "-o", str(out), *arguments.split()]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed: it shows what goes to the network")
def test_ray_gives_the_same_joints_and_talks_to_this_machine_alone(given: Path, tmp_path: Path) -> None:
    trace = ["strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", str(tmp_path / "trace")]
    done = subprocess.run(
        [*trace, *command(given, tmp_path / "ray")],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    options = LabelOptions(weights=given / "tiny.safetensors", path="eager", device="cpu", block=1, threads=1)
    label([str(given / "photos")], str(tmp_path / "here"), options)
    here, ray = ({row.image: row.pose for row in read_rows(Place(tmp_path / name))} for name in ("here", "ray"))
    assert len(here) == 12
    assert here.keys() == ray.keys()
    assert all(np.array_equal(here[name].joints, ray[name].joints) for name in here)
    addresses = set(
        re.findall(r'inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"', (tmp_path / "trace").read_text())
    )
    local = ("127.", "0.0.0.0", "::1", "::ffff:127.")
    assert [found for pair in addresses if not (found := "".join(pair)).startswith(local) and found != "::"] == []


def test_a_worker_and_the_driver_are_killed_and_everything_is_there_once(given: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        command(given, out), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(lambda: len(list(out.glob("part-*"))) >= 2 or process.poll() is not None)
        workers = [p for p in psutil.Process(process.pid).children(recursive=True) if "MapWorker" in _title(p)]
        assert workers, "ray has no actor that works"
        os.kill(workers[0].pid, signal.SIGKILL)
        count = len(list(out.glob("part-*")))
        _wait_for(lambda: len(list(out.glob("part-*"))) > count or process.poll() is not None)
    finally:
        process.kill()
        process.wait(60)
    done = subprocess.run(
        command(given, out), env=environment(), capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(Path(row.image).name for row in read_rows(Place(out))) == [f"{number:02}.jpg" for number in range(12)]
    assert not list(out.glob(".*part*"))


def _wait_for(condition, seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
