"""The published NA62 contours against ours: tolerances from the inputs, mesons, isolation, observed event.

A tolerance is two standard deviations: the digitisation of the curve and half of what each input moves the
edge between the sides of its range, in quadrature.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.integrate import quad
from scipy.optimize import brentq
from validation._rows import row as _row

from gammastar import infer
from gammastar.core.constants import M_PI_CHARGED, M_PROTON
from gammastar.core.sampling import stream
from gammastar.infer.channel_limits import fft_cls
from gammastar.physics.bremsstrahlung import preset
from gammastar.predict.theory import Bremsstrahlung

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "na62_dump"))
import likelihood
import meson_study
import plane
import production
from cuts import Search
from published_edges import DIGITISED, OBSERVED, crossings, edges, vertices
from simulated_decays import signal_events, signal_scan
from validation import na62_statistics

LETTER, DIMUON = "NA62, arXiv:2312.12055, Fig. 4 digitised", "NA62, arXiv:2303.08666, as cited points"
POINTS = {
    "ee": (0.010, 0.015, 0.02, 0.03, 0.05, 0.07, 0.10, 0.15, 0.20, 0.30, 0.40, 0.45),
    "mumu": (0.25, 0.30, 0.35, 0.45, 0.50),
}
PT_MAX = (0.67, 1.5)  # GeV: a factor of 1.5 around the end of the bremsstrahlung kernel in pT
VOLUME = (102.0, 182.0)  # m, as ALPINIST has it
SHARE = 0.25  # relative error of the π⁰ share: the digitised edge at one mass


def _with_volume(search: Search, z: tuple[float, float]) -> Search:
    numbers = {**search.numbers, "vertex": {**search.numbers["vertex"], "z": list(z)}}
    volume = replace(search.detector.volume, z0=z[0], z1=z[1])
    return replace(search, numbers=numbers, detector=replace(search.detector, volume=volume))


def _brem(search: Search, state: str, mass: float, n: int, pt_max: float = 1.0) -> np.ndarray:
    """Return expected events of bremsstrahlung over `meson_study.COUPLINGS`."""
    rng = stream(31, state, f"{mass:.5f}")
    kernel = replace(preset("na62"), pt_max=pt_max)
    sample = Bremsstrahlung(kernel, production.BEAM, 1.0).produce(mass, n=n, rng=rng)
    made = signal_events(sample, mass, state, search.detector, search.card, rng=rng)
    pairs = meson_study.as_pairs(made.positive, made.negative, made.weight)
    dark, couplings = plane.model(), meson_study.COUPLINGS
    scan = signal_scan(made, *search.selected(pairs, state), dark.ctau(mass, couplings))
    return plane.POT * couplings**2 * dark.branching(mass)[state] * scan.selected


def rows(quick: bool) -> Iterator[dict]:
    n = 20_000 if quick else 60_000
    search = Search.read()
    made, verdicts = meson_study.study(search, n=n)
    by_name = {verdict.explanation.name: verdict for verdict in verdicts}
    share = by_name["π⁰ alone, with a factor"].value
    yield from _shares(search, made, n)
    yield from _explanations(by_name)
    yield from _edges(search, share, n)
    yield from _isolation(search, n)
    yield from _pions()
    yield from _projection(search, n)
    yield from _one_event()
    if not quick:
        yield from _notch(search)


def _shares(search: Search, made: meson_study.Decays, n: int) -> Iterator[dict]:
    """Yield the part of π⁰ that each edge holds against that at 30 to 70 MeV, and of the other mesons."""
    fitted = [meson_study.share_allowed(made["ee", m], "ee", m, ("pi0",)) for m in (0.03, 0.05, 0.07)]
    mean = float(np.mean([value for value, _ in fitted]))
    for mass in (0.010, 0.015, 0.02):
        values = []
        for side in ("low", "nominal", "high"):
            found = {
                group: meson_study.accepted(search.isolated_by(side), group, "ee", mass, n=n)
                for group in ("bremsstrahlung", "pi0")
            }
            values.append(meson_study.share_allowed(found, "ee", mass, ("pi0",)))
        half = 0.5 * abs(values[2][0] - values[0][0])
        label = f"part of our π⁰ that the lower edge of ee holds, {1e3 * mass:g} MeV; that at 30 to 70 MeV"
        tolerance = 2 * np.hypot(half, values[1][1])
        yield _row(label, values[1][0], mean, tolerance, f"{LETTER}; isolation over its range")
    for state, masses in (("ee", (0.15, 0.20, 0.25)), ("mumu", (0.23, 0.25, 0.30, 0.35))):
        found = [meson_study.share_allowed(made[state, m], state, m, ("others",)) for m in masses]
        value, error = np.array(found).T
        weight = error**-2
        mean = float((weight * value).sum() / weight.sum())
        label = f"part of our η and heavier mesons that the lower edge of {state} holds, bremsstrahlung full"
        source = LETTER if state == "ee" else DIMUON
        # digitisation errors of neighbouring masses are not independent: no root of the number of points
        yield _row(label, mean, 0.0, 2 * float(error.mean()), source)


def _explanations(found: dict[str, meson_study.Verdict]) -> Iterator[dict]:
    """Yield χ² of each reading; a reading that holds is near one per edge."""
    n = next(iter(found.values())).residual.size
    for name, verdict in found.items():
        number = f" {verdict.value:.3g} {verdict.explanation.unit}".rstrip() if verdict.value != 1 else ""
        kept = f"bremsstrahlung × {verdict.kept[0]:.2f}, mesons × {verdict.kept[1]:.3f}"
        row = _row(
            f"χ² of {n} published edges, {name}{number}: {kept}", verdict.chi2, n, np.nan, "digitisation"
        )
        yield row | {"measured": True}
    soft = found["soft pairs: both momenta above"]
    label = "least momentum that soft pairs need, lowest of 17 edges [GeV]; the letter asks for 10"
    yield _row(label, float(np.nanmin(soft.needed)), 10.0, np.nan, LETTER) | {"measured": True}


def _edges(search: Search, share: float, n: int) -> Iterator[dict]:
    for state, masses in POINTS.items():
        for mass in masses:
            base = _brem(search, state, mass, n)
            pions = np.zeros_like(base)
            if state == "ee" and (found := meson_study.accepted(search, "pi0", state, mass, n=n)):
                pions = found.signal()
            pairs = [
                [_brem(search.isolated_by(side), state, mass, n) + share * pions for side in ("low", "high")],
                [base + share * pions, _brem(_with_volume(search, VOLUME), state, mass, n) + share * pions],
                [_brem(search, state, mass, n, pt_max=pt) + share * pions for pt in PT_MAX],
                [base + share * (1 + sign * SHARE) * pions for sign in (-1, 1)],
            ]
            half = np.array(
                [0.5 * np.diff(meson_study.edges_of(np.array(pair)), axis=0)[0] for pair in pairs]
            )
            tolerance = 2 * np.sqrt(DIGITISED**2 + np.square(half).sum(axis=0))
            ours = meson_study.edges_of((base + share * pions)[None, :])[0]
            with_pions = f", {share:.3f} of our π⁰" if pions.any() else ""
            source = LETTER if state == "ee" else DIMUON
            for k, side in enumerate(("lower", "upper")):
                label = (
                    f"{state} contour at {mass:g} GeV, log10 of the {side} edge; bremsstrahlung{with_pions}"
                )
                row = _row(label, ours[k], edges(state, mass)[k], tolerance[k], source)
                # there the edge asks for an efficiency that the simulation does not give: next rows
                yield row | ({"measured": True} if state == "ee" and mass > 0.35 and k == 0 else {})
            if mass > 0.12:
                events = float(meson_study.at_lower_edge(base, state, mass))
                label = (
                    f"efficiency of {state} that the published lower edge asks for, {mass:g} GeV; 1 in ours"
                )
                value = likelihood.zero_event_limit() / events
                yield _row(f"{label}; 1 in ours", value, 1.0, np.nan, source) | {"measured": True}


def _isolation(search: Search, n: int) -> Iterator[dict]:
    """Yield the distance at the first chamber that the published upper edge of ee asks for below 20 MeV."""
    distances = np.array([0.01, 0.0125, 0.015, 0.0175, 0.02, 0.025, 0.03])
    for mass in (0.010, 0.015, 0.02):
        found = [
            meson_study.edges_of(_brem(replace(search, isolation=(d, 0.20)), "ee", mass, n)[None, :])[0, 1]
            for d in distances
        ]
        order = np.argsort(found)
        needed = np.interp(edges("ee", mass)[1], np.array(found)[order], distances[order])
        label = f"distance at the first chamber that the upper edge asks for, {1e3 * mass:g} MeV [m]"
        yield _row(label, needed, 0.02, 0.01, f"{LETTER}; range of the card")


def _pions() -> Iterator[dict]:
    """Compare our π⁰ with the fit of Bonesini et al. to measured π± from beryllium at 400 and 450 GeV.

    The fit is per nucleus; π⁰ = (π⁺ + π⁻)/2, over the inelastic cross section of beryllium.
    """
    beam = production.BEAM
    s = 2 * M_PROTON**2 + 2 * M_PROTON * beam
    boost = np.sqrt(beam**2 - M_PROTON**2) / (beam + M_PROTON)
    gamma = 1 / np.sqrt(1 - boost**2)
    inelastic = 192.0  # mb: A / (N_A λ) of beryllium, interaction length λ = 77.8 g/cm²

    def density(pt: float, p: float) -> float:
        pl, energy = np.sqrt(p**2 - pt**2), np.hypot(p, M_PI_CHARGED)
        star = np.hypot(pt, gamma * (pl - boost * energy))
        largest = (s - 1.88**2 + M_PI_CHARGED**2) / (2 * np.sqrt(s))
        x = np.hypot(star, M_PI_CHARGED) / largest
        if x >= 1:
            return 0.0
        a, b = 6.10 / x**0.153, 6.10**2 / (2 * x**0.478)
        plus = 62.3 * (1 - x) ** 3.45 * (1 + 1.57 * x) / x**0.517 * (1 + a * pt + b * pt**2) * np.exp(-a * pt)
        both = plus * (1 + 1 / (1.05 * (1 + x) ** 2.65))
        return 0.5 * both * 2 * np.pi * pt * p / (energy * pl)

    cells = production.Mesons.read().cells["pi0"]
    for low, high in ((40.0, 80.0), (80.0, 160.0)):
        inside = (cells[:, 0] >= low) & (cells[:, 1] <= high)
        edge = (cells[inside, 0].min(), cells[inside, 1].max())
        total = quad(lambda p: quad(density, 0, min(1.5, 0.99 * p), args=(p,))[0], *edge, epsrel=1e-3)[0]
        label = f"π⁰ per interaction of {edge[0]:.0f} to {edge[1]:.0f} GeV over half of measured π⁺ and π⁻"
        source = "fit of hep-ph/0101163 to data on beryllium, as in BdNMC; 20 % on either"
        yield _row(label, cells[inside, 4].sum() / (total / inelastic), 1.0, 0.30, source)


def _projection(search: Search, n: int) -> Iterator[dict]:
    """Yield our mesons at the edges of NA62's own projection of mesons alone, which holds 2.3 events."""
    points = vertices("na62_projection_mesons")
    source = "projection of NA62 in SensCalc (arXiv:2305.13383), mesons alone; 1e18 protons are inferred"
    for mass in (0.02, 0.05, 0.1, 0.2):
        found = [meson_study.accepted(search, group, "ee", mass, n=n) for group in ("pi0", "others")]
        signal = np.sum([a.signal() for a in found if a is not None], axis=0) * 1e18 / plane.POT
        for side, at in zip(("lower", "upper"), crossings(points, mass), strict=True):
            events = np.interp(at, np.log10(meson_study.COUPLINGS), np.log10(np.maximum(signal, 1e-30)))
            label = f"events of our mesons at the {side} edge of NA62's projection, {mass:g} GeV"
            yield _row(label, 10**events, 2.3, np.nan, source) | {"measured": True}


