"""Rows of the topic `predict`: multiplicities of FairShip and hadrons of B − L."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from gammastar.core import constants
from gammastar.core.files import data_path
from gammastar.physics.mesons import MesonTable, dark_photon_branching
from gammastar.physics.qed import RTable
from gammastar.physics.vectors import meson_ratio
from gammastar.predict import VectorModel

R_TABLE = RTable.read(data_path("measurements/r_ratio.csv"))
FAIRSHIP = {"pi0": 6.166, "eta": 0.7012, "omega": 0.8295, "eta_prime": 0.07825}
EVENTS = 20_000


def rows(*, quick: bool) -> Iterator[tuple]:
    yield from _pseudoscalars()
    yield from _b_minus_l()
    if not quick:
        yield from _multiplicities()


def _pseudoscalars() -> Iterator[tuple]:
    """Sum A′ of π⁰, η and η′ with FairShip's numbers of mesons and pointlike decays, as that code does."""
    table = MesonTable.read(data_path("measurements/mesons_400gev.toml"))
    total = 0.0
    for decay in table.decays:
        if decay.kind == "pseudoscalar_dalitz":
            pointlike, meson = replace(decay, form_factor="pointlike"), table.mesons[decay.parent]
            width = constants.width(meson.pdg)
            total += FAIRSHIP[decay.parent] * float(
                dark_photon_branching(pointlike, meson.mass, width, [0.2])[0]
            )
    source = "FairShip: its multiplicities and formula; 47 % above EventCalc"
    yield "A′ of π⁰, η, η′ per POT and ε² at 0.2 GeV, multiplicities of FairShip", total, 0.362, 2e-3, source
    yield "the same over EventCalc", total / 0.2466, 1.47, 0.01, "the hole in normalisation"


def _multiplicities() -> Iterator[tuple]:
    """Mesons of a non-diffractive pp interaction at 400 GeV: what FairShip took from Pythia 8."""
    if importlib.util.find_spec("pythia8mc") is None:
        return
    found, square = _pythia(EVENTS)
    for code, name in ((111, "pi0"), (221, "eta"), (223, "omega"), (331, "eta_prime")):
        mean = found[code] / EVENTS
        error = math.sqrt((square[code] / EVENTS - mean**2) / EVENTS)
        tolerance = 0.04 * FAIRSHIP[name] + 3 * error
        source = "FairShip, from another Pythia 8; 4 % and 3 σ of our events"
        yield f"{name} per non-diffractive pp at 400 GeV, Pythia 8", mean, FAIRSHIP[name], tolerance, source


def _pythia(n: int) -> tuple[dict[int, float], dict[int, float]]:
    import pythia8mc

    pythia = pythia8mc.Pythia("", False)
    for line in (
        *("Print:quiet = on", "Random:setSeed = on", "Random:seed = 1", "SoftQCD:nonDiffractive = on"),
        *("Beams:frameType = 2", "Beams:eA = 400.", "Beams:eB = 0."),
    ):
        pythia.readString(line)
    pythia.init()
    found, square = dict.fromkeys((111, 221, 223, 331), 0.0), dict.fromkeys((111, 221, 223, 331), 0.0)
    for _ in range(n):
        pythia.next()
        codes = [particle.id() for particle in pythia.event]
        for code in found:
            count = codes.count(code)
            found[code] += count
            square[code] += count**2
    return found, square


def _b_minus_l() -> Iterator[tuple]:
    """Hadrons of B − L from R split into ρ, ω and φ."""
    model = VectorModel.named("b_minus_l", R_TABLE)
    for m, value in ((0.6236, 0.2863), (0.6907, 0.2849)):
        yield f"BR(ee) of B − L at {m} GeV", model.branching(m)["ee"], value, 1e-2 * value, "FORESEE table"
    for m, value in ((0.8398, 0.1446), (0.9, 0.072), (0.952, 0.0554)):
        ours = model.branching(m)["hadrons"]
        source = "FORESEE table of B − L, digitised; the interference of ω and φ is not in ours"
        yield f"BR(hadrons) of B − L at {m} GeV", ours, value, 0.015, source
    for m in (0.5, 0.6, 0.7, 0.82, 0.85, 0.9):
        muons = (1 + 2 * (constants.M_MU / m) ** 2) * np.sqrt(1 - 4 * (constants.M_MU / m) ** 2)
        ours = sum(float(meson_ratio(name, m)) for name in ("rho", "omega", "phi"))
        ours /= float(R_TABLE.at(m)) * float(muons)
        yield f"ρ + ω + φ over measured R at {m} GeV", ours, 1.0, 0.2, "PDG widths alone, ALPINIST table"
