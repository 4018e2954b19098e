"""Memory that stays with the process from one chunk of events to the next."""

from __future__ import annotations

import ctypes
import functools

__all__ = ["keep_heap"]

# Parameters of mallopt(3), and what they are set to: arrays of a chunk (some MB) come from the heap and go
# back to it. Larger ones are still mapped and unmapped, so that the sum of all pairs does not stay.
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, ARENA_MAX = -1, -2, -3, -8
MB = 1 << 20
OPTIONS = {ARENA_MAX: 1, MMAP_THRESHOLD: 32 * MB, TRIM_THRESHOLD: 512 * MB, TOP_PAD: 32 * MB}


@functools.cache
def keep_heap() -> bool:
    """Let the C library of this process keep freed memory for the next chunk; return whether it does.

    Without it glibc asks the kernel for every array above some hundred kB and gives it back, and the kernel
    clears the pages of every chunk's columns again. Call it where the process is ours (command line, worker),
    not on import. Other C libraries are left as they are.

    Notes
    -----
    One arena serves all threads; columnar work allocates seldom enough that they do not wait for each other.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc, not POSIX
        return False
    accepted = [mallopt(ctypes.c_int(key), ctypes.c_int(value)) for key, value in OPTIONS.items()]
    return all(answer == 1 for answer in accepted)
