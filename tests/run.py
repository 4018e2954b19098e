"""Run the fast tests in the project's own environment: ``python3 tests/run.py [pytest options]``.

Those that take seconds each, whole runs above all, are ``-m long``; ``-m "not slow"`` are both.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "analysis"))

from _venv import reenter  # noqa: E402

if __name__ == "__main__":
    reenter("all")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # all processes share what one has compiled
    # a file stays on one worker, so that what its tests share is made once; the long ones come first
    spread = ["-n", str(min(os.cpu_count() or 1, 4)), "--dist", "loadfile", "--no-loadscope-reorder"]
    command = [sys.executable, "-m", "pytest", "-m", "not slow and not long", *spread, *sys.argv[1:]]
    sys.exit(subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode)
