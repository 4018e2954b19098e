"""Rows of the topic `predict`: the spin density that is fitted to decay angles, and what it changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import awkward as ak
import numpy as np

from gammastar import accept, mock, predict, select, spectrum, subtract
from gammastar.core.constants import M_MU
from gammastar.core.constants import mass as mass_of
from gammastar.core.files import data_path
from gammastar.core.records import Exposure, FloatArray, Spectrum, filled, regular, variable
from gammastar.core.sampling import stream
from gammastar.mock.card import Card, Polarisation
from gammastar.mock.cocktail import dalitz_decay
from gammastar.physics.detector import load_detector
from gammastar.physics.mesons import MesonTable
from gammastar.physics.polarisation import (
    COEFFICIENTS,
    FRAMES,
    NO_SPIN,
    TRANSVERSE,
    SpinDensities,
    SpinState,
    axis_cosine,
    azimuth,
    harmonics,
    lambda_theta,
    lambdas_of,
    mass_factor,
    moments_of,
)
from gammastar.physics.qed import RTable
from gammastar.spectrum import DecayAngles

BEAM = 400.0
EDGES = (0.6, 0.9, 1.1125)  # ρ and ω, φ
AXES = (
    regular("mass", 12, 0.2125, 1.1125),
    variable("pt", [0.0, 0.5, 6.0]),
    variable("energy", [0.2, 6.0, 20.0, 40.0, 400.0]),
)
VECTORS = ("rho", "omega_2body", "phi_2body")
TRUTHS = ((0.0, 0.0, 0.0), (0.5, 0.0, 0.0), (-0.4, 0.15, 0.1))
N_DATA = 10_000  # recorded opposite-sign pairs of one data set
DETECTORS = ("na62_dump", "ship_ecn3")  # 80 m behind the dump, and 35 m


def rows(*, quick: bool) -> Iterator[tuple]:
    card = mock.load_card(data_path("cards/na60_mock.toml"))
    yield from _masses()
    yield from _closure(card, sets=4 if quick else 40, blocks=1 if quick else 10)
    yield from _null(card, blocks=1 if quick else 8)
    yield from _yields(card, 20_000 if quick else 400_000, blocks=1 if quick else 10)
    yield from _chains(50_000 if quick else 1_000_000)


def _masses() -> Iterator[tuple]:
    """λθ of muons and of χ from that of massless fermions, against the two helicity states."""
    worst = 0.0
    for share in np.linspace(0.0, 1.0, 11):
        for mass, fermion in ((0.25, M_MU), (0.5, M_MU), (1.0, 0.45)):
            moments = moments_of([float(lambda_theta(share, mass, 0.0)), 0.0, 0.0])
            ours = lambdas_of(float(mass_factor(mass, fermion)) * moments)[0]
            worst = max(worst, abs(ours - float(lambda_theta(share, mass, fermion))))
    yield "λθ for massive fermions from massless ones: worst of 33", worst, 0.0, 1e-12, "T and L, analytic"


def _polarised(card: Card, lambdas: Sequence[float]) -> Card:
    """Return the card with vectors alone, polarised about the flight in the laboratory."""
    theta, phi, theta_phi = lambdas
    state = Polarisation(theta=theta, phi=phi, theta_phi=theta_phi, frame="laboratory")
    modes = {k: m.model_copy(update={"polarisation": state}) for k, m in card.modes.items() if k in VECTORS}
    return card.model_copy(update={"modes": modes})


def _pairs(sample: mock.SimulatedEvents) -> select.pairs:
    branches = sample.branches
    muon = branches["Muon"]
    lepton = ak.zip(
        {"px": muon["px"], "py": muon["py"], "pz": muon["pz"], "charge": muon["charge"]}
        | {"mass": ak.full_like(muon["px"], M_MU, dtype=float)}
    )
    weight = branches["weight"] * branches["prescale"]
    events = ak.zip({"lepton": lepton, "event": branches["event"], "weight": weight}, depth_limit=1)
    return select.pairs(events)[0]


def _angles(pairs, weight: FloatArray) -> DecayAngles:
    kinematics = np.stack([pairs.mass, pairs.pt, pairs.energy], axis=1)
    return DecayAngles(kinematics, pairs.columns["cos_theta"], pairs.columns["phi_star"], weight, pairs.event)


def _joined(parts: Sequence[DecayAngles]) -> DecayAngles:
    names = ("kinematics", "cos_theta", "phi", "weight")
    event = np.arange(sum(len(part.weight) for part in parts))
    return DecayAngles(*(np.concatenate([getattr(p, name) for p in parts]) for name in names), event)


class _Simulation(NamedTuple):
    """Reconstructed pairs of photons, and all photons: kinematics, weight, which of them were seen."""

    seen: DecayAngles
    true: FloatArray
    weight: FloatArray
    index: FloatArray


def _simulated(card: Card, blocks: int, seed: int, prior: str) -> _Simulation:
    parts, true, weight, index, n = [], [], [], [], 0
    for i in range(blocks):
        sample = mock.simulate_events(card, 100_000, kind="mc", prior=prior, seed=seed + i)
        b, pairs = sample.branches, _pairs(sample)
        place = np.searchsorted(np.asarray(b["event"]), pairs.event)
        good = pairs.os & (np.asarray(b["gen_mll"])[place] > 0)
        parts.append(_angles(pairs, pairs.weight).select(good))
        index.append(place[good] + n)
        true.append(np.stack([np.asarray(b[k]) for k in ("gen_mll", "gen_qT", "gen_E")], axis=1))
        weight.append(np.asarray(b["weight"] * b["prescale"]) * (true[-1][:, 0] > 0))
        n += len(weight[-1])
    return _Simulation(_joined(parts), *(np.concatenate(x) for x in (true, weight, index)))


def _measured(card: Card, n: int, seed: int) -> DecayAngles:
    """Return the pairs of one data set, decay muons among them, with weights of the like-sign subtraction."""
    sample = mock.simulate_events(card, n, kind="data", seed=seed)
    pairs = _pairs(sample)
    r = float(sample.meta["r_factor"])
    return _angles(pairs, subtract.event_weights(pairs, AXES, r_factor=r))


def _closure(card: Card, sets: int, blocks: int) -> Iterator[tuple]:
    """MOCK data sets of polarised vectors with decay muons: means and pulls."""
    mc = _simulated(_polarised(card, TRUTHS[0]), blocks, 500, "nominal").seen
    for k, truth in enumerate(TRUTHS):
        found = [
            spectrum.fit_spin_densities(
                _measured(_polarised(card, truth), N_DATA, 10_000 * (k + 1) + i), mc, EDGES, M_MU
            )
            for i in range(sets)
        ]
        values, errors = (np.array([f.coefficients(M_MU)[j] for f in found]) for j in (0, 1))
        text = f"{sets} MOCK data sets of {N_DATA} +- pairs with decay muons, toy engine"
        for r, name in enumerate(("0.6 to 0.9 GeV", "0.9 to 1.1 GeV")):
            for j, coefficient in enumerate(COEFFICIENTS):
                label = f"vectors of (λθ, λφ, λθφ) = {truth}, laboratory, {name}: mean {coefficient}"
                error = float(errors[:, r, j].mean())
                allowed = 4 * error / np.sqrt(sets) + 0.3 * error  # the simulation is common
                yield (
                    label,
                    float(values[:, r, j].mean()),
                    truth[j],
                    allowed,
                    f"{text}; error of one {error:.3f}",
                )
        pulls = (values - truth) / errors
        yield (
            f"vectors of (λθ, λφ, λθφ) = {truth}: standard deviation of the pulls",
            float(pulls.std(axis=0, ddof=1).mean()),
            1.0,
            4 / np.sqrt(12 * (sets - 1)) + 0.05,
            f"{text}, six coefficients",
        )


def _null(card: Card, blocks: int) -> Iterator[tuple]:
    """Unpolarised photons of the whole cocktail, with a simulation of the same and of another spectrum."""
    edges = (0.2125, 0.6, 0.9, 1.1125)
    data = _simulated(card, blocks, 9_000, "nominal")
    same = _simulated(card, blocks, 9_500, "nominal").seen
    other = _simulated(card, blocks, 9_800, "varied")
    factor = spectrum.prior_weights(other.true, other.weight, _spectrum(data))[other.index]
    seen = other.seen
    shaped = DecayAngles(seen.kinematics, seen.cos_theta, seen.phi, seen.weight * factor, seen.event)
    for text, mc in (
        ("simulation of the same spectrum", same),
        ("of another spectrum, reweighted in cells", shaped),
        ("of another spectrum", seen),
    ):
        values, errors = spectrum.fit_spin_densities(data.seen, mc, edges, M_MU).coefficients(0.0)
        for i, low in enumerate(edges[:-1]):
            name = f"unpolarised, {low:g} to {edges[i + 1]:g} GeV, {text}: λθ in the laboratory"
            gate = (np.nan, np.nan) if mc is seen else (0.0, 4 * errors[i, 0])
            source = f"{len(data.seen.weight)} MOCK pairs in 35 to 120 mrad, massless fermions"
            yield name, values[i, 0], *gate, f"{source}; error {errors[i, 0]:.3f}"


def _spectrum(data: _Simulation) -> Spectrum:
    """Return the true spectrum on the axes of the main job."""
    axes = (
        regular("mass", 36, 0.2125, 1.1125),
        variable("pt", [0.0, 0.3, 0.6, 1.0, 6.0]),
        variable("energy", [0.2, 6.0, 12.0, 20.0, 30.0, 45.0, 80.0, 400.0]),
    )
    content, _ = np.histogramdd(data.true, [axis.edges for axis in axes], weights=data.weight)
    cov = np.zeros((content.size, content.size))
    return Spectrum(filled(axes, content, content), cov, "counts", None, np.ones(content.shape, bool))


def _yields(card: Card, n: int, blocks: int) -> Iterator[tuple]:
    """Signals in detectors with the truth, with what a MOCK data set measures of it, and unpolarised."""
    model = predict.DarkPhoton(RTable.read(data_path("measurements/r_ratio.csv")))
    channel = predict.VectorMixing(MesonTable.read(data_path("measurements/mesons_400gev.toml")), BEAM)
    mc = _simulated(_polarised(card, TRUTHS[0]), blocks, 500, "nominal").seen
    for truth in TRUTHS[1:]:
        data = _joined([_measured(_polarised(card, truth), 60_000, 70_000 + i) for i in range(3)])
        found = spectrum.fit_spin_densities(data, mc, EDGES, M_MU)
        exact = SpinDensities.known(lambdas_of(moments_of(truth) / mass_factor(0.77, M_MU)))
        frames = [SpinState(TRANSVERSE, frame) for frame in FRAMES]
        spins = (exact, NO_SPIN, *frames, found, *found.shifted())
        for name in DETECTORS:
            detector = load_detector(data_path(f"detectors/{name}.toml"))
            for state in ("mumu", "ee"):
                law = accept.Measured(
                    Exposure(BEAM, detector.target.a, detector.target.z, 50.0, 1.0),
                    "per_interaction",
                    spins=spins,
                )
                sample = channel.produce(0.77, n=n, rng=stream(1, "angles", name))
                seen = accept.yields(
                    sample,
                    0.77,
                    np.geomspace(1e-8, 1e-5, 40),
                    model,
                    detector,
                    final_states=(state,),
                    measured=law,
                    rng=stream(2, "angles", name, state),
                )
                best = int(seen.signal.argmax())
                plain, *rest = seen.spins[:, best] / seen.signal[best]
                assumed, ours, ends = [plain, *rest[:3]], rest[3], rest[4:]
                error = 0.5 * np.sqrt(np.sum((np.array(ends[::2]) - np.array(ends[1::2])) ** 2))
                label = f"{name}, {state} of 0.77 GeV, muons of {truth}: signal over the true one"
                text = f"{len(data.weight)} MOCK pairs; theory channel vector_mesons; error {error:.3f}"
                half = 0.5 * (max(assumed) - min(assumed))
                source = f"ε of the largest signal; error {half:.3f}, half the range of three frames"
                yield f"{label}, unpolarised", plain, np.nan, np.nan, source
                yield f"{label}, measured spin density", ours, 1.0, 4 * error + 0.01, text


def _chains(n: int) -> Iterator[tuple]:
    """Yield all three coefficients about the laboratory flight from the exact chain of a Dalitz decay."""
    table = MesonTable.read(data_path("measurements/mesons_400gev.toml"))
    for name, pdg, mass, recoil in (("η → γμμ", 221, 0.3, 0.0), ("ω → π⁰μμ", 223, 0.5, mass_of(111))):
        rng = stream(3, name)
        meson = next(m for m in table.mesons.values() if m.pdg == pdg)
        parent = meson.sample(mass_of(pdg), n, BEAM, rng)
        photon, plus = dalitz_decay(parent, mass_of(pdg), np.full(n, mass), recoil, rng, M_MU)
        cosine = axis_cosine(photon, mass, plus, "laboratory", BEAM)
        seen = harmonics(cosine, azimuth(photon, plus))
        # means of the harmonics over a density 1 + Σ a_k g_k: 4/45, 4/15, 4/15
        size = np.array([4 / 45, 4 / 15, 4 / 15])
        moments, errors = seen.mean(axis=1) / size, seen.std(axis=1) / np.sqrt(n) / size
        for j, coefficient in enumerate(COEFFICIENTS):
            label = f"{name} at {mass} GeV, all angles: {coefficient} of muons, laboratory"
            yield (
                label,
                lambdas_of(moments)[j],
                np.nan,
                np.nan,
                f"generator in the rest frames; error {errors[j]:.4f}",
            )
        flight = float(lambda_theta(0.0, mass, M_MU))
        yield f"{name} at {mass} GeV: λθ in the rest frame of the meson", flight, np.nan, np.nan, "transverse"
