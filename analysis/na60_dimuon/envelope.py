"""Theory beside the data: ``python3 analysis/na60_dimuon/envelope.py [RESULTS] [-o FOLDER]``.

Draws, from the results of a run, the envelope of today's predictions with the measured rate on top, the
paper's Figs. 2, 3 and 6 and the reach of millicharge detectors; with ``numbers.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "analysis"))

from _venv import reenter  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", nargs="?", type=Path, default=ROOT / "results" / "na60_dimuon")
    parser.add_argument("-o", "--output", type=Path, help="folder of the figures [RESULTS/theory]")
    parser.add_argument("--real", action="store_true", help="the data are measured, not mock")
    options = parser.parse_args()
    reenter("all")
    if not (options.results / "spectrum.json").is_file():
        print(f"{options.results} holds no spectrum.json: run `python3 analysis/run.py` first")
        return 1
    from envelope_parts import draw

    output = options.output or options.results / "theory"
    output.mkdir(parents=True, exist_ok=True)
    numbers = draw(options.results, output, mock=not options.real)
    (output / "numbers.json").write_text(json.dumps(numbers, indent=1) + "\n")
    print(f"figures and numbers.json in {output}")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    sys.exit(main())
