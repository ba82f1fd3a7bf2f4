"""A predictor that finds white dots."""

from __future__ import annotations

from dataclasses import replace

import pytest

import fasthg
from fasthg.network.variants import HourglassConfig
from fasthg.predict.predictor import Predictor
from tests.fasthg.predict.dots import SIZE, brightness


@pytest.fixture
def net(tiny_config: HourglassConfig) -> fasthg.HourglassNet:
    return fasthg.HourglassNet(tiny_config).eval()


@pytest.fixture
def predictor(net: fasthg.HourglassNet) -> Predictor:
    predictor = Predictor(net, size=SIZE, batch_size=3, runtime="eager")
    predictor.runner = replace(predictor.runner, run=brightness)
    return predictor
