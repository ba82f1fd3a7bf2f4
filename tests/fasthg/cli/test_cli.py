"""The command line does what its table promises, and every refusal is one line and an exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import fasthg
from fasthg.cli.app import COMMANDS, main
from fasthg.cli.list import variants_table
from fasthg.cli.machine import machine_tables
from fasthg.console import make_app, output_console, run_app
from fasthg.errors import BackendUnavailable, ParityError
from fasthg.network.checkpoint import save
from fasthg.network.variants import HourglassConfig
from fasthg.pixels.skeleton import MPII

Refused = Callable[..., str]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8))
    return path


def test_list_shows_every_variant_with_the_published_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert list(listed) == list(fasthg.VARIANTS)
    assert listed["original"]["parameters"] == 25_594_624
    assert (listed["original"]["gflops"], listed["small"]["gflops"]) == (56.19, 7.90)
    output_console().print(variants_table(listed))
    assert "25,594,624" in capsys.readouterr().out


def test_env_gives_every_path_or_the_reason_why_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", "--json"]) == 0
    machine = json.loads(capsys.readouterr().out)
    assert torch.__version__.startswith(machine["libraries"]["torch"])
    assert set(machine["paths"]) == set(fasthg.runtimes.paths.PATHS)
    assert machine["paths"]["eager"]["devices"]["cpu"] == {"fp32": "runs"}
    if not torch.cuda.is_available():
        assert "no CUDA device that this PyTorch" in machine["paths"]["tensorrt"]["devices"]["cuda"]["fp16"]
    output_console().print(machine_tables(machine))
    assert "compiled operators" in capsys.readouterr().out


def test_predict_writes_pixels_and_an_overlay(
    weights: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["predict", str(photo), "--weights", str(weights), "-o", str(out), "--flip", "--path", "eager"]) == 0
    printed = capsys.readouterr()
    assert printed.out.split() == [str(out / "predictions.json"), str(out / "photo.png")]
    assert "no boxes: each whole image is taken as one person" in printed.err
    assert "path eager (fp32, cpu): as asked" in printed.err
    assert "s end to end" in printed.err
    document = json.loads((out / "predictions.json").read_text())
    assert document["joint_names"] == list(MPII.names)
    assert document["predictions"][0]["whole_image"]
    assert (document["path"], document["flip"]) == ("eager", True)
    assert cv2.imread(str(out / "photo.png")).shape == (90, 120, 3)


def test_predict_takes_boxes(weights: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["predict", str(photo), "--weights", str(weights), "-o", str(tmp_path / "out"), "--no-overlays"]
    argv += ["--format", "csv,coco,json", "--bbox", "10,10,50,60", "--bbox", "60,10,50,60"]
    assert main(argv) == 0
    assert sorted(os.listdir(tmp_path / "out")) == ["keypoints.json", "predictions.csv", "predictions.json"]
    records = json.loads((tmp_path / "out" / "predictions.json").read_text())["predictions"]
    assert [record["box"] for record in records] == [[10, 10, 50, 60], [60, 10, 50, 60]]
    assert "no boxes" not in capsys.readouterr().err


def test_predict_refuses_bad_input_and_leaves_nothing(
    weights: Path, photo: Path, tmp_path: Path, refused: Refused
) -> None:
    (tmp_path / "cut.jpg").write_bytes(photo.read_bytes()[:5000])
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "empty").mkdir()
    (tmp_path / "others.json").write_text('{"images": [{"id": 1, "file_name": "x.png"}], "annotations": []}')
    out = tmp_path / "out"
    for options, message in (
        ([tmp_path / "absent.jpg"], "absent.jpg does not exist"),
        ([tmp_path / "cut.jpg"], "cut.jpg: the file is cut short"),
        ([photo, tmp_path / "text.png", "--strict"], "text.png: not an image"),
        ([tmp_path / "empty"], "empty holds no photographs"),
        ([photo, "--bbox", "1,2,3"], "box '1,2,3' has 3 numbers"),
        ([photo, "--bbox", "1,2,nan,4"], "box 1,2,nan,4 is not finite"),
        ([photo, "--bbox", "500,2,5,5"], "box 500,2,5,5 lies outside"),
        ([photo, photo, "--bbox", "1,2,5,5"], "one set of boxes for 2 images"),
        ([photo, "--bbox", "1,2,5,5", "--boxes", "x.json"], "--bbox, --boxes and --detect say where"),
        ([photo, "--boxes", tmp_path / "others.json"], "the boxes are of none of the images"),
        ([photo, "--format", "xml"], "unknown format 'xml'; choose from json, csv, coco, mat"),
        ([photo, "--path", "warp"], "unknown path 'warp'; choose one of eager"),
        ([photo, "--device", "tpu"], "device"),
        ([photo, "--variant", "small"], "holds another network, not small"),
        ([photo, "--variant", "huge"], "unknown variant 'huge'"),
    ):
        line = refused("predict", "--weights", weights, "-o", out, *options)
        assert message in line
        assert not out.exists()


def test_predict_asks_for_weights_where_none_ship(photo: Path, tmp_path: Path, refused: Refused) -> None:
    assert "give a checkpoint with --weights" in refused("predict", photo, "--variant", "convs4")
    absent = tmp_path / "absent.safetensors"
    assert "absent.safetensors does not exist" in refused("predict", photo, "--weights", absent)


def test_an_output_folder_that_cannot_be_written_is_named(weights: Path, photo: Path, refused: Refused) -> None:
    assert "cannot write" in refused("predict", photo, "--weights", weights, "-o", photo / "out")


def test_a_path_that_cannot_run_here_exits_4_with_the_reason(
    weights: Path, photo: Path, tmp_path: Path, refused: Refused
) -> None:
    options = ["--weights", weights, "--path", "tensorrt", "--device", "cpu", "-o", tmp_path / "out"]
    assert "tensorrt: runs on cuda only" in refused("predict", photo, *options, code=4)


def test_eval_scores_a_dataset_by_every_protocol(
    weights: Path, tiny_dataset: Path, capsys: pytest.CaptureFixture[str], refused: Refused
) -> None:
    argv = ["eval", "--data", str(tiny_dataset), "--weights", str(weights), "--path", "eager", "--json"]
    assert main(argv) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["num_people"] == 8
    assert {"mean14", "weighted14", "pooled16"} <= set(scores["pckh@0.5"])
    assert scores["path"] == "eager"
    assert "unknown split" in refused(*argv, "--split", "test")
    assert "/nowhere" in refused("eval", "--data", "/nowhere", "--weights", weights)


def test_predictions_of_a_dataset_can_be_scored(
    weights: Path, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Perfect predictions, written as a user would, score 100 under every protocol."""
    people = fasthg.data.dataset.load_dataset(tiny_dataset, "val").people
    joints = np.where(people.labelled[..., None], people.joints, 0.0)
    predictions = [{"image": name, "joints": rows.tolist()} for name, rows in zip(people.images, joints)]
    (tmp_path / "perfect.json").write_text(json.dumps({"predictions": predictions}))
    truth = str(tiny_dataset / "annotations.json")
    assert main(["score", str(tmp_path / "perfect.json"), "--truth", truth, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)["pckh@0.1"]
    assert (scores["mean14"], scores["weighted14"], scores["pooled16"]) == (100, 100, 100)
    assert main(["score", str(tmp_path / "perfect.json"), "--truth", truth]) == 0
    assert "100.000" in capsys.readouterr().out


def test_score_gives_the_published_figures(mpii_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = mpii_dir / "detections_our_format.mat"
    assert main(["score", str(mpii_dir / "preds-valid-example.h5"), "--truth", str(truth), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert (scores["num_people"], scores["num_joints"]) == (2958, 44_240)
    at_half = scores["pckh@0.5"]
    protocols = [round(at_half[name], 3) for name in ("mean14", "weighted14", "pooled16")]
    assert protocols == [83.347, 83.927, 85.009]
    assert round(scores["pckh@0.1"]["weighted14"], 3) == 18.350
    assert [round(at_half["per_group"][name], 3) for name in ("head", "wrist", "ankle")] == [93.690, 77.916, 72.863]


def test_convert_refuses_what_is_no_checkpoint(photo: Path, tmp_path: Path, refused: Refused) -> None:
    out = tmp_path / "x.safetensors"
    assert "photo.jpg is refused" in refused("convert", photo, "-o", out)
    assert not out.exists()


def test_export_takes_one_format_and_one_precision(refused: Refused) -> None:
    assert "--onnx and --trt both given" in refused("export", "--trt", "--onnx")
    assert "--fp16 and --int8 both given" in refused("export", "--int8", "--fp16")


def test_usage_errors_are_one_line_and_exit_2(refused: Refused) -> None:
    assert "No such command 'fly'; see fasthg --help" in refused("fly")
    assert "Missing argument" in refused("predict")
    assert "--batch-size" in refused("predict", "a.jpg", "--batch-size", "0")
    assert "No such option" in refused("list", "--sideways")


def test_help_is_shown_where_no_command_is_given(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["fasthg"])
    assert main() == 0
    assert "predict" in capsys.readouterr().out


def test_every_help_ends_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        assert main([name, "--help"]) == 0
        assert capsys.readouterr().out.rstrip().splitlines()[-1].startswith(f"  Example: fasthg {name}")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fasthg {fasthg.__version__}\n"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ParityError("x differs"), 3, "fasthg: x differs"),
        (BackendUnavailable("x is absent"), 4, "fasthg: x is absent"),
        (KeyboardInterrupt(), 130, "fasthg: interrupted"),
        (ModuleNotFoundError(name="h5py"), 4, "fasthg: h5py is not installed; pip install 'fasthg[formats]'"),
    ],
)
def test_every_kind_of_failure_has_its_exit_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    app = make_app()

    @app.command()
    def fail() -> None:
        raise error

    assert run_app(app, []) == code
    assert line in capsys.readouterr().err


def test_a_defect_of_the_program_shows_its_traceback() -> None:
    app = make_app()

    @app.command()
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_app(app, [])


def test_the_command_runs_as_a_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fasthg.cli", "predict", str(tmp_path / "absent.jpg")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3], timeout=300)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f"fasthg: {tmp_path}/absent.jpg does not exist; give photographs, folders or videos\n"


@pytest.fixture(scope="module")
def deep_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three stacks."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("deep") / "deep.safetensors"
    save(fasthg.HourglassNet(HourglassConfig(num_stacks=3, num_feats=8, depths=1, stem_feats=(8, 8))), path)
    return path


def test_eval_by_stack_gives_what_eval_gives_for_each_number_of_stacks(
    deep_weights: Path, tiny_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["eval", "--data", str(tiny_dataset), "--weights", str(deep_weights), "--size", "64", "--path", "eager"]
    assert main([*argv, "--by-stack", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["stacks"]
    assert [row["stack"] for row in rows] == [1, 2, 3]
    assert rows[0]["gflop"] < rows[1]["gflop"] < rows[2]["gflop"]
    assert all(row["ms"] > 0 for row in rows)
    for row in rows:
        assert main([*argv, "--stacks", str(row["stack"]), "--json"]) == 0
        alone = json.loads(capsys.readouterr().out)
        assert {name: alone[name] for name in row["scores"]} == row["scores"]
    assert main([*argv, "--by-stack"]) == 0
    assert "PCKh@0.5 by stack, eager (fp32), 64 px" in capsys.readouterr().out


def test_eval_says_who_left_early(deep_weights: Path, tiny_dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["eval", "--data", str(tiny_dataset), "--weights", str(deep_weights), "--size", "64", "--batch-size", "3"]
    assert main([*argv, "--early-exit", "1000", "--json"]) == 0
    printed = capsys.readouterr()
    assert "early exit: 100.0% after stack 2" in printed.err
    early = json.loads(printed.out)
    assert early["early_exit"]["share"] == {"2": 1.0}
    assert main([*argv, "--stacks", "2", "--path", "channels_last", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pckh@0.5"] == early["pckh@0.5"]


def test_depth_options_that_do_not_fit_are_refused(
    deep_weights: Path, photo: Path, tiny_dataset: Path, tmp_path: Path, refused: Refused
) -> None:
    predict = ["predict", photo, "-o", tmp_path / "out", "--weights", deep_weights]
    assert "stacks is 4; the network has 3, so give 1 to 3" in refused(*predict, "--stacks", "4")
    assert "budget 'soon' is no time" in refused(*predict, "--budget", "soon")
    assert "stacks and budget_ms both given" in refused(*predict, "--stacks", "1", "--budget", "9ms")
    assert "a person by eager here" in refused(*predict, "--path", "eager", "--budget", "0.0001ms")
    evaluate = ["eval", "--data", tiny_dataset, "--weights", deep_weights, "--by-stack", "--stacks", "2"]
    assert "--by-stack runs every number of stacks" in refused(*evaluate)
    assert not (tmp_path / "out").exists()


def test_predict_runs_what_fits_into_a_budget(
    deep_weights: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["predict", str(photo), "-o", str(tmp_path / "out"), "--weights", str(deep_weights), "--no-overlays"]
    assert main([*argv, "--path", "eager", "--budget", "60s"]) == 0
    assert "3 of 3 stacks take" in capsys.readouterr().err
