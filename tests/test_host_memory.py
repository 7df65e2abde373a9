"""Memory that the C library keeps."""

import platform
import subprocess
import sys

import pytest

from invariance_jax import host_memory

# Page faults of one allocation of 64 MB after another, in a process of its own.
_ALLOCATE = """
import resource, numpy as np
from invariance_jax import host_memory
assert {keep} is None or host_memory.keep()
np.ones(2**23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(2**23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_used_again():
    def faults(keep: bool | None) -> int:
        words = [sys.executable, "-c", _ALLOCATE.format(keep=keep)]
        return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)

    assert faults(True) < 0.1 * faults(None)


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not host_memory.keep()
