"""Where do dimuons change a reach? ``python3 analysis/na60_dimuon/conventions.py [RESULTS] [-o FOLDER]``.

For each detector the yield of dark photons from the kinematics in which dimuons were measured: from the
dimuons of a run, and as the conventions of today's tools have it; at the lower edge of the contour and at its
largest signal. Writes ``conventions.png``, ``.pdf`` and ``conventions.csv``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "analysis"))

from _venv import reenter  # noqa: E402

DETECTORS = ("shadows_like", "na62_dump", "ship_ecn3", "appendix_b")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", nargs="?", type=Path, default=ROOT / "results" / "na60_dimuon")
    parser.add_argument("-o", "--output", type=Path, help="folder of figure and table [RESULTS/theory]")
    parser.add_argument("--detectors", default=",".join(DETECTORS), help="names or files, with commas")
    parser.add_argument("-n", type=int, default=30_000, help="dark photons per mass and channel")
    options = parser.parse_args()
    reenter("all")
    if not (options.results / "spectrum.json").is_file():
        print(f"{options.results} holds no spectrum.json: run `python3 analysis/run.py` first")
        return 1
    from conventions_parts import compare, draw, write

    output = options.output or options.results / "theory"
    found = compare(options.results, options.detectors.split(","), options.n)
    draw(found, output / "conventions")
    for line in write(found, output / "conventions.csv"):
        print(line)
    print(f"conventions.png and conventions.csv in {output}")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    sys.exit(main())
