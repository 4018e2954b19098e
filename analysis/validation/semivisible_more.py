"""Semi-visible dark photons: rare events, cosmology, and decays as DarkNews makes them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from validation._rows import row as _row

from gammastar import semivisible
from gammastar.core.constants import ALPHA
from gammastar.core.files import data_path
from gammastar.core.sampling import stream
from gammastar.physics.qed import RTable
from gammastar.semivisible import babar, gm2
from gammastar.semivisible.cascade import decay_states
from gammastar.semivisible.decays import Transition, decay_table, spectrum, width
from gammastar.semivisible.models import DarkSector

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "semivisible"))
import belle2
import cosmology

M = 1.25
TALK = "M. Hostert, EVPA 2022"
CM3_PER_S = 1.16733e-17  # of 1 GeV⁻²


def rows(*, quick: bool) -> Iterator[dict]:
    yield from _rare(quick=quick)
    yield from _cosmology()
    yield from _darknews(quick=quick)


def _rare(*, quick: bool) -> Iterator[dict]:
    """Yield P_miss of the reference table by importance sampling, and against plain events."""
    card = replace(semivisible.load_babar(), radius=np.inf)
    n = 4_000 if quick else 20_000
    known = (
        *(("iDM-040", 0.05, 8.0e-3), ("iDM-040", 0.15, 6.7e-2), ("iDM-040", 0.0, 4.2e-4)),
        *(("i2DM-talk", 0.05, 2.5e-4), ("i2DM-talk", 0.15, 5.6e-3), ("i2DM-talk", 0.0, 6.4e-5)),
        ("AHP2020-B", 0.1, 1.3e-2),
    )
    for name, threshold, expected in known:
        point = semivisible.load_benchmark(name)
        table = decay_table(point.sector(point.mediator or M))
        found = semivisible.prompt_missing(
            table, replace(card, threshold=threshold), n, stream(1, name), copies=64
        )
        events = 4e5 * expected  # of the independent Monte Carlo, and its rounding
        tolerance = expected * np.hypot(3.0 / np.sqrt(events), 0.04) + 3.0 * found.error[0]
        text = f"P_miss of {name} at 1.25 GeV, particles above {1e3 * threshold:g} MeV, importance sampling"
        yield _row(text, found.value[0], expected, tolerance, "independent Monte Carlo of the same selection")
    table = decay_table(semivisible.load_benchmark("i2DM-talk").sector(M))
    tight = replace(card, threshold=0.05)
    plain = babar.missing(
        babar.cascades(table, tight, 200_000 if quick else 2_000_000, stream(2)), tight, [1.0], stream(3)
    )
    found = semivisible.prompt_missing(table, tight, n, stream(4), copies=64)
    error = float(np.hypot(plain.error[0], found.error[0]) / plain.value[0])
    ratio = found.value[0] / plain.value[0]
    yield _row("importance sampling over plain events, i2DM-talk, 50 MeV", ratio, 1.0, 3 * error, "both ours")
    hermetic = replace(card, threshold=0.0)
    rare = semivisible.prompt_missing(table, hermetic, n, stream(5), copies=64)
    text = f"relative error at P_miss = {rare.value[0]:.2g}, {n} dark photons"
    yield _row(text, rare.error[0] / rare.value[0], 0.0, 0.05, "own estimate")


def _cosmology() -> Iterator[dict]:
    """Yield freeze-out against a known cross-section, and the talk's words on dark matter."""
    for mass, expected in ((0.3, 5.2e-26), (100.0, 2.2e-26)):
        value = expected / CM3_PER_S
        ours = cosmology.relic_density(
            np.array([mass]), np.array([2.0]), lambda x, v=value: np.full_like(x, v)
        )
        text = f"Ωh² of {mass:g} GeV with ⟨σv⟩ = {expected:g} cm³/s"
        yield _row(text, ours, 0.11, 0.0055, "arXiv:1204.3622")
    hadrons = RTable.read(data_path("measurements/r_ratio.csv"))
    sector = semivisible.load_benchmark("i2DM-talk").sector(M)
    centre = float(gm2.epsilon_for(M, gm2.reference("wp20").difference))
    over = cosmology.omega(sector, centre, r_table=hadrons) / cosmology.load_cosmology().omega
    text = "i2DM-talk at the centre of the 2020 band, 1.25 GeV: too much ψ₁ (1 yes)"
    yield _row(text, over > 1, 1.0, 0.0, f"{TALK}: overproduces dark matter without mixing with neutrinos")
    text = "i2DM-talk there: excluded by the CMB if ψ₁ is dark matter (1 yes)"
    yield _row(text, centre > cosmology.cmb_limit(sector), 1.0, 0.0, TALK)
    for card in (cosmology.load_cosmology(), belle2.load_displaced()):
        for text in card.unverified:
            name, _, note = text.partition(": ")
            yield {"quantity": f"unverified input: {name}", "expected": float("nan"), "skipped": note}


