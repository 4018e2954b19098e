"""Dark bremsstrahlung at exact tree level against traces, public cross-sections and its own limits."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from builders import ROOT

from gammastar.core.constants import M_E
from gammastar.semivisible import load_na64, na64
from gammastar.semivisible.benchmarks import correction
from gammastar.semivisible.production import LEAD, SLOPE, Correction, energy_nodes, ww_spectrum

sys.path.append(str(ROOT / "analysis" / "semivisible"))
from exact_brem import (
    exact_cross_section,
    exact_spectrum,
    squared_matrix_element,
    ww_cross_section,
)

METRIC = np.array([1.0, -1.0, -1.0, -1.0])
PAULI = (np.array([[0, 1], [1, 0]]), np.array([[0, -1j], [1j, 0]]), np.diag([1, -1]))
GAMMA = [np.diag([1, 1, -1, -1]).astype(complex)]
GAMMA += [np.block([[np.zeros((2, 2)), x], [-x, np.zeros((2, 2))]]) for x in PAULI]


def slash(p):
    return sum(METRIC[k] * p[k] * GAMMA[k] for k in range(4))


def product(a, b):
    return float((a * b * METRIC).sum())


def by_traces(before, after, dark):
    s, u = 2 * product(after, dark) + product(dark, dark), product(dark, dark) - 2 * product(before, dark)
    mass, total = M_E * np.eye(4), 0.0
    for mu in range(4):
        first = GAMMA[mu] @ (slash(after + dark) + mass) @ GAMMA[0] / s
        vertex = first + GAMMA[0] @ (slash(before - dark) + mass) @ GAMMA[mu] / u
        barred = GAMMA[0] @ vertex.conj().T @ GAMMA[0]
        trace = np.trace((slash(after) + mass) @ vertex @ (slash(before) + mass) @ barred)
        total -= 0.5 * METRIC[mu] * trace.real
    return total, s, u, product(after + dark - before, after + dark - before)


def test_matrix_element_is_the_trace():
    rng = np.random.default_rng(3)

    def momentum(energy, mass):
        direction = rng.normal(size=3)
        return np.r_[energy, np.sqrt(energy**2 - mass**2) * direction / np.linalg.norm(direction)]

    for _ in range(30):
        mass, energy = rng.uniform(0.002, 2.0), rng.uniform(3.0, 10.0)
        dark = rng.uniform(mass + 0.1, energy - 0.1)
        vectors = momentum(energy, M_E), momentum(energy - dark, M_E), momentum(dark, mass)
        expected, s, u, t = by_traces(*vectors)
        ours = squared_matrix_element(s, u, t, (energy, energy - dark), mass)
        assert float(ours) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.long
@pytest.mark.parametrize(
    ("mass", "energy", "picobarn"),  # at ε = 1e-4; test table of DMG4, arXiv:2101.12192
    [(0.01, 60.0, 8390.31), (0.01, 100.0, 8486.3), (0.1, 60.0, 91.5764), (0.3, 100.0, 7.37425)],
)
def test_cross_section_of_others(mass, energy, picobarn):
    assert 1e-8 * exact_cross_section(mass, energy) == pytest.approx(picobarn, rel=0.012)


@pytest.mark.long
def test_quadrature_has_converged():
    for mass, energy in ((0.004, 100.0), (0.3, 20.0)):
        fine = exact_cross_section(mass, energy, nodes=(56, 88, 24))
        assert exact_cross_section(mass, energy) == pytest.approx(fine, rel=4e-4)


def test_shipped_correction_is_what_we_compute():
    shipped = correction()
    for mass, energy in ((0.01, 60.0), (0.2, 100.0), (1.0, 150.0)):
        ratio = ww_cross_section(mass, energy) / exact_cross_section(mass, energy)
        assert float(shipped.at(mass, energy)) == pytest.approx(ratio, rel=5e-4)
    assert (np.diff(shipped.k[shipped.mass >= 0.05], axis=1) < 0).all()  # WW is better at high energies


def test_spectrum_ends_where_it_must():
    assert exact_spectrum([0.0005, 1.0], 0.1, 100.0).tolist() == [0.0, 0.0]
    x, weight = energy_nodes(0.1, 100.0, 50.0)
    exact, approximate = (f(x, 0.1, 100.0, LEAD) * weight for f in (exact_spectrum, ww_spectrum))
    # Weizsaecker-Williams is too hard, by 1.6 % in the mean
    assert (x * approximate).sum() / approximate.sum() == pytest.approx(0.9526, abs=1e-3)
    assert (x * exact).sum() / exact.sum() == pytest.approx(0.9371, abs=1e-3)


def test_energies_behind_a_thick_target_against_electrons_that_lose_energy():
    """Electrons at random depths, losing ln E by a gamma distribution of shape 4t/3: no closed form."""
    card, rng = load_na64(), np.random.default_rng(5)
    for mass in (0.05, 0.5):
        depth = rng.uniform(0.0, 8.0, 400_000)  # radiation lengths; none stays above 50 GeV longer
        energy = card.beam * np.exp(-rng.gamma(SLOPE * depth))
        energy = energy[energy > card.missing_energy]
        edges = np.linspace(card.missing_energy, card.beam, 26)
        counts, sums = np.histogram(energy, edges)[0], np.histogram(energy, edges, weights=energy)[0]
        total = moment = 0.0
        for count, e in zip(counts, sums / counts, strict=True):
            x, weight = energy_nodes(mass, e, card.missing_energy)
            part = ww_spectrum(x, mass, e) * weight / float(correction().at(mass, e))
            total, moment = total + count * part.sum(), moment + count * e * (x * part).sum()
        target = na64.production(mass, card)
        mean = np.interp(np.linspace(0, 1, 20_001), target.cumulative, target.energy).mean()
        assert mean == pytest.approx(
            moment / total, rel=3 * 0.16 / len(energy) ** 0.5
        )  # relative spread 0.16
        assert mean < 83.0  # 95 GeV where electrons first scatter


def test_yield_is_divided_by_the_correction_at_every_energy_of_the_shower():
    flat, card = Correction(np.array([0.1, 1.0]), np.array([100.0]), np.ones((2, 1)), "none"), load_na64()
    ratio = na64.production(0.3, card, flat).per_electron / na64.production(0.3, card).per_electron
    at_ends = correction().at(0.3, np.array([100.0, 50.0]))
    assert at_ends[0] < ratio < at_ends[1]
