"""Like-sign subtraction on STAR's tables: ``python3 analysis/star_dielectrons/subtract.py [-o FOLDER]``.

Unlike-sign pairs, like-sign pairs and the measured acceptance factor go through `gammastar.subtract`; the
signal that comes out stands beside the published one, bin by bin. Figures and ``numbers.json``.
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
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "results" / "star_dielectrons")
    options = parser.parse_args()
    reenter("all")
    from star_figures import acceptance_figure, subtraction_figure
    from star_tables import gold_19, gold_200, numbers

    from gammastar import report

    options.output.mkdir(parents=True, exist_ok=True)
    found = numbers()
    (options.output / "numbers.json").write_text(json.dumps(found, indent=1) + "\n")
    figures = {
        "au_19gev": subtraction_figure(gold_19(), "pairs / 5 MeV", "Au+Au 19.6 GeV, arXiv:1501.05341"),
        "au_200gev": subtraction_figure(
            gold_200(), "$dN/dm$ per event [1/GeV]", "Au+Au 200 GeV, arXiv:1504.01317"
        ),
        "acceptance": acceptance_figure(),
    }
    for name, figure in figures.items():
        report.save_figure(figure, options.output / name)
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    sys.exit(main())
