"""Times must come with enough repeats, and warm-up, start-up and waiting must stay out of them."""

import mmap
import multiprocessing
import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import psutil
import pytest
import torch

from bench.measure import roofline
from bench.measure.roofline import copy, matrix_product
from bench.measure.timing import (
    FIRST,
    FLOOR_REPEATS,
    MIN_REPEATS,
    OtherLoad,
    PeakMemory,
    Timing,
    enough,
    go_first,
    measure,
)
from fasthg.runtimes import pytorch


def test_a_slow_step_is_still_repeated_and_a_quick_one_fills_the_budget():
    assert not enough(MIN_REPEATS - 1, spent=1.5, budget=1.0, max_repeats=100)
    assert enough(MIN_REPEATS, spent=1.5, budget=1.0, max_repeats=100)
    assert not enough(MIN_REPEATS, spent=0.5, budget=1.0, max_repeats=100)
    assert enough(FLOOR_REPEATS, spent=2.0, budget=1.0, max_repeats=100)
    assert not enough(FLOOR_REPEATS - 1, spent=60.0, budget=1.0, max_repeats=100)
    assert enough(100, spent=0.0, budget=1.0, max_repeats=100)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may go first")
def test_what_is_timed_goes_before_others():
    share = """
import os, time
from bench.measure.timing import go_first
go_first()
start, used = time.perf_counter(), time.process_time()
while time.perf_counter() < start + 1: pass
print(os.popen("nice").read(), (time.process_time() - used) / (time.perf_counter() - start))
"""
    core = str(min(os.sched_getaffinity(0)))
    other = subprocess.Popen(["taskset", "-c", core, sys.executable, "-c", "while True: pass"])
    try:
        found = subprocess.run(["taskset", "-c", core, sys.executable, "-c", share], capture_output=True, text=True)
    finally:
        other.kill()
        other.wait()
    niceness, mine = found.stdout.split()
    assert int(niceness) == FIRST  # what it starts goes first too
    assert float(mine) > 0.75


def test_going_first_where_it_is_not_allowed_is_no_error(monkeypatch):
    def refuse(*_):
        raise PermissionError("not yours")

    monkeypatch.setattr(os, "setpriority", refuse)
    go_first()


def test_warmup_is_not_timed():
    calls = []

    def step():
        calls.append("step")
        if len(calls) == 1:
            time.sleep(0.5)  # the first call compiles something

    timing = measure(step, warmup=1, max_repeats=4)
    assert len(calls) == 1 + timing.repeats == 5
    assert timing.median < 0.25


def test_percentiles_of_known_times():
    timing = Timing((0.3, 0.1, 0.2, 0.5, 0.4))
    assert timing.median == pytest.approx(0.3)
    assert timing.percentile(90) == pytest.approx(0.46)


def take_and_give_back(size):
    """Touch pages of the kernel's, past malloc, which may keep what is given back to it."""
    with mmap.mmap(-1, size) as area:
        for page in range(0, size, mmap.PAGESIZE):
            area[page] = 1


def peaks_of_two_rounds():
    """MB at the peak of a first round, just after it was forgotten, and at the peak of a smaller second round."""
    freed_before = [bytearray(1000) for _ in range(100_000)]
    del freed_before
    memory = PeakMemory("cpu")
    take_and_give_back(200_000_000)
    first = memory.megabytes()
    memory.restart()
    forgotten = memory.megabytes()
    take_and_give_back(100_000_000)
    return first, forgotten, memory.megabytes()


def test_peak_memory_counts_what_was_given_back_but_not_what_came_before():
    # In a process of its own: a system that reclaims what lies unused would shrink that of the other tests meanwhile.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
        first, forgotten, second = fresh.submit(peaks_of_two_rounds).result()
    assert 190 < first < 250
    assert abs(forgotten) < 50
    assert 90 < second < 150


def test_own_work_is_not_taken_for_the_load_of_others():
    load, start, own = OtherLoad(), time.perf_counter(), time.process_time()
    while time.perf_counter() - start < 0.3:
        pass
    busy = (time.process_time() - own) / (time.perf_counter() - start)
    assert 0 <= load.cores() <= psutil.cpu_count() - busy + 0.3  # the kernel counts in hundredths of a second


@pytest.fixture
def ticks(monkeypatch):
    """A clock under which the n-th call of what is measured takes n milliseconds, and nothing else takes any."""
    now = [0.0]

    def step(n=[0]):  # noqa: B006 (counts the calls)
        n[0] += 1
        now[0] += 1e-3 * n[0]

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return step


def test_the_limit_of_a_matrix_product_is_its_best_repeat(ticks, monkeypatch):
    """A product of side 100 takes 2 million operations; the third call, after two to warm up, takes 3 ms."""
    monkeypatch.setattr(torch, "mm", lambda _a, _b, out: ticks())
    assert matrix_product("cpu", torch.float32, 100, budget=0.05) == pytest.approx(2e6 / 3e-3 / 1e12, rel=1e-6)


def test_a_copy_counts_both_directions(ticks, monkeypatch):
    """3,000 bytes read and 3,000 written in 3 ms: 2 MB a second."""
    monkeypatch.setattr(torch.Tensor, "copy_", lambda _target, _source: ticks())
    assert copy("cpu", 3000, budget=0.05) == pytest.approx(2e6 / 1e9, rel=1e-6)


def test_the_limit_of_fp32_is_not_one_of_tf32(monkeypatch):
    before, product, seen = torch.backends.cuda.matmul.allow_tf32, torch.mm, []
    torch.backends.cuda.matmul.allow_tf32 = True
    monkeypatch.setattr(
        torch, "mm", lambda a, b, out: seen.append(torch.backends.cuda.matmul.allow_tf32) or product(a, b, out=out)
    )
    try:
        matrix_product("cpu", torch.float32, 16, budget=0.01)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    assert set(seen) == {False}


def test_the_second_gpu_is_waited_for_and_its_memory_counted(monkeypatch):
    waited, free = [], {"cuda:0": 9_000_000, "cuda:1": 8_000_000}
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: waited.append(device))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (free[device or "cuda:0"], 10_000_000))
    memory = PeakMemory("cuda:1")
    measure(lambda: None, device="cuda:1", max_repeats=3)
    free["cuda:1"] -= 5_000_000
    assert memory.megabytes() == 5.0
    assert waited == ["cuda:1"] * 4


@pytest.mark.parametrize("able", [True, False])
def test_the_limit_of_a_cpu_is_that_of_what_it_computes_in(able, monkeypatch):
    """A product of this size in bf16 takes minutes where PyTorch imitates it."""
    monkeypatch.setattr(pytorch, "has_bf16", lambda: able)
    monkeypatch.setattr(roofline, "MATRIX", {"cpu": 64})
    monkeypatch.setattr(roofline, "BUDGET_S", 0.01)
    assert list(roofline.measure_limits("cpu").tflops) == (["fp32", "bf16"] if able else ["fp32"])
