"""What a step frees must serve the next one: without that, a fifth of the CPU time goes into clearing pages."""

import multiprocessing
import resource
from concurrent.futures import ProcessPoolExecutor

import psutil
import pytest

from training.memory import give_back_freed_memory, keep_freed_memory

ROUND_BYTES = 64 * 2**20


def in_a_process_of_its_own(function):
    """What a function gives; the C library's settings are for a whole process, and stay."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
        found = fresh.submit(function).result(timeout=300)
    return found or pytest.skip("another C library than glibc")


def page_faults_of_a_round() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = bytearray(ROUND_BYTES)
    block[:: resource.getpagesize()] = block[:: resource.getpagesize()]
    del block
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def usual_and_kept() -> tuple[int, int] | None:
    """Page faults of a round before freed memory is kept, and after; the first round of each is not like the rest."""
    page_faults_of_a_round()
    usual = page_faults_of_a_round()
    if not keep_freed_memory():
        return None
    page_faults_of_a_round()
    return usual, page_faults_of_a_round()


def kept_and_given_back() -> tuple[int, int] | None:
    """Bytes resident after a block was freed, and after freed memory was given back."""
    if not keep_freed_memory():
        return None
    process = psutil.Process()
    page_faults_of_a_round()
    kept = process.memory_info().rss
    give_back_freed_memory()
    return kept, process.memory_info().rss


def test_freed_memory_can_be_given_back():
    kept, left = in_a_process_of_its_own(kept_and_given_back)
    assert kept > ROUND_BYTES
    assert kept - left > ROUND_BYTES / 2


def test_freed_memory_is_used_again():
    usual, kept = in_a_process_of_its_own(usual_and_kept)
    assert usual > 0
    assert kept < usual / 10
