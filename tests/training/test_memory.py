"""What a step frees must serve the next one: without that, a fifth of the CPU time goes into clearing pages."""

import resource
import subprocess
import sys

import pytest

from training.memory import keep_freed_memory

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


def test_freed_memory_is_used_again():
    run = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=False)
    if run.returncode == 3:
        pytest.skip("another C library than glibc")
    usual, kept = map(int, run.stdout.split())
    assert usual > 0
    assert kept < usual / 10


if __name__ == "__main__":
    main()
