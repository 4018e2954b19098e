"""Run an analysis on a bare machine: ``python3 analysis/run.py [steering.toml] [gammastar run options]``."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "analysis"))

from _venv import reenter  # noqa: E402

if __name__ == "__main__":
    reenter("all")
    arguments = sys.argv[1:]
    if not arguments or arguments[0].startswith("-"):
        arguments.insert(0, str(ROOT / "analysis" / "na60_dimuon" / "steering.toml"))
    os.execv(sys.executable, [sys.executable, "-m", "gammastar", "run", *arguments])  # noqa: S606
