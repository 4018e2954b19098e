"""The table of Γ(A′ → hadrons)/Γ(A′ → μμ) with errors: ``python3 analysis/hadronic_ratio/build.py``.

Up to 1.1 GeV from measured cross-sections (`measured.py`), beyond from the digitised curve of ALPINIST.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "analysis"), str(Path(__file__).parent)]

from _venv import reenter  # noqa: E402

HEADER = """# R(M) = Gamma(A' -> hadrons) / Gamma(A' -> mumu) and its standard deviation
# source: analysis/hadronic_ratio/build.py
# up to 1.1 GeV: sum of measured e+e- cross-sections (ee_to_hadrons/, HEPData, CC0), bare, radiation included
# beyond: digitised curve of ALPINIST (r_ratio_alpinist.csv), 15 % error assumed, 20 % above 1.4 GeV
# denominator eps^2 alpha M/3 sqrt(1-4m_mu^2/M^2)(1+2m_mu^2/M^2); use for M > 2 m_pi
# columns: mass_GeV [GeV]; R; error
mass_GeV,R,error
"""
DIGITISED = 0.15  # so far the curve and the measurements differ below 1.1 GeV, away from ω and φ
COARSE = (1.4, 0.20)  # GeV; a point in 0.12 GeV says little about the ρ(1450) and ω(1650)
HIGH = ((2.0, 2.15), (3.73, 3.6), (10.5, 3.9))  # GeV, R: only for the vacuum polarisation


def table():
    """Return masses [GeV], R, its error, and R of each channel over massless muons with its error."""
    import numpy as np
    from measured import HIGHEST, channels, masses

    from gammastar.core.constants import M_MU
    from gammastar.core.files import data_path
    from gammastar.physics.qed import RTable

    def muons(m):
        x = (M_MU / m) ** 2
        return np.sqrt(1 - 4 * x) * (1 + 2 * x)

    digitised = RTable.read(data_path("measurements/r_ratio_alpinist.csv"))
    high = np.arange(HIGHEST + 0.01, 60.0, 0.01)
    ratio = np.interp(high, digitised.mass, digitised.ratio * muons(digitised.mass))
    for start, value in HIGH:
        ratio[high >= start] = value
    low = masses()
    found = channels(low, (high, ratio))
    value = sum(x for x, _ in found.values())
    error = np.sqrt(sum(e**2 for _, e in found.values()))
    keep = digitised.mass > HIGHEST
    relative = np.where(digitised.mass[keep] > COARSE[0], COARSE[1], DIGITISED)
    m = np.concatenate([low, digitised.mass[keep]])
    total = np.concatenate([value / muons(low), digitised.ratio[keep]])
    sigma = np.concatenate([error / muons(low), relative * digitised.ratio[keep]])
    return m, total, sigma, found


def main() -> None:
    reenter("all")
    m, ratio, error, _ = table()
    lines = [f"{a:.6g},{b:.5g},{c:.3g}" for a, b, c in zip(m, ratio, error, strict=True)]
    target = ROOT / "data" / "measurements" / "r_ratio.csv"
    target.write_text(HEADER + "\n".join(lines) + "\n")
    print(f"written: {target.relative_to(ROOT)}, {len(lines)} masses")


if __name__ == "__main__":
    main()
