"""e+e− → A'* → ψ_i ψ_j of semi-visible dark photons against Dirac matrices, phase space and quadrature."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.integrate import quad
from validation._rows import row as _row

from gammastar import semivisible
from gammastar.core.constants import ALPHA, GEV2_MB
from gammastar.core.sampling import stream
from gammastar.semivisible import babar, models
from gammastar.semivisible.cascade import Cascade, decay
from gammastar.semivisible.decays import dark_widths, decay_table
from gammastar.semivisible.models import DarkSector, mediator_widths
from gammastar.semivisible.production import s_channel_cross_section, sample_photons

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "semivisible"))
import belle2

METRIC = np.diag([1.0, -1.0, -1.0, -1.0])
FB = GEV2_MB * 1e12
EVENTS = 100_000


def rows(*, quick: bool) -> Iterator[dict]:
    yield from _pairs(quick=quick)
    yield from _displaced(quick=quick)
    yield from _at_once()


def gammas() -> tuple[list[np.ndarray], np.ndarray]:
    """Return γ^μ and γ₅ in the representation of Dirac."""
    one, zero = np.eye(2), np.zeros((2, 2))
    pauli = [np.array([[0, 1], [1, 0]]), np.array([[0, -1j], [1j, 0]]), np.diag([1, -1])]
    gamma = [np.block([[one, zero], [zero, -one]]).astype(complex)]
    gamma += [np.block([[zero, sigma], [-sigma, zero]]) for sigma in pauli]
    return gamma, 1j * gamma[0] @ gamma[1] @ gamma[2] @ gamma[3]


def _slash(p: np.ndarray) -> np.ndarray:
    return sum(METRIC[k, k] * p[k] * g for k, g in enumerate(gammas()[0]))


def squared(sector: DarkSector, pair: tuple[int, int], sqrt_s: float, cosine: float) -> float:
    """Return L_μν H^μν of e+e− → ψ_i ψ_j, summed over spins, couplings e, ε and g_D taken out."""
    gamma, five = gammas()
    i, j = pair
    m_i, m_j = sector.masses[i], sector.masses[j]
    e_i = (sqrt_s**2 + m_i**2 - m_j**2) / (2 * sqrt_s)
    p, sine = np.sqrt(e_i**2 - m_i**2), np.sqrt(1 - cosine**2)
    one = _slash(np.array([e_i, p * sine, 0, p * cosine])) + m_i * np.eye(4)
    other = _slash(np.array([sqrt_s - e_i, -p * sine, 0, -p * cosine])) - m_j * np.eye(4)
    minus = _slash(0.5 * sqrt_s * np.array([1, 0, 0, 1]))
    plus = _slash(0.5 * sqrt_s * np.array([1, 0, 0, -1]))
    dark = [g @ (sector.vector[i, j] * np.eye(4) - sector.axial[i, j] * five) for g in gamma]
    barred = [gamma[0] @ v.conj().T @ gamma[0] for v in dark]
    hadronic = np.array([[np.trace(one @ a @ other @ b) for b in barred] for a in dark])
    leptonic = np.array([[np.trace(plus @ a @ minus @ b) for b in gamma] for a in gamma])
    return float(np.einsum("ab,ac,bd,cd", hadronic, METRIC, METRIC, leptonic).real)


def cross_section(sector: DarkSector, pair: tuple[int, int], sqrt_s: float, width: float) -> float:
    """Return σ(e+e− → ψ_i ψ_j) per ε² [fb] by quadrature over the angle; both charges of a Dirac pair."""
    i, j = pair
    m_i, m_j = sector.masses[i], sector.masses[j]
    if m_i + m_j >= sqrt_s:
        return 0.0
    e_i = (sqrt_s**2 + m_i**2 - m_j**2) / (2 * sqrt_s)
    flux = np.sqrt(e_i**2 - m_i**2) / sqrt_s / (16 * np.pi) / sqrt_s**2  # p_f/p_i / 32πs
    total = quad(lambda c: squared(sector, pair, sqrt_s, c), -1, 1, epsrel=1e-8)[0]
    charge = (4 * np.pi) ** 2 * ALPHA * sector.alpha_d
    propagator = (sqrt_s**2 - sector.mediator**2) ** 2 + (sector.mediator * width) ** 2
    same = 0.5 if sector.field == "majorana" else 1.0
    factor = same if i == j else 1.0 if sector.field == "majorana" else 2.0
    return float(factor * 0.25 * charge * flux * total / propagator * FB)


def dark_width(sector: DarkSector, j: int, i: int, pair: tuple[int, int]) -> float:
    """Return Γ(ψ_j → ψ_i A'* → ψ_i ψ_k ψ_l), transverse propagator: spins summed, phase space by scipy."""
    gamma, five = gammas()
    m_j, m_i, m_k, m_l = (sector.masses[x] for x in (j, i, *pair))
    total = float(mediator_widths(sector)[1].sum())

    def vertices(a: int, b: int) -> tuple[list, list]:
        found = [g @ (sector.vector[a, b] * np.eye(4) - sector.axial[a, b] * five) for g in gamma]
        return found, [gamma[0] @ v.conj().T @ gamma[0] for v in found]

    (one, one_bar), (two, two_bar) = vertices(i, j), vertices(*pair)
    projector = np.diag([0.0, -1.0, -1.0, -1.0])  # −g + qq/s where the pair is at rest, up to the sign

    def rate(cosine: float, s: float) -> float:
        root = np.sqrt(s)
        e_j = (m_j**2 - m_i**2 + s) / (2 * root)
        p = np.sqrt(max(e_j**2 - m_j**2, 0.0))
        e_k = (s + m_k**2 - m_l**2) / (2 * root)
        q, sine = np.sqrt(max(e_k**2 - m_k**2, 0.0)), np.sqrt(1 - cosine**2)
        parent = _slash(np.array([e_j, 0, 0, p])) + m_j * np.eye(4)
        child = _slash(np.array([e_j - root, 0, 0, p])) + m_i * np.eye(4)
        first = _slash(np.array([e_k, q * sine, 0, q * cosine])) + m_k * np.eye(4)
        second = _slash(np.array([root - e_k, -q * sine, 0, -q * cosine])) - m_l * np.eye(4)
        heavy = np.array([[np.trace(child @ a @ parent @ b) for b in one_bar] for a in one])
        light = np.array([[np.trace(first @ a @ second @ b) for b in two_bar] for a in two])
        contracted = np.einsum("ab,ac,bd,cd", heavy, projector, projector, light).real
        propagator = (s - sector.mediator**2) ** 2 + (sector.mediator * total) ** 2
        two_body = p * root / m_j / (4 * np.pi * m_j) * q / (4 * np.pi * root)  # of ψ_j and of the pair
        return 0.5 * contracted / propagator * two_body / (2 * np.pi) / (2 * m_j) / 2

    charge = (4 * np.pi * sector.alpha_d) ** 2
    nodes = np.polynomial.legendre.leggauss(4)  # exact: the rate is a quadratic in the cosine
    span = (m_k + m_l) ** 2, (m_j - m_i) ** 2
    value = quad(lambda s: sum(w * rate(c, s) for c, w in zip(*nodes, strict=True)), *span, epsrel=1e-4)[0]
    same = {"majorana": (0.5, 1.0), "dirac": (1.0, 2.0)}[sector.field]
    return float(charge * value) * (same[0] if pair[0] == pair[1] else same[1])


def four_states(mediator: float = 1.0) -> DarkSector:
    """Return four Majorana states with vertices of all phases; some pairs only the collision makes."""
    mass = [
        [0.28, 0.08, 0.05, 0.03],
        [0.08, 0.4, 0.1j, 0.04],
        [0.05, 0.1j, 0.45, 0.06],
        [0.03, 0.04, 0.06, 0.6],
    ]
    return models.from_majorana("four states", mass, [0.0, 1.0, -1.0, 0.5], mediator=mediator, alpha_d=0.2)


def _pairs(*, quick: bool) -> Iterator[dict]:
    """Yield cross-sections, shares of states and angles at BaBar, on and off the shell of the dark photon."""
    card = semivisible.load_babar()
    point = semivisible.load_benchmark("AHP2020-B")
    sectors = {
        "AHP2020-B, 1.25 GeV": point.sector(),
        "AHP2020-B, 0.3 GeV": point.sector(0.3),
        "AHP2020-B, 0.2 GeV": point.sector(0.2),
        "i2DM-talk, 1.25 GeV": semivisible.load_benchmark("i2DM-talk").sector(1.25),
        "four states, 1 GeV": four_states(),
    }
    source = "Dirac matrices, phase space, quadrature"
    n = EVENTS // 5 if quick else EVENTS
    for name, sector in sectors.items():
        pairs = mediator_widths(replace(sector, mediator=card.sqrt_s))[0]
        width = float(mediator_widths(sector)[1].sum())
        truth = np.array([cross_section(sector, tuple(p), card.sqrt_s, width) for p in pairs])
        ours = s_channel_cross_section(sector, card.sqrt_s)
        worst = float(np.abs(ours / truth - 1.0).max())
        shut = len(pairs) - len(mediator_widths(sector)[0])
        text = f"σ(ee→A′*→ψψ), {name}, {len(pairs)} pairs, {shut} of them closed at M: largest deviation"
        yield _row(text, worst, 0.0, 1e-7, source)
        table = decay_table(sector, at=card.sqrt_s)
        events = babar.s_channel_cascades(sector, card, n, stream(1, name))
        top = len(sector.masses) - 1
        direct = events.filled & (events.source < 0) & (events.state == top)
        share = truth[(pairs == top).any(axis=1)].sum() / truth.sum()
        tolerance = 3.0 * np.sqrt(share * (1.0 - share) / n)
        text = f"events with ψ{top + 1} from A′*, {name}"
        yield _row(text, direct.any(axis=1).mean(), share, tolerance, source)
        k = int(np.argmax(truth))
        pair = tuple(int(x) for x in pairs[k])
        moments = [
            quad(lambda c, q=q, s=sector, p=pair: c**q * squared(s, p, card.sqrt_s, c), -1, 1)[0]
            for q in (0, 2)
        ]
        a, b = table.pair_angle[k]
        mean = (a / 3 + b / 5) / (a + b / 3)
        text = f"⟨cos²θ*⟩ of ψ{pair[0] + 1}ψ{pair[1] + 1}, {name}"
        yield _row(text, mean, moments[1] / moments[0], 1e-7, source)


def counted(
    events: Cascade, card: belle2.DisplacedSearch, epsilon: float, rng: np.random.Generator
) -> np.ndarray:
    """Return in which events a pair counts, every decay placed in space, shape (n,)."""
    place = np.zeros((*events.state.shape, 2))
    found = np.zeros(len(events), dtype=bool)
    for slot in range(events.state.shape[1]):
        filled, parent = events.filled[:, slot], events.parent[:, slot]
        start = np.where((events.source[:, slot] >= 0)[:, None], place[:, slot - 1], 0.0)
        p = np.sqrt((parent[:, :3] ** 2).sum(axis=1))
        length = rng.exponential(1.0, len(events)) * events.flight(epsilon)[:, slot]
        way = np.where(filled, length / np.where(filled, p, 1.0), 0.0)
        place[:, slot] = start + way[:, None] * parent[:, :2]
        radius = np.hypot(*place[:, slot].T)
        good = filled & (radius > card.radius_min) & (radius < card.radius_max)
        for lepton in (events.particle[:, slot], events.antiparticle[:, slot]):
            theta = np.degrees(np.arctan2(np.hypot(lepton[:, 0], lepton[:, 1]), lepton[:, 2]))
            good &= (card.theta_min < theta) & (theta < card.theta_max) & (lepton[:, 3] > card.threshold)
        found |= good
    return found


def _displaced(*, quick: bool) -> Iterator[dict]:
    """Yield displaced pairs at Belle II with all steps of the cascade, and what the s-channel adds."""
    card = belle2.load_displaced()
    n = EVENTS // 5 if quick else EVENTS
    for name, mass in (("AHP2020-B", 1.25), ("four states", 1.0)):
        sector = four_states() if name == "four states" else semivisible.load_benchmark(name).sector(mass)
        for kind in ("with a photon", "s-channel"):
            rng = stream(7, name, kind)
            if kind == "s-channel":
                events = babar.s_channel_cascades(sector, card, n, rng)
            else:
                dark = sample_photons(mass, card.sqrt_s, card.cos_max, n, rng)[1]
                events = decay(decay_table(sector), dark, rng, boost=card.boost)
            for epsilon in (3e-4, 3e-3, 2e-2):
                placed = counted(events, card, epsilon, rng).mean()
                ours = belle2.displaced_probability(events, card, [epsilon], rng)[0]
                tolerance = 3.0 * np.sqrt(2.0 * placed * (1.0 - placed) / n) + 3.0 / n
                text = f"Belle II, {name} {kind}, ε = {epsilon:g}: displaced pair in an event"
                yield _row(text, ours, placed, tolerance, "positions of all decays drawn")
    sector = semivisible.load_benchmark("AHP2020-B").sector()
    model, epsilon = (lambda _: sector), np.array([1e-2])
    setting = semivisible.Options(n=n)
    photon, both = (
        float(
            belle2.displaced_plane(
                model, np.array([1.25]), epsilon, options=replace(setting, s_channel=share)
            )[0, 0]
        )
        for share in (0.0, 1.0)
    )
    text = "Belle II, AHP2020-B, ε = 1e-2, 50/ab: events of the s-channel over those with a photon"
    yield _row(text, both / photon - 1.0, np.nan, 0.0, "talk: sensitivity can be much better") | {
        "measured": True
    }


def _at_once() -> Iterator[dict]:
    """Yield decays to three dark states, and with a dark photon on its shell."""
    couplings = [((1, 2), 0.8, 0.3), ((2, 3), 0.4, 0.6)]
    for field in ("majorana", "dirac"):
        sector = models.from_couplings(
            "tree", [0.02, 0.10, 0.5], couplings, field=field, mediator=1.25, alpha_d=0.2
        )
        ratio = dark_widths(sector)[2] / dark_width(sector, 2, 1, (0, 1))
        text = f"Γ(ψ₃ → ψ₂ψ₁ψ₂), {field} states of 20, 100 and 500 MeV, A′ of 1.25 GeV"
        yield _row(text, ratio, 1.0, 3e-4, "Dirac matrices, three-body phase space")
    sector = models.from_couplings(
        "tree", [0.02, 0.10, 0.5], couplings, field="majorana", mediator=0.2, alpha_d=1e-3
    )
    p = np.sqrt((0.25 - 0.09) * (0.25 - 0.01))
    both = 0.26 - 2 * 0.04 + 0.24**2 / 0.04
    squared = 4 * np.pi * 1e-3 * ((0.16 + 0.36) * both - 6 * 0.05 * (0.16 - 0.36))
    expected = p / (8 * np.pi * 0.25) * squared
    text = "Γ(ψ₃ → ψ₂A′), A′ of 200 MeV on its shell, Γ/M = 2e-4"
    yield _row(text, dark_widths(sector)[2] / expected, 1.0, 1e-3, "two-body decay, polarisations summed")
