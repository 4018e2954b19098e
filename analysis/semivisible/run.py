"""Semi-visible dark photons: ``python3 analysis/semivisible/run.py [--curves FOLDER] [--quick]``.

Writes figures, limits and one page to ``results/semivisible/``. Full published curves are read from a folder
that you name (see README.md); without it the few cited points that are shipped are used.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "analysis")]

from _venv import reenter  # noqa: E402

MODELS = {
    "iDM-040": r"iDM: $Δ = 0.4$, $m_1/m_{A′} = 1/3$, $α_D = 0.5$",
    "scalar-040": r"scalar: $Δ = 0.4$, $m_1/m_{A′} = 1/3$, $α_D = 0.5$",
    "i2DM-talk": r"i2DM: $Δ = 0.4$, $m_1/m_{A′} = 0.33$, $α_D = 0.5$, $θ = 4.5^\circ$",
    "AHP2020-B": r"inverse seesaw: 74, 146, 220 MeV, $α_D = 0.3$",
    "AHP2020-A": r"inverse seesaw: 35, 120, 185 MeV, $α_D = 0.3$",
}
VISIBLE = {
    "darkcast_BaBar_Lees2014xha.csv": "BaBar 2014",
    "darkcast_A1_Merkel2014avp.csv": "A1",
    "darkcast_NA48_Batley2015lha.csv": "NA48/2",
    "darkcast_KLOE_Anastasi2018azp_combined.csv": "KLOE",
    "darkcast_LHCb_Aaij2019bvg_prompt.csv": "LHCb",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "semivisible")
    parser.add_argument("--curves", type=Path, action="append", default=[], help="folder of full curves")
    parser.add_argument("--s-channel", type=float, default=0.0, help="how often A'* without photon passes")
    parser.add_argument("--polarised", action="store_true", help="transverse dark photons")
    parser.add_argument("--quick", action="store_true", help="coarse grids, few events")
    options = parser.parse_args()
    reenter("all")
    import build

    start = time.perf_counter()

    def tell(text: str) -> None:
        print(f"{time.perf_counter() - start:6.0f} s  {text}", flush=True)

    numbers = build.everything(options, MODELS, VISIBLE, tell)
    target = options.output / "numbers.json"
    target.write_text(json.dumps(numbers, indent=1, ensure_ascii=False))
    tell(f"written: {options.output / 'report.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
