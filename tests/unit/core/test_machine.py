"""Memory of chunks is kept by the process: page faults, counted in a process of its own."""

import os
import platform
import subprocess
import sys

import pytest

from gammastar.core.files import tune_malloc

LOOP = """
import resource
import sys
import numpy as np
from gammastar.core.files import tune_malloc

if sys.argv[1] == "kept":
    assert tune_malloc()

def chunk():
    columns = [np.full(250_000, float(i)) for i in range(20)]
    return sum(columns).sum()

chunk()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    chunk()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

THREADS = """
import sys
from gammastar.cli import main

sys.argv = ["gammastar", "--version"]
main()
import numpy, threadpoolctl
print(max(pool["num_threads"] for pool in threadpoolctl.threadpool_info()))
"""


@pytest.mark.long
@pytest.mark.parametrize(("asked", "threads"), [(None, 1), ("2", 2)])
def test_commands_compute_with_one_thread_unless_asked(asked, threads):
    if threads > (os.cpu_count() or 1):
        pytest.skip("no second core")
    others = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    environment = others | ({} if asked is None else {"OMP_NUM_THREADS": asked})
    command = [sys.executable, "-c", THREADS]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert int(done.stdout.splitlines()[-1]) == threads


def _faults(how):
    done = subprocess.run([sys.executable, "-c", LOOP, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_it_can_be_asked_for_twice():
    assert tune_malloc() is tune_malloc()


@pytest.mark.long
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives chunks back at once")
def test_chunks_reuse_their_pages():
    assert _faults("kept") < 0.1 * _faults("plain")