def _one_event() -> Iterator[dict]:
    """Yield the limit at the mass of the observed dimuon: 2.5 MeV resolution, 0.016 background."""

    def cls(signal: float, *, nuisances: bool) -> float:
        found = na62_statistics.observed_dimuon(0.411, signal, nuisances=nuisances)
        return float(fft_cls([found], fitted=nuisances).cls)

    value = brentq(lambda s: cls(s, nuisances=True) - 0.1, 2.0, 8.0, xtol=1e-3)
    label = "one-event limit at 411 MeV, POT κ = 1.2"
    yield _row(f"{label}, FFT at fitted nuisances", value, 4.27, 0.02, "independent profiled toys")
    one = na62_statistics.observed_dimuon(0.411, 1.0, nuisances=True)
    found = infer.exact_limit([one], rng=stream(5, "event"), precision=0.004)
    yield _row(
        f"{label}, profiled toys", found.events, 4.27, 0.02 + 3 * found.error, "independent profiled toys"
    )
    value = brentq(lambda s: cls(s, nuisances=False) - 0.1, 2.0, 8.0, xtol=1e-3)
    exact = brentq(lambda s: np.exp(-s) * (1 + s) - 0.1, 2.0, 8.0)
    source = "Poisson, e^−S (1 + S) = 0.1; the event lies at the peak and the background is 0.0007 under it"
    yield _row("one-event limit at 411 MeV, no nuisance", value, exact, 0.01, source)


