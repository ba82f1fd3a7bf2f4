"""The same batches from an NVIDIA DALI pipeline: one definition, all on the GPU, or on the CPU where there is none.

A thread reads files or packed crops ahead and hands them to the pipeline together with each batch's matrices and gains,
computed once for the whole batch. DALI decodes, warps, colours and normalises. Its coordinates have their origin at the
corner of the first pixel, as ours have, so the matrices go in as they are.

On the CPU, DALI's warp is scalar code: `training.loading.packed` is several times faster there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fasthg.ahead import map_ahead
from fasthg.data.dataset import Dataset
from fasthg.data.people import Split
from fasthg.errors import BackendUnavailable, FasthgError
from fasthg.pixels import geometry
from training.loading.batches import BatchReader, LoaderOptions, MadeBatch, Source
from training.loading.checks import check_boxes
from training.loading.loader import JpegSource, Loader
from training.loading.packed import PackedSource
from training.loading.sampling import BatchRows

_PREFETCHED = 2  # batches that wait in the pipeline, ready


def make_dali_loader(
    data: Dataset | str | Path,
    split: Split = "train",
    *,
    device_id: int | None = None,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> Loader:
    """Loader by DALI over a dataset's photographs or, given a path, over the `split` of a packed file.

    With `device_id` all work is done on that GPU and the images lie there, else on `num_workers` threads of the CPU (at
    least one). `dtype`, of the images, is float32 or float16. The other keywords are the fields of `LoaderOptions`.

    Raises BackendUnavailable where DALI or the GPU is missing, and FasthgError like the other loaders.
    """
    chosen = LoaderOptions(**options)
    if isinstance(data, Dataset):
        check_boxes(data)
        return DaliLoader(JpegSource(data), chosen, device_id, dtype)
    source = PackedSource(data, split)
    source.check_reach(chosen.augmentation)
    return DaliLoader(source, chosen, device_id, dtype)


class DaliLoader(Loader):
    """See `make_dali_loader`."""

    def __init__(self, source: Source, options: LoaderOptions, device_id: int | None, dtype: torch.dtype) -> None:
        super().__init__(source.people, options)
        _require(device_id, dtype)
        self._source = source
        self._device_id = device_id
        self._dtype = dtype
        self._known_bad: dict[int, str] = {}
        self._pipeline: Any = None
        self._feed: Iterator[tuple[BatchReader[bytes], list[bytes]]] = iter(())
        self._fed: deque[BatchReader[bytes]] = deque()  # the batches in the pipeline, in their order

    def _make(self, jobs: Iterable[BatchRows]) -> Iterator[MadeBatch]:
        remaining = deque(jobs)
        while remaining:
            try:
                for made in self._run(list(remaining)):
                    remaining.popleft()
                    yield made
            except RuntimeError as error:
                self._find_bad(error)

    def _run(self, jobs: list[BatchRows]) -> Iterator[MadeBatch]:
        """One pass of the pipeline over the jobs; a pipeline that does not reach their end is dropped."""
        pipeline, self._pipeline = self._pipeline or self._build(), None
        self._feed, self._fed = map_ahead(self._read, jobs, threads=1), deque()
        while True:
            try:
                images = self._run_once(pipeline)
            except StopIteration:
                break
            yield self._fed.popleft().finish(images)
        for reading in self._fed:  # that ended the pass because it could not be completed
            yield reading.finish(torch.empty(0))
        pipeline.reset()
        self._pipeline = pipeline

    def _read(self, job: BatchRows) -> tuple[BatchReader[bytes], list[bytes]]:
        reading = BatchReader(self._source, self.options, job, self._source.read_encoded, self._known_bad)
        return reading, list(reading)

    def _next_input(self) -> tuple[list[NDArray[np.uint8]], NDArray[np.float32], NDArray[np.float32]]:
        """What the pipeline takes for one batch: files, maps from crop to picture [n,2,3], gains [n,3]."""
        reading, files = next(self._feed)
        self._fed.append(reading)
        if not reading.complete:
            raise StopIteration
        encoded = [np.frombuffer(file, np.uint8) for file in files]
        return encoded, geometry.invert(reading.plan.matrices).astype(np.float32), reading.plan.gain.astype(np.float32)

    def _run_once(self, pipeline: Any) -> Tensor:
        """Images [N,3,S,S] of the next batch, in memory that DALI leaves alone while the tensor lives."""
        stream = None if self._device_id is None else torch.cuda.current_stream(self._device_id)
        (batch,) = pipeline.run(stream)
        images = torch.from_dlpack(batch.as_tensor())
        return images.permute(0, 3, 1, 2) if self.options.channels_last else images

    def _find_bad(self, error: RuntimeError) -> None:
        """Find the people whose images made DALI fail; raises FasthgError when every one of them can be read."""
        for reading in self._fed:
            for row, view in zip(reading.rows.tolist(), reading.plan.views.tolist()):
                try:
                    self._source.read(row, view)
                except FasthgError as reason:
                    self._known_bad[row] = str(reason)
                    return
        raise FasthgError(f"DALI: {str(error).strip().splitlines()[0]}; use another loader for this data") from error

    def _build(self) -> Any:
        dali = _dali()
        pipeline = dali.Pipeline(
            batch_size=self.options.batch_size,
            num_threads=max(1, self.options.num_workers),
            device_id=self._device_id,
            prefetch_queue_depth=_PREFETCHED,
            exec_dynamic=True,  # its outputs stay valid while they are referred to, so that no copy is needed
        )
        with pipeline:
            pipeline.set_outputs(self._define(dali))
        pipeline.build()
        return pipeline

    def _define(self, dali: Any) -> Any:
        """Encoded images, maps and gains -> normalised crops: the same graph on either device."""
        fn, types, on_gpu = dali.fn, dali.types, self._device_id is not None
        encoded, matrices, gains = fn.external_source(self._next_input, num_outputs=3, batch=True)
        mean = types.Constant(np.array(self.options.mean, np.float32), device="gpu" if on_gpu else "cpu")
        pictures = fn.decoders.image(
            encoded,
            device="mixed" if on_gpu else "cpu",
            output_type=types.RGB,
            jpeg_fancy_upsampling=True,  # as libjpeg-turbo has it
        )
        size = (self.options.size, self.options.size)
        crops = fn.warp_affine(pictures, matrix=matrices, size=size, fill_value=0, dtype=types.FLOAT)
        images = dali.math.min(crops * ((gains.gpu() if on_gpu else gains) / 255.0), 1.0) - mean
        if not self.options.channels_last:
            images = fn.transpose(images, perm=[2, 0, 1])
        return fn.cast(images, dtype=types.FLOAT16) if self._dtype == torch.float16 else images


def _dali() -> Any:
    try:
        import nvidia.dali.fn
        import nvidia.dali.math
        import nvidia.dali.types
    except ImportError as error:
        raise BackendUnavailable(f"DALI is not installed ({error}); pip install 'fasthg[dali]'") from None
    return nvidia.dali


def _require(device_id: int | None, dtype: torch.dtype) -> None:
    """Raise where DALI, the GPU or the number format is missing."""
    _dali()
    if device_id is not None and device_id >= torch.cuda.device_count():
        raise BackendUnavailable(f"DALI: there is no GPU {device_id} here; use device_id=None for the CPU")
    if dtype not in (torch.float32, torch.float16):
        raise FasthgError(f"DALI: images of {dtype} are not made; choose float32 or float16")
