"""A disk that is full: one error that says where and why, nothing half-written, and --resume goes on."""

import os
import resource
import subprocess
import sys

import forks
import numpy as np
import pytest
from injection import kills

from gammastar.core import files
from gammastar.core.errors import StoreError
from gammastar.store.folder import write_tensors


def gammastar(*arguments, limit, **environment):
    """Run the command; files may have `limit` bytes: a write fails in the middle, as on a full disk."""

    if not environment:
        return forks.gammastar(*arguments, limits={resource.RLIMIT_FSIZE: limit}, timeout=120)

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    words = [sys.executable, "-m", "gammastar", *map(str, arguments)]
    options = {"capture_output": True, "text": True, "timeout": 120}
    return subprocess.run(words, check=False, env=os.environ | environment, preexec_fn=limited, **options)


@pytest.mark.parametrize(
    ("limit", "workers", "said"),
    [
        (4_000, 1, "cannot start: "),  # the temporary file of a worker
        pytest.param(20_000, 0, "compiled code in ", marks=pytest.mark.slow),
        pytest.param(30_000, 1, ".parquet: cannot be written: ", marks=pytest.mark.slow),
    ],
)
def test_a_full_disk_is_named_and_the_run_goes_on_later(tmp_path, limit, workers, said):
    path = kills.steering(tmp_path / "steering.toml", step="1 MB")
    path.write_text(path.read_text().split("[subtract]")[0])
    folder = tmp_path / "out"
    options = ["run", path, "--output", folder, *(["--workers", workers] if workers else [])]
    cold = {} if workers else {"NUMBA_CACHE_DIR": str(tmp_path / "compiled")}
    done = gammastar(*options, limit=limit, **cold)
    assert done.returncode == 1, done.stderr
    assert said in done.stderr
    assert "MB free" in done.stderr
    assert "Traceback" not in done.stderr
    assert not [*folder.rglob("*.tmp*"), *folder.rglob("pairs-*.parquet")]
    assert kills.whole(folder) == []
    done = gammastar(*options[:4], "--resume", limit=resource.RLIM_INFINITY)
    assert done.returncode == 0, done.stderr


def test_what_is_said_of_a_full_disk(tmp_path):
    error = OSError(28, "No space left on device", str(tmp_path / "a"))
    assert str(tmp_path / "a") in files.disk_full_message(error)
    assert "TMPDIR" in files.disk_full_message(OSError(28, "No space left on device"))
    outer = RuntimeError("a library failed")
    outer.__cause__ = error
    assert files.is_disk_full(outer)
    assert not files.is_disk_full(OSError(2, "No such file or directory"))


def test_a_full_disk_under_arrays_is_named(tmp_path):
    path = tmp_path / "domain.safetensors"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, before[1]))
    try:
        with pytest.raises(StoreError, match=r"domain\.safetensors: cannot be written: .*MB free"):
            write_tensors(path, {"fraction": np.ones(1_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())
