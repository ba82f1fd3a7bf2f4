"""What a step frees must serve the next one: without that, a fifth of the CPU time goes into clearing pages."""

import resource
import subprocess
import sys

import psutil
import pytest

from training.memory import give_back_freed_memory, keep_freed_memory

ROUND_BYTES = 64 * 2**20


def page_faults_of_a_round() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = bytearray(ROUND_BYTES)
    block[:: resource.getpagesize()] = block[:: resource.getpagesize()]
    del block
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def main() -> None:
    page_faults_of_a_round()
    usual = page_faults_of_a_round()
    if not keep_freed_memory():
        raise SystemExit(3)
    page_faults_of_a_round()
    print(usual, page_faults_of_a_round())


def kept_and_given_back() -> tuple[int, int]:
    """Bytes resident after a block was freed, and after freed memory was given back."""
    keep_freed_memory()
    process = psutil.Process()
    page_faults_of_a_round()
    kept = process.memory_info().rss
    give_back_freed_memory()
    return kept, process.memory_info().rss


def test_freed_memory_can_be_given_back():
    run = subprocess.run(
        [sys.executable, __file__, "give-back"], capture_output=True, text=True, check=True, timeout=300
    )
    kept, left = map(int, run.stdout.split())
    if kept < ROUND_BYTES:
        pytest.skip("another C library than glibc")
    assert kept - left > ROUND_BYTES / 2


def test_freed_memory_is_used_again():
    run = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=False, timeout=300)
    if run.returncode == 3:
        pytest.skip("another C library than glibc")
    usual, kept = map(int, run.stdout.split())
    assert usual > 0
    assert kept < usual / 10


if __name__ == "__main__":
    if sys.argv[1:]:
        print(*kept_and_given_back())
    else:
        main()
