"""MOCK pairs for the flow: cocktail, combinatorial background, open charm, and truth at one mass."""

from __future__ import annotations

import numpy as np

from gammastar.core import constants
from gammastar.core.constants import M_MU, M_PI0
from gammastar.core.constants import mass as mass_of
from gammastar.core.files import data_path
from gammastar.core.pairs import MatchedPairs, Pairs
from gammastar.core.records import MASS, regular
from gammastar.mock.card import load_card
from gammastar.mock.cocktail import (
    dalitz_decay,
    generate_pairs,
    mass_density,
    mode_rates,
    momentum,
    rapidity_limit,
    sample_pt,
    truncated_normal,
    with_energy,
)
from gammastar.mock.combinatorial import decay_muons, measured_r, muon_pairs, recorded_weight
from gammastar.mock.ntuple import background_candidates, triggered
from gammastar.mock.spectrometer import accepted, efficiency, pair_kinematics
from gammastar.physics.mesons import beam_frame
from gammastar.physics.polarisation import daughter, lorentz
from gammastar.spectrum import efficiency_map
from gammastar.spectrum.normalise import EfficiencyMap
from gammastar.subtract.weights import event_weights

CARD = load_card(data_path("cards/na60_mock.toml"))
BEAM = CARD.beam.energy
RANGE = (0.2114, 1.2)  # GeV, masses that are learned
SPARSE = {"rho": 6.0, "eta_prime_dalitz": 10.0, "eta_dalitz": 0.5}  # more simulation where data are few
# Open charm per p-Pb interaction: 20 ub per nucleon and A^1, times muon pairs with both muons in the
# spectrometer (E > 3 GeV and angle) per c c-bar of Pythia 8.317 at 400 GeV. Shape: D mesons of NA27
# (LEBC-EHS) at 400 GeV, (1 - |x_F|)^5 exp(-pt^2/GeV^2), to K mu nu by phase space.
CHARM_ACCEPTED = 2.4e-3 * 1.45e-3
M_D, M_K = mass_of(411), mass_of(321)
CHARM_TEMPLATE = 5  # simulated charm over that of the data
CHUNK = 200_000
SHIELD, CONE = 5.0, (0.035, 0.120)  # m, rad: Appendix B of the data-driven paper


def pairs(n: int, rng: np.random.Generator, card=CARD) -> tuple[np.ndarray, np.ndarray]:
    """Return true (mass, pt, energy), shape (n, 3), in random order, and whether each is reconstructed."""
    made = generate_pairs(card, n, rng)
    kept = rng.permutation(np.flatnonzero((made.mass > RANGE[0]) & (made.mass < RANGE[1])))
    chance = efficiency(made.mass, made.pt, made.energy, CARD.efficiency)
    seen = accepted(made.plus, CARD.detector) & accepted(made.minus, CARD.detector)
    seen &= rng.random(n) < chance
    return np.column_stack([made.mass, made.pt, made.energy])[kept], seen[kept]


