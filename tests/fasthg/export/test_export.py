"""What is exported answers like the network, and an export that fails leaves nothing and says why."""

from __future__ import annotations

import copy
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fasthg import HourglassNet, Predictor
from fasthg.cli.app import main
from fasthg.data.crops import load_crops
from fasthg.errors import BackendUnavailable
from fasthg.export.artefact import load_artefact, read_artefact
from fasthg.export.export import ExportOptions, export
from fasthg.export.targets import PRECISIONS, check
from fasthg.metrics.agreement import TOLERANCES, relative_error
from fasthg.network import load
from fasthg.network.checkpoint import save
from fasthg.network.variants import HourglassConfig
from fasthg.pixels.image import normalise
from fasthg.runtimes.onnx.graph import INPUT_NAME
from fasthg.runtimes.paths import PATHS, prepare

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

SIZE = 64
Refused = Callable[..., str]


def lived_in(model: HourglassNet) -> HourglassNet:
    """`model` itself with statistics, scales and shifts of its normalisations that are not those of a fresh one."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model.eval()


@pytest.fixture(scope="module")
def net() -> HourglassNet:
    torch.manual_seed(0)
    return lived_in(HourglassNet(HourglassConfig(num_stacks=1, num_feats=8, depths=1, stem_feats=(8, 8))))


@pytest.fixture(scope="module")
def weights(net: HourglassNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save(net, path)
    return path


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    return load_crops(None, SIZE).images[:3]


@pytest.fixture(scope="module")
def exported(net: HourglassNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "onnx"
    return export(ExportOptions("onnx", "fp32", weights=net, size=SIZE, batch=2, output=folder)).folder


def exact(net: HourglassNet, crops: np.ndarray) -> Tensor:
    """Final heatmaps in float64."""
    with torch.inference_mode():
        return copy.deepcopy(net).double().final(normalise(crops).double())


def in_onnxruntime(graph: Path | bytes, images: Tensor) -> Tensor:
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {INPUT_NAME: images.numpy()})[0])


@pytest.mark.parametrize(("target", "precision"), [(t, p) for t, all_of in PRECISIONS.items() for p in all_of])
def test_every_target_and_precision_answers_like_the_network(
    target: str, precision: str, net: HourglassNet, crops: np.ndarray, tmp_path: Path
) -> None:
    try:
        check(target, precision)
    except BackendUnavailable as reason:
        pytest.skip(str(reason))
    options = ExportOptions(target, precision, weights=net, size=SIZE, batch=2, output=tmp_path / "artefact")
    result = export(options)
    assert os.listdir(tmp_path) == ["artefact"]
    artefact = read_artefact(result.folder)
    graph = result.folder / "model.onnx"
    if target == "trt":
        assert (result.folder / "model.rtx.engine").stat().st_size > 10_000
        assert artefact.metadata["engine"]["compute_capabilities"] == ["8.0", "8.6", "8.9", "12.0"]
        assert "engine cannot run here" in artefact.metadata["compared_through"]
        heatmaps = in_onnxruntime(graph, normalise(crops))
    else:
        heatmaps = load_artefact(artefact)(normalise(crops))
    assert relative_error(heatmaps, exact(net, crops)) < TOLERANCES[precision].heatmaps
    if graph.exists():
        onnx.checker.check_model(str(graph), full_check=True)


def test_the_artefact_says_what_a_deployment_needs(exported: Path) -> None:
    metadata = json.loads((exported / "metadata.json").read_text())
    assert metadata["inputs"]["images"]["shape"] == ["batch", 3, SIZE, SIZE]
    assert metadata["opset"] == 20
    assert metadata["comparison"]["num_crops"] == 64
    graph = onnx.load(exported / "model.onnx")
    assert [value.name for value in (*graph.graph.input, *graph.graph.output)] == ["images", "heatmaps"]
    assert graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert "mean" in {entry.key for entry in graph.metadata_props}


def test_polygraphy_finds_onnxruntime_and_pytorch_equal(net: HourglassNet, exported: Path) -> None:
    pytest.importorskip("polygraphy")
    from polygraphy.backend.base import BaseRunner
    from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
    from polygraphy.common import TensorMetadata
    from polygraphy.comparator import Comparator, CompareFunc, DataLoader

    shapes = TensorMetadata().add("images", np.float32, (2, 3, SIZE, SIZE))

    class PyTorchRunner(BaseRunner):
        """Polygraphy's own needs a GPU."""

        def get_input_metadata_impl(self) -> TensorMetadata:
            return shapes

        def infer_impl(self, feed_dict: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            start = time.perf_counter()
            with torch.inference_mode():
                heatmaps = net.final(torch.from_numpy(feed_dict["images"])).numpy()
            self.inference_time = time.perf_counter() - start
            return {"heatmaps": heatmaps}

    runners = [OnnxrtRunner(SessionFromOnnx(str(exported / "model.onnx"))), PyTorchRunner(name="pytorch")]
    results = Comparator.run(runners, data_loader=DataLoader(input_metadata=shapes))
    assert bool(Comparator.compare_accuracy(results, compare_func=CompareFunc.simple(rtol=1e-4, atol=1e-5)))


def test_an_end_to_end_graph_finds_the_same_keypoints_as_the_predictor(net: HourglassNet, tmp_path: Path) -> None:
    options = ExportOptions("onnx", "fp32", weights=net, size=SIZE, batch=2, end_to_end=True, output=tmp_path / "all")
    theirs = Predictor(export(options).folder)
    ours = Predictor(net, runtime="eager", size=SIZE, flip=True)
    images = list(np.random.default_rng(0).integers(0, 255, (5, 90, 120, 3), np.uint8))
    for mine, other in zip(ours(images), theirs(images), strict=True):
        assert np.abs(mine.joints - other.joints).max() < 0.1
        assert np.abs(mine.scores - other.scores).max() < 1e-4


def test_the_shipped_network_end_to_end_agrees_with_the_predictor_on_real_photographs(
    mpii_dir: Path, tmp_path: Path
) -> None:
    photographs = sorted((mpii_dir / "images").glob("*.jpg"))
    assert len(photographs) >= 10
    options = ExportOptions("onnx", "fp32", size=128, flip=False, end_to_end=True, output=tmp_path / "all")
    theirs = Predictor(export(options).folder)(photographs)
    ours = Predictor(runtime="eager", size=128)(photographs)
    assert len(ours) == len(theirs) == len(photographs)
    assert max(np.abs(mine.joints - other.joints).max() for mine, other in zip(ours, theirs)) < 0.1


@pytest.mark.parametrize("path", ["onnxruntime", "openvino"])
def test_layer_normalisation_stays_as_exact_as_float32_allows(path: str) -> None:
    """As one operator, ONNX Runtime is off by 6e-5 here: a million values in one float32 sum."""
    if reason := PATHS[path].why_not("cpu", "fp32"):
        pytest.skip(reason)
    torch.manual_seed(0)
    net = lived_in(HourglassNet(HourglassConfig(num_stacks=1, num_feats=8, depths=1, stem_feats=(8, 8), norm="layer")))
    large = load_crops(None, 256).images[:1]
    images = normalise(large)
    prepared = prepare(net, path, images, device="cpu", precision="fp32", cache_dir=None)
    assert relative_error(prepared(images), exact(net, large)) < 3e-6


def test_without_weights_those_that_ship_are_taken_and_named(
    tmp_path: Path, refused: Refused, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    load.say_once.cache_clear()
    with caplog.at_level("INFO", "fasthg"):
        assert "a file of that name is in the way" in refused("export", "-o", tmp_path / "file" / "artefact")
    assert "the small network that ships with fasthg" in caplog.text
    assert "give a checkpoint with --weights" in refused("export", "--variant", "convs4")
    assert "random weights need a network" in refused("export", "--weights", "random")


@pytest.mark.parametrize(
    ("options", "absent", "pip"),
    [
        (["--openvino"], "openvino", "pip install 'fasthg[openvino]'"),
        (["--openvino", "--int8"], "nncf", "pip install 'fasthg[openvino]'"),
        (["--trt"], "tensorrt_rtx", "pip install 'fasthg[trt]'"),
        (["--onnx"], "onnxruntime", "pip install 'fasthg[ort]'"),
    ],
)
def test_a_missing_backend_exits_4_with_the_command_that_brings_it(
    options: list[str],
    absent: str,
    pip: str,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: Refused,
) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert pip in refused("export", *options, "--weights", weights, "-o", tmp_path / "artefact", code=4)
    assert os.listdir(tmp_path) == []


def test_options_that_do_not_fit_are_named(weights: Path, tmp_path: Path, refused: Refused) -> None:
    to = ["--weights", weights, "-o", tmp_path / "artefact"]
    assert "openvino has no fp16; choose one of bf16, fp32, int8" in refused("export", "--openvino", "--fp16", *to)
    assert "batch is 99999999999; give 1 to 1024" in refused("export", "--batch", 99999999999, *to)
    assert "input has shape (1, 3, 60, 60)" in refused("export", "--size", 60, *to)
    assert "holds another network, not small" in refused("export", "--variant", "small", *to)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_named(weights: Path, tmp_path: Path, refused: Refused) -> None:
    assert "cannot write /proc/artefact" in refused("export", "--weights", weights, "-o", "/proc/artefact")
    (tmp_path / "thesis.tex").write_text("years of work")
    assert "holds other files and no metadata.json" in refused("export", "--weights", weights, "-o", tmp_path)
    if os.geteuid() != 0:  # nothing is read-only for root
        tmp_path.chmod(0o500)
        assert "permission denied" in refused("export", "--weights", weights, "-o", tmp_path / "artefact")


def test_a_disk_that_takes_no_more_is_one_line_and_leaves_nothing(
    weights: Path, tmp_path: Path, refused: Refused
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        line = refused("export", "--weights", weights, "--size", SIZE, "-o", tmp_path / "artefact")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "choose another folder" in line
    assert os.listdir(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for a quarter of a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_named_by_libraries_that_write_themselves_too(
    weights: Path, small_disk: Path, refused: Refused
) -> None:
    pytest.importorskip("openvino")
    options = ["--openvino", "--fp32", "--weights", weights, "--size", SIZE, "-o", small_disk / "artefact"]
    assert "the disk is full" in refused("export", *options)
    assert os.listdir(small_disk) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminated"])
def test_an_export_that_is_ended_in_the_middle_leaves_nothing(
    number: signal.Signals, weights: Path, tmp_path: Path
) -> None:
    # A shell starts what it puts in the background with SIGINT ignored, and children inherit that.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "fasthg.cli", "export", "--onnx"]
    command += ["--weights", str(weights)]
    process = subprocess.Popen(
        [*command, "-o", str(tmp_path / "artefact")], stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]
    )
    end = time.monotonic() + 200
    while process.poll() is None and time.monotonic() < end and not os.listdir(tmp_path):
        time.sleep(0.02)
    assert process.poll() is None  # it has begun to write
    process.send_signal(number)
    _out, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "fasthg: interrupted; nothing half-written is left"
    assert os.listdir(tmp_path) == []


def test_a_failed_comparison_exits_3_and_leaves_nothing(net: HourglassNet, tmp_path: Path, refused: Refused) -> None:
    """A training that diverged: the weights are finite, the heatmaps are not."""
    diverged = copy.deepcopy(net)
    nn.init.constant_(diverged.stacks[-1].score.weight, 3e38)
    save(diverged, tmp_path / "diverged.safetensors")
    options = ["--weights", tmp_path / "diverged.safetensors", "--size", SIZE, "-o", tmp_path / "artefact"]
    assert "does not answer like the reference on 64 crops" in refused("export", *options, code=3)
    assert os.listdir(tmp_path) == ["diverged.safetensors"]


def test_the_first_stacks_are_exported_as_a_network_of_their_own(tmp_path: Path, crops: np.ndarray) -> None:
    torch.manual_seed(0)
    deep = lived_in(HourglassNet(HourglassConfig(num_stacks=3, num_feats=8, depths=1, stem_feats=(8, 8))))
    save(deep, tmp_path / "deep.safetensors")
    given = {"weights": tmp_path / "deep.safetensors", "size": SIZE, "batch": 2, "output": tmp_path / "out"}
    done = export(ExportOptions("onnx", "fp32", stacks=2, **given))
    artefact = read_artefact(done.folder)
    assert artefact.config.num_stacks == 2
    assert "the first 2 of its 3 stacks" in artefact.metadata["weights"]
    images = normalise(crops[:2], deep.config.mean)
    with torch.inference_mode():
        answer, expected = load_artefact(artefact, "cpu", 2)(images), deep.all_heatmaps(images)
    assert relative_error(answer, expected[1]) < 1e-5 < relative_error(answer, expected[2])
    assert main(["predict", "x.jpg", "--weights", str(done.folder), "--stacks", "1"]) == 2
