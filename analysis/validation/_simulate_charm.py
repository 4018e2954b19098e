"""Open charm of the mock against Pythia's own semileptonic decays."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import awkward as ak
import numpy as np
from validation._rows import row

from gammastar.core.sampling import stream
from gammastar.mock import Card, PythiaEngine, accepted, charm_rate, generate_charm, pythia

CHARMED = (411, 421, 431, 4122)
BATCH = 2_000
MUON = 13


def forced(card: Card, n: int) -> tuple[dict[str, float], dict[int, float]]:
    """Let Pythia decay the charmed hadrons of n events to muons by its own matrix elements.

    Returns pairs per cc̄, of all and of those in acceptance, weighted with the card's and with Pythia's
    branching fractions, their errors, and Pythia's branching fractions.
    """
    generator = importlib.import_module("pythia8mc").Pythia("", False)
    seed = int(stream(5, "validation", "charm").integers(1, 900_000_000))
    lines = pythia.settings(card.beam.energy, process="charm")
    forcing = [line for pdg in CHARMED for line in (f"{pdg}:onMode = off", f"{pdg}:onIfAny = {MUON}")]
    natural = {}
    for line in (*lines, f"Random:seed = {seed}"):
        generator.readString(line)
    for pdg in CHARMED:
        entry = generator.particleData.particleDataEntryPtr(pdg)
        channels = [entry.channel(i) for i in range(entry.sizeChannels())]
        natural[pdg] = sum(
            c.bRatio() for c in channels if MUON in {abs(c.product(j)) for j in range(c.multiplicity())}
        )
    for line in forcing:
        generator.readString(line)
    generator.init()
    fractions = {"card": {h.pdg: h.branching for h in card.charm.hadrons.values()}, "pythia": natural}
    detector = card.detector.model_copy(update={"coil": 0.0})
    parts, events = [], 0
    for _ in range(0, n, BATCH):
        particles = generator.nextBatch(BATCH, errorMode="skip").prt
        events += len(particles)
        parts.append(_pairs(particles, fractions, detector))
    card_weight, own_weight, seen = np.concatenate(parts, axis=1)
    found = {}
    for name, weight in (("card", card_weight), ("pythia", own_weight)):
        found[f"{name} all"] = weight.sum() / events
        found[f"{name} seen"] = (weight * seen).sum() / events
        found[f"{name} error"] = np.sqrt((weight**2 * seen).sum()) / events
    return found, natural


def _pairs(particles, fractions, detector) -> np.ndarray:
    """Return weights (card, Pythia) and acceptance of the events with one muon of each charm."""
    muons = particles[(np.abs(particles.id) == MUON) & (particles.status > 0)]
    mother = np.abs(particles.id[muons.mother1])
    charmed = ak.zeros_like(mother) > 0
    for pdg in CHARMED:
        charmed = charmed | (mother == pdg)
    muons, mother = muons[charmed], mother[charmed]
    good = (ak.num(muons) == 2) & (ak.sum(muons.id, axis=1) == 0)
    p = muons.p[good]
    p4 = np.stack([ak.to_numpy(p[key]) for key in ("px", "py", "pz", "e")])  # (4, events, 2)
    seen = accepted(p4[..., 0], detector) & accepted(p4[..., 1], detector)
    numbers = ak.to_numpy(mother[good])
    weights = [
        np.prod(np.vectorize(table.__getitem__)(numbers), axis=1) if len(numbers) else np.zeros(0)
        for table in (fractions["card"], fractions["pythia"])
    ]
    return np.stack([*weights, seen])


def rows(card: Card, n: int, engine: PythiaEngine | None) -> Iterator[dict]:
    """Rates per cc̄ pair: the card's fractions of hadrons, and both decay models in the acceptance."""
    per_ccbar = charm_rate(card) / (card.charm.cross_section * card.target.a / card.target.sigma_inel)
    detector = card.detector.model_copy(update={"coil": 0.0})

    def share(sample) -> float:
        d = sample.dimuons
        return (accepted(d.plus, detector) & accepted(d.minus, detector)).mean()

    rng = np.random.default_rng(9)
    toy = generate_charm(card, n, rng)
    if engine is None:
        return
    found, natural = forced(card, 20_000)
    source = "Pythia 8.317 hardccbar, charmed hadrons forced to muons"
    error = found["card all"] * 0.01
    label = "opposite-sign μμ per cc̄"
    yield row(label, per_ccbar, found["card all"], 0.03 * found["card all"] + error, f"{source}, card's BR")
    ratio = found["pythia all"] / found["card all"]
    text = f"{source}; its BR {', '.join(f'{pdg} {value:.4f}' for pdg, value in natural.items())}"
    yield row("Pythia's BR² over the card's (PDG)", ratio, 1.0, 0.15, text)
    ours = per_ccbar * share(engine.charm(card, n, rng))
    tolerance = 0.12 * found["card seen"] + 3 * found["card error"]
    text = f"{source}: free-quark V−A, ours form factors, 12 %; 3 σ"
    yield row("accepted μμ per cc̄, hadrons of Pythia, our decays", ours, found["card seen"], tolerance, text)
    tolerance = 0.15 * ours
    yield row("accepted μμ per cc̄, toy", per_ccbar * share(toy), ours, tolerance, "toy spectra to 15 %")
