"""The table of Γ(A′ → hadrons)/Γ(A′ → μμ) with errors: ``python3 analysis/hadronic_ratio/build.py``.

Up to 1.1 GeV from measured cross-sections (`measured.py`), to 2 GeV from the digitised curve of ALPINIST,
then from perturbation theory, without the J/ψ, until τ and charm open.
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
# to 2 GeV: digitised curve of ALPINIST (r_ratio_alpinist.csv), 15 % error assumed, 20 % above 1.4 GeV
# beyond: QCD at three loops for three flavours (PDG, review of QCD), without the J/psi; 8 % error assumed
# denominator eps^2 alpha M/3 sqrt(1-4m_mu^2/M^2)(1+2m_mu^2/M^2); use for M > 2 m_pi
# columns: mass_GeV [GeV]; R; error
mass_GeV,R,error
"""
DIGITISED = 0.15  # so far the curve and the measurements differ below 1.1 GeV, away from ω and φ
COARSE = (1.4, 0.20)  # GeV; a point in 0.12 GeV says little about the ρ(1450) and ω(1650)
LIGHT = (2.05, 3.55)  # GeV: beyond, τ and charm open
PERTURBATIVE = 0.08  # BES and perturbation theory differ by a few per cent
LAMBDA = 0.332  # GeV, of the MS-bar coupling for three flavours (PDG 2024)
HIGH = ((2.0, 2.15), (3.73, 3.6), (10.5, 3.9))  # GeV, R: only for the vacuum polarisation


def perturbative(mass):
    """Return R of three flavours at three loops, 2 (1 + a + c₂a² + c₃a³), a = α_s/π; PDG, review of QCD."""
    import numpy as np

    n = 3
    b = (33 - 2 * n) / (12 * np.pi), (153 - 19 * n) / (24 * np.pi**2)
    b = (*b, (2857 - 5033 * n / 9 + 325 * n**2 / 27) / (128 * np.pi**3))
    t = 2 * np.log(mass / LAMBDA)
    second = b[1] * np.log(t) / (b[0] ** 2 * t)
    third = (b[1] ** 2 * (np.log(t) ** 2 - np.log(t) - 1) + b[0] * b[2]) / (b[0] ** 4 * t**2)
    a = (1 - second + third) / (np.pi * b[0] * t)
    return 2 * (1 + a + (1.9857 - 0.1152 * n) * a**2 + (-6.63694 - 1.20013 * n - 0.00518 * n**2) * a**3)


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
    beyond = np.arange(*LIGHT, 0.1)
    light = perturbative(beyond) / muons(beyond)
    m = np.concatenate([low, digitised.mass[keep], beyond])
    total = np.concatenate([value / muons(low), digitised.ratio[keep], light])
    sigma = np.concatenate([error / muons(low), relative * digitised.ratio[keep], PERTURBATIVE * light])
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
