"""The shared-zero-border grid and the packed weights: what every fused operator relies on."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from fasthg.kernels.layout import (
    Grid,
    pack_affine,
    pack_bias,
    pack_conv1x1,
    pack_conv3x3,
    pack_stem,
    padded_channels,
    unpack_stem,
)


def test_a_grid_of_two_images_lies_in_memory_as_written_down() -> None:
    grid = Grid(batch=2, height=1, width=2)
    buffer = grid.pack(torch.tensor([[[[1.0, 2.0]]], [[[3.0, 4.0]]]]))
    lead, body = [0.0] * 4, [1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 3.0, 4.0]  # pixels, border column, border row, next image
    assert buffer[:12, 0].tolist() == lead + body
    assert not buffer[12:].any()


@settings(max_examples=30, deadline=None)
@given(batch=st.integers(1, 4), height=st.integers(1, 9), width=st.integers(1, 9))
def test_images_come_back_from_the_grid_and_borders_stay_zero(batch: int, height: int, width: int) -> None:
    grid, images = Grid(batch, height, width), torch.randn(batch, 16, height, width)
    buffer = grid.pack(images)
    assert torch.equal(grid.images(buffer), images)
    assert buffer.count_nonzero() == images.count_nonzero()


@settings(max_examples=30, deadline=None)
@given(batch=st.integers(1, 3), height=st.integers(1, 7), width=st.integers(1, 7))
def test_nine_shifted_products_of_the_grid_are_a_padded_convolution(batch: int, height: int, width: int) -> None:
    grid, images = Grid(batch, height, width), torch.randn(batch, 16, height, width, dtype=torch.float64)
    weight = torch.randn(16, 16, 3, 3, dtype=torch.float64)
    buffer, packed, out = grid.pack(images), pack_conv3x3(weight), grid.empty(16, torch.float64)
    rows = torch.arange(grid.lead, grid.lead + grid.used_rows)
    for tap in range(9):
        out[rows] += buffer[rows + (tap // 3 - 1) * grid.pitch + tap % 3 - 1] @ packed[tap]
    torch.testing.assert_close(grid.images(out), F.conv2d(images, weight, padding=1))


def test_every_tap_of_every_tile_stays_within_the_buffer() -> None:
    for shape in [(1, 1, 1), (1, 2, 63), (64, 4, 4), (3, 64, 64)]:
        grid = Grid(*shape)
        for tile in (32, 64, 128, 256):
            last = grid.lead + -(-grid.used_rows // tile) * tile - 1
            assert last + grid.pitch + 1 < grid.rows
        assert grid.lead - grid.pitch - 1 >= 0


def test_odd_channels_are_padded_with_zeros_that_change_nothing() -> None:
    assert [padded_channels(n) for n in (1, 16, 17, 48, 64, 65)] == [16, 16, 32, 64, 64, 128]
    weight, bias, x = torch.randn(24, 20, 1, 1), torch.randn(24), torch.randn(1, 20, 3, 3)
    packed, rows = pack_conv1x1(weight), F.pad(x.flatten(2)[0].t(), (0, 12))
    assert packed.shape == (32, 32)
    result = rows @ packed + pack_bias(bias)
    torch.testing.assert_close(result[:, :24].t(), F.conv2d(x, weight, bias)[0].flatten(1))
    assert not result[:, 24:].any()
    assert pack_affine(torch.ones(20), torch.ones(20)).tolist()[1] == [1.0] * 20 + [0.0] * 12


def test_packed_stem_unpacks_to_itself() -> None:
    weight = torch.randn(64, 3, 7, 7)
    assert torch.equal(unpack_stem(pack_stem(weight)), weight)


def test_grids_that_cannot_be_say_why() -> None:
    with pytest.raises(ValueError, match="give even sides"):
        Grid(1, 5, 4).half()
    with pytest.raises(ValueError, match="0 images of 4x4 is empty"):
        Grid(0, 4, 4)