def _darknews(*, quick: bool) -> Iterator[dict]:
    """Yield decays of DarkNews against our sampler and spectrum (axial), when it is installed."""
    texts = ("χ²/ndf of m_ee, DarkNews on our spectrum", "mean energy of ψ′ at rest, ours over DarkNews")
    if importlib.util.find_spec("DarkNews") is None:
        for text in texts:
            yield {
                "quantity": text,
                "expected": 1.0,
                "skipped": "the package DarkNews is not installed: python3 -m pip install darknews",
            }
        return
    import gvar
    from DarkNews import integrands, model, pdg, processes

    gvar.ranseed(11)  # vegas draws from it
    heavy, light = 0.462, 0.33
    theory = model.GenericHNLModel(
        m4=light, m5=heavy, mzprime=1.0, HNLtype="majorana", d_45=1.0, deV=1e-3 * np.sqrt(4 * np.pi * ALPHA)
    )
    case = processes.FermionDileptonDecay(pdg.neutrino5, pdg.neutrino4, pdg.electron, pdg.positron, theory)
    samples, weights = case.SamplePS(NINT_sample=1, NEVAL_sample=20_000 if quick else 100_000)
    at_rest = np.tile([heavy, 0.0, 0.0, 1e-9], (samples.shape[1], 1))
    momenta = integrands.get_decay_momenta_from_vegas_samples(samples, case, at_rest)
    w = weights["diff_decay_rate_0"] / weights["diff_decay_rate_0"].sum()
    pair = momenta["P_decay_ell_minus"] + momenta["P_decay_ell_plus"]
    mass = np.sqrt(pair[:, 0] ** 2 - (pair[:, 1:] ** 2).sum(axis=1))
    t = Transition(heavy, light, 1.0, 1.0, -1.0)
    edges = np.linspace(2 * 0.52e-3, 0.132, 21)
    counts, squares = (np.histogram(mass, edges, weights=x)[0] for x in (w, w**2))
    fine = np.array([np.linspace(a, b, 41) for a, b in pairwise(edges)])
    density = spectrum(t, fine**2) * 2 * fine / width(t)
    expected = np.trapezoid(density, fine, axis=1)
    chi2 = float(((counts - expected) ** 2 / squares).sum())
    yield _row(
        f"{texts[0]}, {len(counts)} bins, axial", chi2 / (len(counts) - 1), 1.0, 0.95, "DarkNews 0.4.8"
    )
    axial = _axial(t)
    rest = np.tile([0.0, 0.0, 0.0, heavy], (200_000, 1))
    ours = decay_states(axial, 1, rest, stream(6)).daughter[:, 0, 3]
    theirs = momenta["P_decay_N_daughter"][:, 0]
    mean = float((w * theirs).sum())
    spread = float(np.sqrt((w**2 * (theirs - mean) ** 2).sum() + ours.var() / len(ours)))
    kinetic = mean - light
    yield _row(
        f"kinetic {texts[1]}, axial",
        (ours.mean() - light) / kinetic,
        1.0,
        4 * spread / kinetic,
        "DarkNews 0.4.8",
    )


def _axial(t: Transition):
    """Return a decay table with the masses of a transition and its axial vertex."""
    vertex = np.array([[0.0, 1.0], [1.0, 0.0]], dtype=complex)
    masses = np.array([t.light, t.heavy])
    return decay_table(
        DarkSector("axial", t.mediator, 0.5, masses, np.zeros((2, 2), complex), vertex, "majorana")
    )
