"""Statistics over whole images, for GroupNorm with one group: written tile by tile, combined by whoever reads.

Counts, means and squared deviations combine without cancellation (Chan, Golub and LeVeque, 1983), in a fixed order.
"""

import triton
import triton.language as tl


@triton.jit
def store_partials(y, exists, partials_ptr, n, tiles, C: tl.constexpr, BM: tl.constexpr, PIXELS: tl.constexpr):
    """Count, mean and squared deviations of this program's tile y [BM, C], where they are wanted.

    A tile owns BM / PIXELS entries. The first holds all of it, the others say that they hold nothing: a reader adds up
    every entry of an image, and must not meet there what an earlier producer left in the same memory.
    """
    if partials_ptr is not None:
        tl.static_assert(BM % PIXELS == 0)
        y = y.to(tl.float32)
        count = tl.sum(exists.to(tl.float32), axis=0) * C
        mean = tl.sum(tl.sum(tl.where(exists[:, None], y, 0.0), axis=1), axis=0) / tl.maximum(count, 1.0)
        deviation = tl.where(exists[:, None], y - mean, 0.0)
        squares = tl.sum(tl.sum(deviation * deviation, axis=1), axis=0)
        i = tl.arange(0, BM // PIXELS)
        entry = tl.program_id(0) * (BM // PIXELS) + i
        target = partials_ptr + (n * tiles + entry) * 3
        tl.store(target, tl.where(i == 0, count, 0.0), mask=entry < tiles)
        tl.store(target + 1, tl.where(i == 0, mean, 0.0), mask=entry < tiles)
        tl.store(target + 2, tl.where(i == 0, squares, 0.0), mask=entry < tiles)


@triton.jit
def image_statistics(partials_ptr, n, tiles, eps):
    """Mean and 1 / sqrt(variance + eps) of image n from its partials [tiles, 3]."""
    i = tl.arange(0, 256)
    count = tl.zeros((256,), tl.float32)
    total = tl.zeros((256,), tl.float32)
    for start in tl.range(0, tiles, 256, num_stages=1):
        entry = partials_ptr + (n * tiles + start + i) * 3
        there = start + i < tiles
        pixels = tl.load(entry, mask=there, other=0.0)
        count += pixels
        total += pixels * tl.load(entry + 1, mask=there, other=0.0)
    size = tl.sum(count, axis=0)
    mean = tl.sum(total, axis=0) / size
    squares = tl.zeros((256,), tl.float32)
    for start in tl.range(0, tiles, 256, num_stages=1):
        entry = partials_ptr + (n * tiles + start + i) * 3
        there = start + i < tiles
        distance = tl.load(entry + 1, mask=there, other=0.0) - mean
        squares += tl.load(entry + 2, mask=there, other=0.0)
        squares += tl.load(entry, mask=there, other=0.0) * distance * distance
    return mean, tl.rsqrt(tl.sum(squares, axis=0) / size + eps)


@triton.jit
def normalise_relu(x, affine_ptr, channels, mean, inverse, C: tl.constexpr):
    """ReLU(norm(x)) for some channels of x [BM, BK], in fp32."""
    scale = tl.load(affine_ptr + channels) * inverse
    shift = tl.load(affine_ptr + C + channels) - mean * scale
    return tl.maximum(x.to(tl.float32) * scale[None, :] + shift[None, :], 0.0)