def measured_efficiency(rng: np.random.Generator, n: int = 16_000_000) -> EfficiencyMap:
    """Return the smooth efficiency from simulation of another prior; of lost pairs one in ten is kept."""
    card = CARD.with_prior("varied")
    modes = {
        key: mode.model_copy(update={"branching": mode.branching * SPARSE.get(key, 1.0)})
        for key, mode in card.modes.items()
    }
    card = card.model_copy(update={"modes": modes})
    parts = []
    for _ in range(n // 2_000_000):  # in parts, for the memory
        true, seen = pairs(2_000_000, rng, card)
        keep = seen | (rng.random(len(seen)) < 0.1)
        parts.append((true[keep], seen[keep]))
    true, seen = (np.concatenate(column) for column in zip(*parts, strict=True))
    weight = np.where(seen, 1.0, 10.0)
    reco = np.where(seen[:, None], true, np.nan)
    none = np.empty(0)
    return efficiency_map(MatchedPairs(true, reco, weight, np.arange(len(true)), np.empty((0, 3)), none))


def truth_at(mass: float, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return pt and energy of n virtual photons of the cocktail at exactly one mass."""
    rates = mode_rates(CARD)
    share = np.array(
        [
            r * float(mass_density(CARD.modes[k], CARD.mesons[CARD.modes[k].meson].pdg, mass))
            for k, r in rates.items()
        ]
    )
    counts = rng.multinomial(n, share / share.sum())
    parts = [_photons(CARD.modes[k], mass, int(c), rng) for k, c in zip(rates, counts, strict=True)]
    photon = np.concatenate(parts, axis=1)
    return np.hypot(photon[0], photon[1]), photon[3]


def _photons(mode, mass: float, n: int, rng: np.random.Generator) -> np.ndarray:
    meson = CARD.mesons[mode.meson]
    dalitz = mode.kind in {"pseudoscalar_dalitz", "vector_dalitz"}
    parent_mass = constants.mass(meson.pdg) if dalitz else mass
    sqrt_s, y_cm = beam_frame(BEAM)
    u = rng.random((3, n))
    pt = np.minimum(sample_pt(meson.p0, meson.n, u[0]), 0.4 * sqrt_s)
    limit = rapidity_limit(sqrt_s, parent_mass, np.hypot(parent_mass, pt))
    y = truncated_normal(meson.y_width, -limit, limit, u[1]) + y_cm
    parent = momentum(parent_mass, pt, y, 2.0 * np.pi * u[2])
    if not dalitz:
        return parent
    recoil = M_PI0 if mode.kind == "vector_dalitz" else 0.0
    return dalitz_decay(parent, parent_mass, np.full(n, mass), recoil, rng)[0]


def appendix_b(mass, pt, energy, ctau: np.ndarray, weight=None) -> tuple[np.ndarray, np.ndarray]:
    """Return the acceptance of Eq. B1 at every decay length [m] and its statistical error."""
    momentum_ = np.sqrt((energy - mass) * (energy + mass))
    angle = np.arcsin(np.clip(pt / momentum_, 0.0, 1.0))
    inside = (angle > CONE[0]) & (angle < CONE[1])
    weight = np.ones(len(pt)) if weight is None else weight
    share, gamma_beta = weight[inside] / weight.sum(), momentum_[inside] / mass
    survival = np.exp(-SHIELD / (gamma_beta * ctau[:, None]))
    mean = survival @ share
    square = survival**2 @ share**2
    return mean, np.sqrt(np.maximum(square - mean**2 / len(pt), 0.0))


def charm(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return (mass, pt, energy) of recorded muon pairs of D D-bar decays, of n with both muons accepted."""
    _, y_cm = beam_frame(BEAM)
    p_max = 0.5 * beam_frame(BEAM)[0]
    parts, total = [], 0
    while total < n:
        muons = []
        for _ in range(2):  # pt and x_F of the two D mesons are taken as independent
            pt = np.sqrt(rng.exponential(1.0, CHUNK))
            x = (1.0 - rng.random(CHUNK) ** (1.0 / 6.0)) * rng.choice([-1.0, 1.0], CHUNK)
            y = np.arcsinh(x * p_max / np.hypot(M_D, pt)) + y_cm
            parent = momentum(M_D, pt, y, rng.uniform(-np.pi, np.pi, CHUNK))
            muons.append(lorentz(_semileptonic(CHUNK, rng), parent, np.full(CHUNK, M_D)))
        inside = accepted(muons[0], CARD.detector) & accepted(muons[1], CARD.detector)
        parts.append(np.column_stack(pair_kinematics(*muons))[inside])
        total += int(inside.sum())
    values = np.concatenate(parts)[:n]
    return values[rng.random(len(values)) < efficiency(*values.T, CARD.efficiency)]


def _semileptonic(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return muons of D → K mu nu in the rest frame of the D: three-body phase space, shape (4, n)."""
    out = np.empty((4, 0))
    while out.shape[1] < n:
        q2 = rng.uniform(M_MU**2, (M_D - M_K) ** 2, 2 * n)
        w = np.sqrt(q2)
        p_w = np.sqrt((M_D**2 - (w + M_K) ** 2) * (M_D**2 - (w - M_K) ** 2))
        density = p_w * (1.0 - M_MU**2 / q2)
        kept = rng.random(2 * n) * 1.05 * (M_D**2 - M_K**2) < density
        w = w[kept]
        angles = rng.uniform(-1.0, 1.0, (2, len(w))), rng.uniform(-np.pi, np.pi, (2, len(w)))
        rest = np.stack([np.zeros(len(w)), np.zeros(len(w)), np.zeros(len(w)), np.full(len(w), M_D)])
        virtual = daughter(rest, np.full(len(w), M_D), w, M_K, angles[0][0], angles[1][0])
        muon = daughter(virtual, w, M_MU, 0.0, angles[0][1], angles[1][1])
        out = np.concatenate([out, muon], axis=1)
    return out[:, :n]


def combinatorial(n_opposite: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return recorded pairs of decay muons and their charge sums; n_opposite of opposite sign."""
    made = muon_pairs(decay_muons(CARD, 200_000, rng), rng)
    expected = n_opposite / float(recorded_weight(CARD, made)[made.charge == 0].sum())
    found = background_candidates(made, expected, 0.0, rng)
    found = found.take(np.flatnonzero(triggered(CARD, found, rng)))
    p = with_energy(found.p[:, :2])
    mass, pt, energy = pair_kinematics(p[:, 0], p[:, 1])
    values = np.column_stack([mass, pt, energy])
    inside = (mass > RANGE[0]) & (mass < RANGE[1]) & (energy < BEAM)
    return values[inside], found.charge[:2].sum(axis=0)[inside]


def contaminated(
    n: int, rng: np.random.Generator, *, fraction: float = 0.10
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return recorded pairs and their weights before 1/ε: signal, with background, subtracted, with charm.

    "charm removed" holds the pairs of a template of known yield with negative weights.

    `n` signal pairs; the background makes up `fraction` of the opposite-sign pairs. R comes from other
    simulated events.
    """
    per_pass, parts, total = 2_000_000, [], 0
    generated = 0
    while total < n:
        true, seen = pairs(per_pass, rng)
        parts.append(true[seen])
        total, generated = total + int(seen.sum()), generated + per_pass
    signal = np.concatenate(parts)[:n]
    exposure = generated * n / total / sum(mode_rates(CARD).values())  # interactions of these signal pairs
    values, charge = combinatorial(fraction / (1.0 - fraction) * n, rng)
    r_factor = measured_r(CARD, 200_000, rng)[0]
    n_charm = int(exposure * CHARM_ACCEPTED)
    extra, template = (_in_range(charm(times * n_charm, rng)) for times in (1, CHARM_TEMPLATE))
    left = _subtracted([signal, extra, values], charge, r_factor)
    removed = np.full(len(template), -1.0 / CHARM_TEMPLATE)
    return {
        "signal": (signal, np.ones(len(signal))),
        "with background": _joined([signal, values[charge == 0]]),
        "subtracted": _subtracted([signal, values], charge, r_factor),
        "subtracted, with charm": left,
        "charm removed": (np.concatenate([left[0], template]), np.append(left[1], removed)),
    }


def _in_range(values: np.ndarray) -> np.ndarray:
    return values[(values[:, 0] > RANGE[0]) & (values[:, 0] < RANGE[1]) & (values[:, 2] < BEAM)]


def _joined(parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    values = np.concatenate(parts)
    return values, np.ones(len(values))


def _subtracted(
    parts: list[np.ndarray], charge: np.ndarray, r_factor: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs with signed weights; `charge` is of the last part, the others are of opposite sign."""
    values = np.concatenate(parts)
    all_charges = np.zeros(len(values), dtype=np.int8)
    all_charges[len(values) - len(charge) :] = charge
    table = Pairs(*values.T.copy(), all_charges, np.ones(len(values)), np.arange(len(values)))
    axis = regular(MASS, 20, *RANGE)
    return values, event_weights(table, (axis,), r_factor=r_factor)
