"""The reduced-size table: which of the study's orderings are said to hold, and that a cut run is finished."""

import json
import math

import pytest

from bench.study.report import compare, report, scores_by_variant, spread_of_seeds
from bench.study.run import StudyPlan, main
from bench.study.trainings import RESULTS, add_result, read_results
from fasthg.network.variants import STUDY_VARIANTS


def line(variant, seed, score):
    return {
        "variant": variant,
        "seed": seed,
        "size": 64,
        "shrink": 4,
        "epochs": 2,
        "batch_size": 4,
        "people": 24,
        "steps": 12,
        "parameters": 1000,
        "gflop": 0.1,
        "scores": {"mean14_pckh@0.5": score},
        "curve": [score / 2, score],
        "loss": [2.0, 1.0],
    }


def test_verdicts_follow_the_noise_between_seeds():
    rows = [line("original", seed, score) for seed, score in enumerate((50.0, 51.0, 52.0))]
    rows += [line("feats64", 0, 40.0), line("stacks6", 0, 51.5), line("convs4", 0, 30.0)]
    found = scores_by_variant(rows)
    assert spread_of_seeds(found) == pytest.approx(1.0)
    verdicts = {(pair.better, pair.worse): pair for pair in compare(found)}
    assert verdicts["original", "feats64"].verdict == "holds"
    assert verdicts["original", "feats64"].ours == pytest.approx(11.0)
    assert verdicts["original", "feats64"].noise == pytest.approx(2 * math.sqrt(1 / 3 + 1))
    assert verdicts["original", "stacks6"].verdict == "within noise"
    assert verdicts["convs4", "original"].verdict == "reversed"
    assert "order holds in 2 and is reversed in 3" in report(rows, "command")


def test_line_that_was_cut_short_is_left_out(tmp_path):
    (tmp_path / RESULTS).write_text(json.dumps(line("original", 0, 1.0)) + '\n{"variant": "fea')
    assert [row["variant"] for row in read_results(tmp_path / RESULTS, {})] == ["original"]
    add_result(tmp_path / RESULTS, line("feats64", 0, 1.0))
    assert [row["variant"] for row in read_results(tmp_path / RESULTS, {})] == ["original", "feats64"]


def test_every_variant_runs_once_and_two_of_them_three_times(tmp_path):
    runs = list(StudyPlan(tmp_path, tmp_path).runs())
    assert len(runs) == len(set(runs)) == 12
    assert [variant for variant, _seed in runs[:8]] == list(STUDY_VARIANTS)
    assert sorted(seed for variant, seed in runs if variant == "feats64") == [0, 1, 2]


def test_command_finishes_what_is_missing(tiny_dataset, tmp_path, capsys):
    settings = {"shrink": 32, "batch_size": 8, "epochs": 1, "lr": StudyPlan.lr}
    done = [line(variant, 0, 10.0) | settings for variant in STUDY_VARIANTS if variant != "feats64-layernorm"]
    (tmp_path / RESULTS).write_text("".join(json.dumps(row) + "\n" for row in done))
    options = ["--shrink", "32", "--batch-size", "8", "--epochs", "1", "--seeds", "1", "--jobs", "1"]
    command = ["--data", str(tiny_dataset), "--out", str(tmp_path), "--work", str(tmp_path / "work"), *options]
    assert main(command) == 0
    assert len(read_results(tmp_path / RESULTS, {})) == 8
    assert (tmp_path / "curves.png").exists()
    assert "| feats64-layernorm | 78.83 |" in (tmp_path / "report.md").read_text()
    assert main([*command, "--lr", "1"]) == 2
    assert "holds runs of other settings" in capsys.readouterr().err
