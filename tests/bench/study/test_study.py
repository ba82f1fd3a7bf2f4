"""The study's figures must be the published ones, and what stands beside them must be the same quantity."""

import pytest

from bench.study import published as study
from fasthg.network.variants import STUDY_VARIANTS


def test_every_variant_of_the_study_has_its_row():
    assert tuple(run.variant for run in study.SHORT_RUNS) == STUDY_VARIANTS


@pytest.mark.parametrize("run", [*study.SHORT_RUNS, *study.LONG_RUNS], ids=lambda run: run.label)
def test_the_mean_is_that_of_the_published_parts(run):
    # The study does not say how it averages; a mistyped digit in the table moves the plain mean by more than this.
    assert sum(run.parts) / len(run.parts) == pytest.approx(run.pckh, abs=1.0)


def test_published_figures_of_the_baseline():
    run = study.BY_VARIANT["original"]
    assert (run.epoch_minutes, run.pckh, run.validation_minutes) == (18.0, 83.18, 1.2)
    assert dict(zip(study.PARTS, run.parts))["wrist"] == 79.66


def test_a_rate_becomes_minutes_of_mpii():
    # 22,246 people in the study's 18 minutes are 20.6 a second, 2,958 in 1.2 minutes 41.1 a second.
    assert study.epoch_minutes(20.598) == pytest.approx(18.0, abs=0.01)
    assert study.validation_minutes(41.083) == pytest.approx(1.2, abs=0.001)
