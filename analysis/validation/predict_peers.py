"""Rows of the topic `predict`: the oracles of other tools, and the envelope of their predictions."""

from __future__ import annotations

import csv
from collections.abc import Iterator

import numpy as np
import vector

from gammastar import accept, predict
from gammastar.core import constants
from gammastar.core.constants import BRANCHING, M_E, M_PI0
from gammastar.core.files import data_path
from gammastar.core.records import Sample
from gammastar.core.sampling import stream
from gammastar.infer import counting_limit
from gammastar.physics import hadrons
from gammastar.physics.bremsstrahlung import preset
from gammastar.physics.detector import Detector
from gammastar.physics.geometry import Cylinder
from gammastar.physics.millicharge import pseudoscalar_branching
from gammastar.physics.polarisation import daughter
from gammastar.physics.qed import RTable, dark_photon_branching, dark_photon_ctau

R_TABLE = RTable.read(data_path("measurements/r_ratio.csv"))
LUMINOSITY = 3e6  # 1/pb
ETA = 221


def rows(*, quick: bool) -> Iterator[tuple]:
    yield from _branching()
    yield from _yields()
    yield from _envelope()
    if not quick:
        yield from _faser2()


def _branching() -> Iterator[tuple]:
    for m, value, tolerance in ((0.3, 0.52526, 5e-3), (0.5, 0.40352, 1e-2), (0.7, 0.14727, 3e-2)):
        ours = float(dark_photon_branching(m, R_TABLE)["ee"])
        yield f"BR(A′→ee) at {m} GeV, another tool", ours, value, tolerance * value, "FORESEE table"
    ours = float(dark_photon_branching(1.0, R_TABLE)["ee"])
    yield "BR(A′→ee) at 1.0 GeV, another tool", ours, 0.31918, 4e-2 * 0.31918, "FORESEE table"
    ours = float(dark_photon_branching(0.3, R_TABLE)["ee"])
    yield "BR(A′→ee) at 0.3 GeV, a third one", ours, 0.52550, 5e-3 * 0.5255, "Darkcast v1.1"
    for m, epsilon, value, tolerance in (
        (0.3, 1.0, 1.4203e-13, 5e-3),
        (0.05, 1.0, 1.6225e-12, 1e-3),
        (0.1, 1e-5, 0.0081123, 1e-3),
    ):
        ours = float(dark_photon_ctau(m, epsilon, R_TABLE))
        label = f"cτ [m] at {m} GeV and ε = {epsilon:g}"
        yield label, ours, value, tolerance * value, "FORESEE and Darkcast"
    pi0 = pseudoscalar_branching(M_E, M_PI0, BRANCHING["pi0 -> gamma gamma"].value, hadrons.pointlike)
    yield "BR(π⁰→γee), leading order", pi0, 0.011712, 2e-3 * 0.011712, "Kroll-Wada; PDG: 0.01174"
    above = float(dark_photon_branching(0.211316, R_TABLE)["mumu"])
    yield "BR(A′→μμ) at 0.211316 GeV, 0.8 keV below threshold", above, 0.0, 0.0, "kinematics"


def _yields() -> Iterator[tuple]:
    charged = predict.chi_rate([0.3, 0.4], [1.0], [[0.0]], [constants.M_MU], constants.M_MU)[0][0]
    yield "χχ̄ pairs (not particles) per dimuon at m_χ = m_μ", charged, 1.0, 1e-12, "what is counted"
    limit = float(counting_limit(0, 0.0))
    yield "events of a 90 % CL contour without background", limit, 2.303, 1e-3 * 2.303, "Poisson"


def _envelope() -> Iterator[tuple]:
    """Upper over lower prediction of one tool: what a measured rate removes."""
    brem = predict.Bremsstrahlung(preset("qra_v2"), 400.0)
    _, low, high = brem.envelope([0.5])
    yield (
        "bremsstrahlung alone at 0.5 GeV, Λ = 3 over 0.75 GeV",
        float(high[0] / low[0]),
        88.0,
        1.0,
        ("5.13e-3 over 5.83e-5, kernel integrals above"),
    )


def _faser2() -> Iterator[tuple]:
    """Carry η of SIBYLL through our decays, lifetimes and acceptance to FASER2."""
    lines = data_path("measurements/eta_14tev_sibyll.csv").read_text().splitlines()
    table = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    angle, momentum, sigma = (
        np.array([float(row[name]) for row in table])
        for name in ("log10_angle", "log10_momentum", "sigma_pb")
    )
    rng, mass, n = stream(1, "faser2"), 0.3, 400_000
    index = rng.choice(len(sigma), size=n, p=sigma / sigma.sum())
    theta = 10 ** (angle[index] + rng.uniform(-0.05, 0.05, n))
    p = 10 ** (momentum[index] + rng.uniform(-0.05, 0.05, n))
    phi, m_eta = rng.uniform(-np.pi, np.pi, n), constants.mass(ETA)
    eta = np.stack(
        [
            p * np.sin(theta) * np.cos(phi),
            p * np.sin(theta) * np.sin(phi),
            p * np.cos(theta),
            np.hypot(p, m_eta),
        ]
    )
    photon = daughter(eta, m_eta, mass, 0.0, rng.uniform(-1, 1, n), rng.uniform(-np.pi, np.pi, n))
    branching = 2 * BRANCHING["eta -> gamma gamma"].value * (1 - (mass / m_eta) ** 2) ** 3
    p4 = vector.array(dict(zip(("px", "py", "pz", "E"), photon, strict=True)))
    weight = np.full(n, sigma.sum() * branching / n)
    sample = Sample(p4, weight, np.zeros((n, 3)), np.zeros(n, dtype=np.bool_))
    faser2 = Detector(
        name="FASER2",
        source="arXiv:2105.07077",
        beam_energy=7000.0,
        luminosity=LUMINOSITY,
        volume=Cylinder(kind="cylinder", radius=1.0, z0=620.0, z1=630.0),
        accept_on="parent",
        efficiency={"ee": 1.0},
        sources={},
    )
    found = accept.yields(
        sample,
        mass,
        [1e-6],
        predict.DarkPhoton(R_TABLE),
        faser2,
        final_states=("ee",),
        rng=stream(1, "decays"),
    )
    source = "FORESEE with its SIBYLL table; ours own SIBYLL 2.3d events: another version of the generator"
    yield "FASER2, η → γA′ → ee at 0.3 GeV, ε = 1e-6 [events]", found.signal[0], 19.333, 1.9, source