def _notch(search: Search) -> Iterator[dict]:
    """Yield depth and width of the notch of the observed dimuon in our contour and in the published one."""
    masses = np.unique(np.r_[0.400, plane.EVENT, 0.4025, 0.40675, 0.41525, 0.4185, 0.425])
    made = plane.full_plane(search, masses=masses, modes=("bremsstrahlung",), states=("mumu",), n=60_000)
    reach = likelihood.contour(made, ("mumu",), modes=("bremsstrahlung",), precision=0.02).reach
    points = vertices(OBSERVED["mumu"])
    tip = int(points[:, 0].argmax())
    for k, side, line in ((0, "lower", points[tip:][::-1]), (1, "upper", points[: tip + 1])):
        part = line[(line[:, 0] > 0.39) & (line[:, 0] < 0.44)]
        depth, width = likelihood.notch(reach.mass, reach.edges[:, k], (0.400, 0.425))
        paper = likelihood.notch(part[:, 0], part[:, 1], (0.405, 0.4199))
        label = f"notch at 411 MeV, {side} edge"
        yield _row(f"{label}: depth, log10", depth, paper[0], 2 * np.sqrt(2) * DIGITISED, DIMUON)
        # the flanks of the published notch lie anywhere between neighbouring vertices, 5 MeV apart
        row = _row(f"{label}: full width at half depth [MeV]", 1e3 * width, 1e3 * paper[1], 4.75, DIMUON)
        yield row | {"measured": True}
