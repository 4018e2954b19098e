"""Rows of the topic `predict`: the measured R(m), by the muon's anomaly and against a calculation."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.integrate import trapezoid

from gammastar.core.constants import ALPHA, M_MU
from gammastar.core.files import data_path
from gammastar.physics.qed import RTable, dark_photon_branching, dark_photon_ctau

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "hadronic_ratio"))

import build
import measured

# Contributions to a_μ up to 1.8 GeV [10⁻¹⁰]: Davier, Hoecker, Malaescu, Zhang, arXiv:1908.00921, Table 2.
ANOMALY = {
    "two pions": (507.85, 3.38),
    "three pions": (46.21, 1.45),
    "pion and photon": (4.41, 0.10),
    "charged kaons": (23.08, 0.44),
    "neutral kaons": (12.82, 0.24),
}
# One experiment alone: arXiv:0908.3589 and arXiv:1306.3600, abstracts.
ALONE = {"pipi_babar_2009": (514.1, 3.8), "kk_babar_2013": (22.93, 0.28)}
END = 1.8  # GeV
# BR(ee) and cτ [m] at ε = 1 of the calculation arXiv:2201.01788.
CALCULATED = (
    (0.2, 0.999995, 4.05612e-13),
    (0.3, 0.525257, 1.42034e-13),
    (0.4, 0.46349, 9.3999e-14),
    (0.5, 0.403522, 6.54697e-14),
    (0.6, 0.304321, 4.11456e-14),
    (0.65, 0.229228, 2.86086e-14),
    (0.7, 0.147273, 1.70674e-14),
    (0.75, 0.0958601, 1.03686e-14),
    (0.77, 0.0841483, 8.86536e-15),
    (0.78, 0.0511149, 5.31569e-15),
    (0.79, 0.0889977, 9.13857e-15),
    (0.8, 0.116876, 1.18516e-14),
    (0.85, 0.193705, 1.84869e-14),
    (0.9, 0.26769, 2.41286e-14),
    (0.95, 0.319215, 2.72585e-14),
    (1.0, 0.319179, 2.58926e-14),
    (1.01, 0.220426, 1.77032e-14),
    (1.02, 0.0218107, 1.73448e-15),
    (1.03, 0.193256, 1.52199e-14),
    (1.05, 0.310249, 2.39697e-14),
)


def rows(*, quick: bool) -> Iterator[tuple]:
    del quick
    yield from _anomaly()
    yield from _calculated()


def anomaly(m: np.ndarray, ratio: np.ndarray) -> float:
    """Return the contribution of R to the muon's anomaly [10⁻¹⁰].

    a_μ = (α²/3π²) ∫ ds R(s) K(s)/s with the kernel K of Brodsky and de Rafael.
    """
    s = m**2
    beta = np.sqrt(1 - 4 * M_MU**2 / s)
    x = (1 - beta) / (1 + beta)
    kernel = x**2 * (1 - x**2 / 2) + (1 + x) / (1 - x) * x**2 * np.log(x)
    kernel += (1 + x) ** 2 * (1 + 1 / x**2) * (np.log1p(x) - x + x**2 / 2)
    return float(1e10 * ALPHA**2 / (3 * np.pi**2) * trapezoid(ratio * kernel / s * 2 * m, m))


def _anomaly() -> Iterator[tuple]:
    m, _, _, found = build.table()
    m = m[: len(found["two pions"][0])]
    high = np.arange(measured.HIGHEST, END, 0.005)
    tables = {"two pions": ("pipi_babar_2009",), "charged kaons": measured.KAONS[:1], **measured.CHANNELS}
    tables["three pions"] = ("3pi_babar_2004",)
    for name, (expected, error) in ANOMALY.items():
        beyond, _ = measured.between(measured.merged(tables[name]), high)
        value = anomaly(m, found[name][0]) + anomaly(high, beyond * high**2 / measured.MUONS)
        label = f"a_μ of {name} up to {END} GeV [10⁻¹⁰]"
        yield label, value, expected, 2 * error, "arXiv:1908.00921, twice its error"
    for name, (expected, error) in ALONE.items():
        points = measured.points(name)
        edge = points.mass + points.width / 2 <= END + 1e-9
        m, sigma, width = (x[edge] for x in (points.mass, points.sigma, points.width))
        value = sum(
            anomaly(np.array([a - b / 2, a + b / 2]), np.full(2, c * a**2 / measured.MUONS))
            for a, b, c in zip(m, width, sigma, strict=True)
        )
        if name.startswith("pipi"):
            low = np.linspace(0.2792, m[0] - width[0] / 2, 60)
            value += anomaly(low, measured.pions(low)[0] * low**2 / measured.MUONS)
        label = f"a_μ of {name} alone, bare as published [10⁻¹⁰]"
        yield label, value, expected, error, "its paper"


def _calculated() -> Iterator[tuple]:
    table = RTable.read(data_path("measurements/r_ratio.csv"))
    for m, electrons, ctau in CALCULATED:
        source = "meson dominance, arXiv:2201.01788"
        ours = float(dark_photon_branching(m, table)["ee"])
        yield f"BR(A′→ee) at {m} GeV, measured R(s)", ours, electrons, 0.05 * electrons, source
        ours = float(dark_photon_ctau(m, 1.0, table))
        yield f"cτ ε² [m] at {m} GeV, measured R(s)", ours, ctau, 0.05 * ctau, source
