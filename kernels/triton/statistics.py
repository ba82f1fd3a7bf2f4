"""Statistics over whole images, for GroupNorm with one group: written tile by tile, combined by whoever reads.

Counts, means and squared deviations combine without cancellation (Chan, Golub and LeVeque, 1983), in a fixed order.
"""

import triton
import triton.language as tl


@triton.jit
def store_partials(y, exists, partials_ptr, n, tiles, C: tl.constexpr):
    """Count, mean and squared deviations of this program's tile y [BM, C], where they are wanted."""
    if partials_ptr is not None:
        y = y.to(tl.float32)
        count = tl.sum(exists.to(tl.float32), axis=0) * C
        mean = tl.sum(tl.sum(tl.where(exists[:, None], y, 0.0), axis=1), axis=0) / tl.maximum(count, 1.0)
        deviation = tl.where(exists[:, None], y - mean, 0.0)
        target = partials_ptr + (n * tiles + tl.program_id(0)) * 3
        tl.store(target, count)
        tl.store(target + 1, mean)
        tl.store(target + 2, tl.sum(tl.sum(deviation * deviation, axis=1), axis=0))


@triton.jit
def image_statistics(partials_ptr, n, tiles, eps):
    """Mean and 1 / sqrt(variance + eps) of image n from its partials [tiles, 3]."""
    i = tl.arange(0, 64)
    count = tl.zeros((64,), tl.float32)
    total = tl.zeros((64,), tl.float32)
    for start in tl.range(0, tiles, 64, num_stages=1):
        entry = partials_ptr + (n * tiles + start + i) * 3
        there = start + i < tiles
        pixels = tl.load(entry, mask=there, other=0.0)
        count += pixels
        total += pixels * tl.load(entry + 1, mask=there, other=0.0)
    size = tl.sum(count, axis=0)
    mean = tl.sum(total, axis=0) / size
    squares = tl.zeros((64,), tl.float32)
    for start in tl.range(0, tiles, 64, num_stages=1):
        entry = partials_ptr + (n * tiles + start + i) * 3
        there = start + i < tiles
        distance = tl.load(entry + 1, mask=there, other=0.0) - mean
        squares += tl.load(entry + 2, mask=there, other=0.0)
        squares += tl.load(entry, mask=there, other=0.0) * distance * distance
    return mean, tl.rsqrt(tl.sum(squares, axis=0) / size + eps)


@triton.jit
def normalise_relu(x, affine_ptr, channels, mean, inverse, C: tl.constexpr):
    """ReLU(norm(x)) for some channels of x [BM, BK], in x's dtype."""
    scale = tl.load(affine_ptr + channels) * inverse
    shift = tl.load(affine_ptr + C + channels) - mean * scale
    return tl.maximum(x.to(tl.float32) * scale[None, :] + shift[None, :], 0.0).to(x.dtype)
