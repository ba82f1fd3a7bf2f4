"""Machines as they are: no home, a cache that cannot be written or is damaged; and nobody is told of a prediction."""

from __future__ import annotations

import logging
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest
import torch

import fasthg
from fasthg.errors import BackendUnavailable
from fasthg.files import default_cache_dir
from fasthg.network.variants import HourglassConfig
from fasthg.runtimes.measured import Measurement, measurements, remember_measurement
from fasthg.runtimes.paths import prepare

ROOT = Path(__file__).parents[3]


@pytest.fixture
def no_cache_variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("FASTHG_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_a_user_without_a_home_has_no_cache(no_cache_variables: pytest.MonkeyPatch) -> None:
    def unknown(user: int) -> None:
        raise KeyError(user)

    no_cache_variables.setattr(pwd, "getpwuid", unknown)
    assert default_cache_dir() is None
    remember_measurement(Measurement("small", "eager:fp32", "a CPU", 1, 1, 1.0))
    assert measurements() == []


@pytest.mark.parametrize("path", ["onnxruntime", "openvino:fp32"])
def test_a_cache_that_cannot_be_written_is_done_without(
    no_cache_variables: pytest.MonkeyPatch,
    tmp_path: Path,
    path: str,
    tiny_config: HourglassConfig,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").write_text("in the way")
    no_cache_variables.setenv("FASTHG_CACHE", str(tmp_path / "file" / "cache"))
    with caplog.at_level(logging.WARNING, "fasthg"):
        run = prepare(fasthg.HourglassNet(tiny_config).eval(), path, torch.rand(1, 3, 64, 64), device="cpu", threads=1)
    assert run(torch.rand(1, 3, 64, 64)).isfinite().all()
    assert sum("no cache" in line for line in caplog.messages) == 1


def test_a_machine_without_a_folder_for_temporary_files_is_told_so(
    monkeypatch: pytest.MonkeyPatch, tiny_config: HourglassConfig
) -> None:
    """As a container that may write nothing; what needs no files runs."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc/none"])
    model, images = fasthg.HourglassNet(tiny_config).eval(), torch.rand(1, 3, 64, 64)
    assert prepare(model, "eager", images, device="cpu", cache_dir=None)(images).isfinite().all()
    with pytest.raises(BackendUnavailable, match="no folder for temporary files; name one by TMPDIR=DIR"):
        prepare(model, "onnxruntime", images, device="cpu", cache_dir=None)


@pytest.mark.parametrize("path", ["ncnn", "onnxruntime", "openvino:fp32"])
@pytest.mark.parametrize("content", [b"", b"garbage" * 9, None])
def test_a_damaged_cache_is_done_without(
    tmp_path: Path, path: str, content: bytes | None, tiny_config: HourglassConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """Each file of the cache is emptied, overwritten or cut in half."""
    model, images = fasthg.HourglassNet(tiny_config).eval(), torch.rand(1, 3, 64, 64)
    first = prepare(model, path, images, device="cpu", threads=1, cache_dir=tmp_path)(images)
    for file in (file for file in tmp_path.rglob("*") if file.is_file() and file.suffix != ".lock"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2] if content is None else content)
    with caplog.at_level(logging.WARNING, "fasthg"):
        again = prepare(model, path, images, device="cpu", threads=1, cache_dir=tmp_path)(images)
    assert torch.allclose(first, again, atol=1e-5)


STRACE = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=network"]  # all other calls at full speed
PREDICTION = """
    import sys, torch, fasthg
    from fasthg.network.variants import HourglassConfig
    from fasthg.runtimes.paths import PATHS
    model = fasthg.HourglassNet(HourglassConfig(num_stacks=1, num_feats=16, depths=2)).eval()
    on_cpu = [(path, precision) for path in PATHS.values() for precision in path.on.get("cpu", ())]
    for path, precision in on_cpu:
        if (path.name, precision) == ("compile", "bf16") or path.why_not("cpu", precision):  # its compiler is slow
            continue
        options = {"calibration": torch.rand(4, 3, 64, 64)} if precision == "int8" else {}
        name = f"{path.name}:{precision}"
        run = fasthg.prepare(model, name, torch.rand(1, 3, 64, 64), device="cpu", threads=1, **options)
        assert run(torch.rand(1, 3, 64, 64)).isfinite().all()
        print(name)
    print("done")
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed: it shows what goes to the network")
def test_a_prediction_talks_to_nobody_and_leaves_no_ids(tmp_path: Path) -> None:
    home, cache, trace = tmp_path / "home", tmp_path / "cache", tmp_path / "trace"
    home.mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    done = subprocess.run(
        [*STRACE, "-o", trace, sys.executable, "-c", textwrap.dedent(PREDICTION)],
        cwd=ROOT,
        env=kept | {"HOME": str(home), "FASTHG_CACHE": str(cache), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.stdout.endswith("done\n"), done.stderr[-2000:]
    assert {"eager:fp32", "compile:fp32", "fused:fp32"} <= set(done.stdout.split())
    calls = trace.read_text().splitlines()
    assert not [call for call in calls if "AF_INET" in call or "sendmmsg" in call]
    assert [path for path in home.rglob("*") if path.is_file()] == []
