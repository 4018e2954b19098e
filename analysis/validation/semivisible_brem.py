"""Dark bremsstrahlung at NA64: exact tree level, K by beam energy, energies behind a thick target."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from semivisible.exact_brem import exact_cross_section, exact_spectrum, ww_cross_section
from validation._rows import row as _row

from gammastar import semivisible
from gammastar.core.sampling import stream
from gammastar.semivisible import na64
from gammastar.semivisible.benchmarks import correction
from gammastar.semivisible.decays import decay_table
from gammastar.semivisible.production import LEAD, SLOPE, ThickTarget, energy_nodes, ww_spectrum

PUBLIC = (  # mass, beam [GeV], pb at ε = 1e-4
    *((0.01, 60.0, 8390.31), (0.01, 100.0, 8486.3), (0.1, 60.0, 91.5764), (0.1, 100.0, 106.04)),
    *((0.3, 60.0, 5.76344), (0.3, 100.0, 7.37425), (1.0, 100.0, 0.191974)),
)
DMG4 = "test table of DMG4 (arXiv:2101.12192); tolerance 1/Z, the share of nuclei that break up"


def rows(*, quick: bool) -> Iterator[dict]:
    """Yield rows of the cross-section, of K and of the energies."""
    for mass, beam, picobarn in PUBLIC:
        ours = 1e-8 * exact_cross_section(mass, beam)
        text = f"exact tree level, {mass:g} GeV from {beam:g} GeV electrons on lead, over the public value"
        yield _row(text, ours / picobarn, 1.0, 1.0 / LEAD.z, DMG4)
    shipped = correction()
    for beam in (20.0, 50.0, 80.0, 150.0):
        ratio = ww_cross_section(0.1, beam) / exact_cross_section(0.1, beam, nodes=(64, 96, 32))
        text = f"K at 0.1 GeV and {beam:g} GeV electrons, shipped"
        yield _row(text, shipped.at(0.1, beam), ratio, 5e-4 * ratio, "quadrature with finer nodes")
    yield from _energies(400_000 if quick else 2_000_000)
    yield from _first_scatter(20_000 if quick else 100_000)


def _energies(n: int) -> Iterator[dict]:
    """Yield ⟨E⟩ behind a thick target: electrons at random depths that lose energy, no closed form."""
    card = semivisible.load_na64()
    rng = stream(21, "electrons")
    energy = card.beam * np.exp(-rng.gamma(SLOPE * rng.uniform(0.0, 8.0, n)))
    energy = energy[energy > card.missing_energy]
    edges = np.linspace(card.missing_energy, card.beam, 51)
    counts, sums = np.histogram(energy, edges)[0], np.histogram(energy, edges, weights=energy)[0]
    for mass in (0.01, 0.1, 0.5):
        total = moment = square = 0.0
        for count, e in zip(counts, sums / counts, strict=True):
            x, weight = energy_nodes(mass, e, card.missing_energy)
            part = ww_spectrum(x, mass, e) * weight / float(correction().at(mass, e))
            total += count * part.sum()
            moment += count * e * (x * part).sum()
            square += count * e**2 * (x**2 * part).sum()
        mean = moment / total
        error = np.sqrt((square / total - mean**2) / len(energy))
        ours = _mean(na64.production(mass, card))
        text = f"⟨E⟩ of dark photons of {mass:g} GeV above 50 GeV in NA64, thick target [GeV]"
        yield _row(
            text, ours, mean, 3.0 * error, "electrons at random depths, ln E lost by a gamma distribution"
        )
        x, weight = energy_nodes(mass, card.beam, card.missing_energy)
        for name, spectrum in (("Weizsäcker-Williams", ww_spectrum), ("exact tree level", exact_spectrum)):
            density = spectrum(x, mass, card.beam) * weight
            first = card.beam * (x * density).sum() / density.sum()
            text = f"the same where electrons first scatter, {name} [GeV]"
            yield _row(text, first, ours, 0.0, "thick target of the row above") | {"measured": True}


def _mean(target: ThickTarget) -> float:
    middle = 0.5 * (target.energy[1:] + target.energy[:-1])
    return float((np.diff(target.cumulative) * middle).sum())


def _first_scatter(n: int) -> Iterator[dict]:
    """Yield what the energies mean for a recast: the largest ε that NA64 excludes for iDM-040."""
    card = semivisible.load_na64()
    epsilon = np.geomspace(1e-3, 3e-2, 121)
    for mass in (0.1, 0.2):
        table = decay_table(semivisible.load_benchmark("iDM-040").sector(mass))
        limit = semivisible.published("na64_2016_18").at(mass)
        thick = na64.production(mass, card)
        x, weight = energy_nodes(mass, card.beam, card.missing_energy)
        density = ww_spectrum(x, mass, card.beam) * weight
        first = ThickTarget(
            mass,
            card.beam,
            card.missing_energy,
            thick.per_electron,
            np.cumsum(density) / density.sum(),
            x * card.beam,
        )
        edges = []
        for target in (thick, first):
            energy, events = na64.cascades(table, target, n, stream(22, mass))
            p = na64.missing(energy, events, card, epsilon, stream(23), mode="strict").value
            reach = semivisible.intervals(np.array([mass]), epsilon, p[None], [limit])
            edges.append(float(reach.edges[-1, 1]))
        text = (
            f"iDM-040, {mass:g} GeV: largest ε excluded by NA64 with first-scatter energies over thick target"
        )
        yield _row(text, edges[1] / edges[0], 1.0, 0.0, "thick target") | {"measured": True}
