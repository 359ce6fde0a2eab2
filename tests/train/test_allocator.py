"""Memory that a step freed is there for the next one."""

import ctypes
import subprocess
import sys

import pytest

# How many pages the kernel had to hand out for a tensor that is made anew ten times.
_PROGRAM = """
import resource, sys
import torch
from clipact.train.trainer import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(20):
    torch.ones(12_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(12_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(word: str) -> int:
    done = subprocess.run([sys.executable, "-c", _PROGRAM, word], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="no allocator of glibc's"
)
def test_what_was_freed_is_not_asked_for_again():
    assert _faults("keep") < _faults("leave") / 10
