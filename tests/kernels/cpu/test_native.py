"""The compiled module: built, equal to the reference, strict about its arguments, and missed aloud."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from fasthg.kernels import cpu as host
from fasthg.kernels import reference


def test_compiled_module_is_built() -> None:
    assert host.NATIVE_ERROR is None


def test_compiled_results_equal_the_reference() -> None:
    heatmaps = torch.randn(4, 16, 64, 64)
    for compiled, meant in zip(host.decode_heatmaps(heatmaps), reference.decode_heatmaps(heatmaps)):
        assert torch.equal(compiled, meant)
    points, weights = torch.rand(4, 16, 2) * 80 - 8, (torch.rand(4, 16) > 0.3).float()
    compiled, meant = (module.render_targets(points, weights, 64, 48, 2.0) for module in (host, reference))
    torch.testing.assert_close(compiled, meant, atol=2e-7, rtol=0)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("decode_heatmaps", (torch.zeros(1, 2, 0, 4), torch.zeros(1, 2, 2), torch.zeros(1, 2))),
        ("decode_heatmaps", (torch.zeros(1, 2, 4, 4), torch.zeros(1, 3, 2), torch.zeros(1, 2))),
        ("render_targets", (torch.zeros(1, 2, 2), torch.zeros(1, 2), 0.0, torch.zeros(1, 2, 4, 4))),
        ("render_targets", (torch.zeros(1, 2, 2), torch.zeros(1, 3), 1.0, torch.zeros(1, 2, 4, 4))),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(function: str, arguments: tuple) -> None:
    from fasthg.kernels.cpu import _native

    with pytest.raises(ValueError, match=r"give|must be"):
        getattr(_native, function)(*arguments)


def test_strided_and_wrong_typed_arrays_are_refused_rather_than_copied() -> None:
    from fasthg.kernels.cpu import _native

    points, scores = torch.zeros(1, 2, 2), torch.zeros(1, 2)
    for heatmaps in (torch.zeros(1, 2, 4, 4, dtype=torch.float64), torch.zeros(1, 2, 4)):
        with pytest.raises(TypeError):
            _native.decode_heatmaps(heatmaps, points, scores)
    with pytest.raises(TypeError):
        _native.decode_heatmaps(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4)[..., ::2], scores)


def test_without_the_compiled_module_the_reference_runs_and_says_so() -> None:
    script = (
        "import sys; sys.modules['fasthg.kernels.cpu._native'] = None\n"
        "import torch; from fasthg.kernels.ops import heatmaps as ops\n"
        "points, _ = ops.decode_heatmaps(torch.eye(3)[None, None]); print(points.tolist())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.strip() == "[[[0.5, 0.5]]]"
    assert "fasthg.kernels.cpu._native is not built" in done.stderr
