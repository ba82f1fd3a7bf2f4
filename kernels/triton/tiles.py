"""Pieces that several kernels share. A tile is BM pixels by some channels of buffers in the shared-zero-border grid.

Pointers that may be None say which outputs a kernel computes: a None is a compile-time constant to Triton. Weights and
t are of one dtype, the products'; the trunk (x, low, x_out, x_pool) is of that or fp32.
"""

import triton
import triton.language as tl


@triton.jit
def tile_pixels(batch, height, width, BM: tl.constexpr, WINDOWS: tl.constexpr):
    """This program's pixels as vectors [BM]: image, row, column, and which of them exist (the others repeat pixel 0).

    Pixels are counted without the borders, in raster order; with WINDOWS the four pixels of each 2x2 window follow each
    other, so that a max-pool stays within the tile.
    """
    index = tl.program_id(0) * BM + tl.arange(0, BM)
    exists = index < batch * height * width
    index = tl.where(exists, index, 0)
    if WINDOWS:
        window = index // 4
        w = window % (width // 2) * 2 + index % 2
        above = window // (width // 2)
        h = above % (height // 2) * 2 + index // 2 % 2
        n = above // (height // 2)
    else:
        w = index % width
        above = index // width
        h = above % height
        n = above // height
    return n, h, w, exists


@triton.jit
def image_pixels(height, width, BM: tl.constexpr):
    """The same for programs (tile, image), whose tiles never cross images: statistics are kept image by image."""
    index = tl.program_id(0) * BM + tl.arange(0, BM)
    exists = index < height * width
    index = tl.where(exists, index, 0)
    return tl.program_id(1), index // width, index % width, exists


@triton.jit
def grid_rows(n, h, w, height, width):
    """Rows of pixels in a buffer; `fasthg.kernels.layout.Grid` in the kernels' words."""
    return width + 2 + (n * (height + 1) + h) * (width + 1) + w


@triton.jit
def load_tile(ptr, rows, columns, C: tl.constexpr):
    """Rows and columns of a matrix [.., C]."""
    return tl.load(ptr + rows[:, None] * C + columns[None, :])


@triton.jit
def dot(a, b, acc=None):
    """a @ b [+ acc] in the dtype of b, the weights, accumulated in fp32.

    fp32 is multiplied as three TF32 products, which keeps its precision on tensor cores.
    """
    return tl.dot(a.to(b.dtype), b, acc, input_precision="tf32x3")


@triton.jit
def dot_in_parts(a, b, acc):
    """`dot` for weights b in fp32. Where a is fp16: its products with the high and the low half of the weights' bits,
    which keeps 22 of them and takes less than half the time of three TF32 products."""
    if a.dtype == tl.float16:
        high = b.to(tl.float16)
        acc = tl.dot(a, (b - high.to(tl.float32)).to(tl.float16), acc)
        return tl.dot(a, high, acc)
    else:  # noqa: RET505  of which one is compiled
        return dot(a, b, acc)


@triton.jit
def conv3x3_tile(
    t_ptr,  # [rows, C]
    weight_ptr,  # [9, C, CO]
    rows,  # [BM]
    columns,  # [BN]
    width,
    C: tl.constexpr,
    CO: tl.constexpr,
    BM: tl.constexpr,
    BK: tl.constexpr,
    BN: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Some columns of the 3x3 of the pixels in `rows`, float32 [BM, BN]: nine shifted products a chunk."""
    tl.static_assert(C % BK == 0)
    k = tl.arange(0, BK)
    tile_ptrs = t_ptr + rows[:, None] * C + k[None, :]
    weight_ptrs = weight_ptr + k[:, None] * CO + columns[None, :]
    acc = tl.zeros((BM, BN), tl.float32)
    for step in tl.range(0, 9 * (C // BK), num_stages=STAGES):
        chunk = step // 9
        tap = step - chunk * 9
        shift = (tap // 3 - 1) * (width + 1) + tap % 3 - 1
        a = tl.load(tile_ptrs + (shift * C + chunk * BK))
        b = tl.load(weight_ptrs + (tap * C + chunk * BK) * CO)
        acc = dot(a, b, acc)
    return acc


@triton.jit
def inside_grid(batch, height, width, BM: tl.constexpr):
    """This program's BM consecutive rows of the grid: the first, then image, row, column of each, and which are pixels.

    Tiles of whole rows, borders included, are boxes of a tensor map: what TMA reads and writes.
    """
    start = tl.program_id(0) * BM
    pixel = start + tl.arange(0, BM)
    w = pixel % (width + 1)
    above = pixel // (width + 1)
    h = above % (height + 1)
    n = above // (height + 1)
    return width + 2 + start, n, h, w, (w < width) & (h < height) & (n < batch)


@triton.jit
def conv3x3_box(
    t_desc,  # [rows, C] in tiles [BM, BK]
    weight_desc,  # [9 * C, CO] in tiles [BK, BN]
    row,
    column,
    width,
    C: tl.constexpr,
    BM: tl.constexpr,
    BK: tl.constexpr,
    BN: tl.constexpr,
    STAGES: tl.constexpr,
):
    """`conv3x3_tile` for BM consecutive rows of the grid and BN columns, by TMA."""
    tl.static_assert(C % BK == 0)
    acc = tl.zeros((BM, BN), tl.float32)
    for step in tl.range(0, 9 * (C // BK), num_stages=STAGES):
        chunk = step // 9
        tap = step - chunk * 9
        a = t_desc.load([row + (tap // 3 - 1) * (width + 1) + tap % 3 - 1, chunk * BK])
        acc = dot(a, weight_desc.load([tap * C + chunk * BK, column]), acc)
    return acc


@triton.jit
def add_residual(
    y,  # [BM, BN] fp32
    x_ptr,  # [rows, CI]
    skip_weight_ptr,  # [CI, CO] or None
    low_ptr,  # [half rows, CO] or None
    rows,
    low_rows,
    columns,
    CI: tl.constexpr,
    CO: tl.constexpr,
    SK: tl.constexpr,  # channels of x in one product
    STAGES: tl.constexpr,
):
    """y plus some columns of x [@ skip_weight] and of the low branch, each low pixel read by the four above it."""
    if skip_weight_ptr is None:
        y += load_tile(x_ptr, rows, columns, CO)
    else:
        tl.static_assert(CI % SK == 0)
        for k in tl.range(0, CI // SK, num_stages=STAGES):
            channels = k * SK + tl.arange(0, SK)
            y = dot(load_tile(x_ptr, rows, channels, CI), load_tile(skip_weight_ptr, channels, columns, CO), y)
    if low_ptr is not None:
        y += load_tile(low_ptr, low_rows, columns, CO)
    return y


@triton.jit
def activate(y, affine_ptr, columns, C: tl.constexpr):
    """ReLU(y * scale + shift) for some columns of an affine [2, C], in fp32."""
    scale = tl.load(affine_ptr + columns)[None, :]
    shift = tl.load(affine_ptr + C + columns)[None, :]
    return tl.maximum(y.to(tl.float32) * scale + shift, 0.0)


@triton.jit
def start_projection(t_ptr, BM: tl.constexpr, C: tl.constexpr):
    """Accumulator for a consumer's t, where there is one."""
    if t_ptr is None:
        return 0.0
    else:  # noqa: RET505  returns of different types, of which one is compiled
        return tl.zeros((BM, C), tl.float32)


@triton.jit
def part_columns(part, C: tl.constexpr, PARTS: tl.constexpr):
    """The columns, of C, that one of the programs of a tile writes, where PARTS of them share out the columns."""
    return part * (C // PARTS) + tl.arange(0, C // PARTS)


@triton.jit
def part_mask(exists, columns, part, C: tl.constexpr, PARTS: tl.constexpr):
    """Which elements of a tile in these columns this program writes."""
    if PARTS == 1:
        return exists[:, None]
    else:  # noqa: RET505  returns of different types, of which one is compiled
        return exists[:, None] & (columns // (C // PARTS) == part)[None, :]


@triton.jit
def project(
    acc, y, affine_ptr, weight_ptr, columns, CO: tl.constexpr, C: tl.constexpr, part=0, PARTS: tl.constexpr = 1
):
    """Add these columns of y to a consumer's t, where there is one."""
    if affine_ptr is not None:
        z = activate(y, affine_ptr, columns, CO)
        acc = dot(z, load_tile(weight_ptr, columns, part_columns(part, C, PARTS), C), acc)
    return acc


@triton.jit
def store_projection(acc, bias_ptr, t_ptr, rows, exists, C: tl.constexpr, part=0, PARTS: tl.constexpr = 1):
    """Store a consumer's finished t, where there is one."""
    if t_ptr is not None:
        c = part_columns(part, C, PARTS)
        t = tl.maximum(acc + tl.load(bias_ptr + c)[None, :], 0.0).to(t_ptr.dtype.element_ty)
        tl.store(t_ptr + rows[:, None] * C + c[None, :], t, mask=exists[:, None])


@triton.jit
def store_chunk(
    y,  # [BM, BN] fp32
    columns,
    rows,
    exists,
    pool_rows,
    pool_exists,
    next_acc,
    pool_acc,
    next_affine_ptr,
    next_weight_ptr,
    pool_affine_ptr,
    pool_weight_ptr,
    x_out_ptr,
    x_pool_ptr,
    CO: tl.constexpr,
    CN: tl.constexpr,
    CP: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    part=0,
    PARTS: tl.constexpr = 1,
):
    """Give some columns of x', rounded as stored, to x_out, the readers' t and x_pool. Returns the t so far."""
    if x_out_ptr is not None:
        y = y.to(x_out_ptr.dtype.element_ty)
        mask = part_mask(exists, columns, part, CO, PARTS)
        tl.store(x_out_ptr + rows[:, None] * CO + columns[None, :], y, mask=mask)
    next_acc = project(next_acc, y, next_affine_ptr, next_weight_ptr, columns, CO, CN, part, PARTS)
    if x_pool_ptr is not None:
        y = max_windows(y.to(x_pool_ptr.dtype.element_ty), BM, BN)
        mask = part_mask(pool_exists, columns, part, CO, PARTS)
        tl.store(x_pool_ptr + pool_rows[:, None] * CO + columns[None, :], y, mask=mask)
        pool_acc = project(pool_acc, y, pool_affine_ptr, pool_weight_ptr, columns, CO, CP, part, PARTS)
    return next_acc, pool_acc


@triton.jit
def pooled_rows(x_pool_ptr, batch, height, width, BM: tl.constexpr):
    """Rows [BM / 4] in the half grid of this program's 2x2 windows, and which of them exist; zeros without x_pool."""
    if x_pool_ptr is None:
        return 0, 0
    else:  # noqa: RET505  returns of different types, of which one is compiled
        n, h, w, exists = tile_pixels(batch, height // 2, width // 2, BM // 4, False)
        return grid_rows(n, h, w, height // 2, width // 2), exists


@triton.jit
def max_windows(y, BM: tl.constexpr, BN: tl.constexpr):
    """[BM, BN] with the pixels of 2x2 windows in sequence -> their maxima [BM / 4, BN]."""
    return tl.max(tl.reshape(y, (BM // 4, 4, BN)), axis=1).to(y.dtype)  # tl.max widens halves
