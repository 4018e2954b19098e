"""The same-sign background: real resonances, pulls of toys, the signed weights, R and its error."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import awkward as ak
import numpy as np
from validation import subtract_mock, training_weights
from validation.read import PARKED, pairs_of

from gammastar.core.constants import M_MU
from gammastar.core.pairs import Pairs
from gammastar.core.records import PairHists, filled, regular, variable
from gammastar.core.sampling import stream
from gammastar.select import fill, pairs
from gammastar.subtract import (
    LowCountWarning,
    Pool,
    bootstrap_covariance,
    control_ratio,
    event_weights,
    fit_charm,
    mixed_pairs,
    negative_yields,
    r_factor,
    same_sign,
)
from gammastar.subtract.weights import charge_factors

WINDOWS = (
    ("J/ψ, 2.9–3.3 GeV", (2.9, 3.3), 94, 77.9, 10.6),
    ("Z, 81–101 GeV", (81.0, 101.0), 101, 91.2, 10.5),
)
POISSON = "exact Poisson sums"
TOYS = "toys around a known expectation"


def rows(*, quick: bool) -> Iterator[dict]:
    yield from _real()
    yield from _pulls(400 if quick else 1500)
    yield from _low_counts()
    yield from _weights()
    yield from _r_factor()
    yield from _mixing(100_000 if quick else 3_000_000)
    yield from _charm(20 if quick else 100)
    yield from subtract_mock.rows(quick=quick)
    yield from training_weights.rows(quick=quick)
    if not quick:
        yield from _bootstrap()


def _real() -> Iterator[dict]:
    pairs = pairs_of("doublemuparked", PARKED)
    source = "CMS open data, counted in the file"
    for label, (low, high), n_os, value, error in WINDOWS:
        hists = fill(pairs, (regular("mass", 1, low, high),))
        with warnings.catch_warnings():  # a handful of like-sign pairs: 2√(N++ N--) is what was published
            warnings.simplefilter("ignore", LowCountWarning)
            result = same_sign(hists, method="geometric mean")
        found = (hists.os.sum().value, result.values[0], np.sqrt(result.cov[0, 0]))
        quantities = (
            ("+− pairs", n_os, 0.0),
            ("+− minus 2√(N₊₊N₋₋)", value, 0.05),
            ("its error", error, 0.05),
        )
        for (name, expected, tolerance), ours in zip(quantities, found, strict=True):
            yield _row(f"{label}: {name}", ours, expected, tolerance, source)
    label = "DoubleMuParked 0.2–0.6 GeV: yield over error (split tracks, no ghost veto)"
    (alarm,) = negative_yields(
        same_sign(fill(pairs, (regular("mass", 1, 0.2, 0.6),)), method="geometric mean")
    )
    yield _row(label, alarm.value / alarm.sigma, -4.0, 0.1, source)


def _hists(axes: tuple, *contents: np.ndarray) -> PairHists:
    return PairHists(*(filled(axes, np.asarray(n, float), np.asarray(n, float)) for n in contents))


def _pulls(n_toys: int) -> Iterator[dict]:
    """48 cells, b/s from 0.1 to 2, charge ratio 1.6, R from 0.9 to 1.2."""
    n_cells = 48
    x = (np.arange(n_cells) + 0.5) / n_cells
    combinatorial = 30 + 250 * x * np.exp(-3 * x)
    signal = combinatorial / (0.1 + 1.9 * x)
    pp, mm = combinatorial / 2 * np.sqrt(1.6), combinatorial / 2 / np.sqrt(1.6)
    r = np.linspace(0.9, 1.2, n_cells)
    axes = (regular("mass", n_cells, 0.2, 1.1),)
    for method, name in (
        ("regions", "charge ratio on a coarse grid"),
        ("geometric mean", "charge ratio per cell"),
    ):
        rng = stream(3, "pulls", method)
        toys = [rng.poisson(n, (n_toys, n_cells)) for n in (signal + 2 * r * np.sqrt(pp * mm), pp, mm)]
        results = [
            same_sign(_hists(axes, *toy), method=method, r_factor=r) for toy in zip(*toys, strict=True)
        ]
        pull = np.array([(s.values - signal) / np.sqrt(np.diag(s.cov)) for s in results])
        yield _row(f"{method}, {name}: mean pull, {n_cells} cells", pull.mean(), 0, 0.1, TOYS)
        width = pull.std(axis=0, ddof=1).mean()
        yield _row(f"{method}: width of pulls, mean over cells", width, 1, 0.05, TOYS)
        yield _row(f"{method}: coverage of ±1σ", np.mean(np.abs(pull) < 1), 0.683, 0.03, TOYS)
        total = [(s.values.sum() - signal.sum()) / np.sqrt(s.cov.sum()) for s in results]
        tolerance = max(0.05, 3 / np.sqrt(2 * n_toys))
        yield _row(f"{method}: width of pulls of the sum", np.std(total, ddof=1), 1, tolerance, TOYS)


def _low_counts() -> Iterator[dict]:
    one_region = np.zeros(500, dtype=np.int64)
    for mean, bias in ((0.25, -0.78), (0.5, -0.62), (1, -0.40), (2, -0.20), (5, -0.057)):
        rng = stream(4, "low", mean)
        pp, mm = (rng.poisson(mean, (400, 500)).astype(float) for _ in range(2))
        for method, expected, tolerance in (("geometric mean", bias, 0.01), ("regions", 0.0, 0.01)):
            f_pp, f_mm = charge_factors(pp, mm, method, one_region)
            ours = (f_pp * pp + f_mm * mm).sum(axis=1).mean() / (1000 * mean) - 1
            yield _row(
                f"{method}: bias of the background at {mean} pairs a cell", ours, expected, tolerance, POISSON
            )


def _toy_pairs(rng: np.random.Generator, n: int) -> Pairs:
    charge = rng.choice(np.array([0, 2, -2], np.int8), size=n, p=[0.6, 0.25, 0.15])
    weight = rng.uniform(0.5, 2, n)
    return Pairs(
        rng.uniform(0.1, 1.2, n), rng.uniform(0, 2, n), np.full(n, 30.0), charge, weight, np.arange(n)
    )


def _weights() -> Iterator[dict]:
    pairs = _toy_pairs(stream(5, "weights"), 20_000)
    axes = (regular("mass", 10, 0.2, 1.1), regular("pt", 4, 0, 2))
    edges = [axis.edges for axis in axes]
    r = np.linspace(0.9, 1.3, 40).reshape(10, 4)
    for method in ("geometric mean", "regions"):
        weight = event_weights(pairs, axes, method=method, r_factor=r)
        exact = same_sign(fill(pairs, axes), method=method, r_factor=r)
        found = np.histogram2d(pairs.mass, pairs.pt, edges, weights=weight)[0]
        error = np.abs(found - exact.values).max() / found.max()
        yield _row(f"{method}: histogram of signed weights against the formula", error, 0, 1e-12, "identity")
        if method == "geometric mean":
            square = np.histogram2d(pairs.mass, pairs.pt, edges, weights=weight**2)[0].ravel()
            error = np.abs(square / np.diag(exact.cov) - 1).max()
            yield _row("geometric mean: Σw² against the variance", error, 0, 1e-12, "identity")


def _r_factor() -> Iterator[dict]:
    axes = (regular("mass", 2, 0.2, 1.1),)
    hists = _hists(axes, [900, 700], [160, 100], [90, 64])
    loose, exact = (
        same_sign(hists, method="geometric mean", r_factor=1.2, r_factor_sigma=s) for s in (0.05, 0.0)
    )
    shared = (loose.cov - exact.cov)[0, 1]
    yield _row("σ(R) = 0.05: covariance of two cells", shared, 0.05**2 * 240 * 160, 1e-9, "(σ_R/R)² B₁B₂")
    rng = stream(14, "bernoulli")
    plus, minus = ((rng.random((2, 2_000_000)) < [[0.35], [0.175]]).sum(axis=0) for _ in range(2))
    sub = _hists(
        (regular("mass", 1, 0.2, 1.1),),
        *([np.sum(n)] for n in (plus * minus, plus * (plus - 1) / 2, minus * (minus - 1) / 2)),
    )
    ratio, _ = control_ratio(sub, np.array([True]))
    yield _row("sub-Poisson singles: control ratio +− over background", ratio, 2.25, 0.05, "(⟨n⟩²/⟨n(n−1)⟩)")


def _leptons(rng: np.random.Generator, plus: np.ndarray, minus: np.ndarray, *, asymmetric: bool) -> Pool:
    """Return muons whose acceptance depends on the charge, as toroids make it."""
    charge = np.repeat(np.array([1, -1], np.int8), [plus.sum(), minus.sum()])
    event = np.concatenate([np.repeat(np.arange(len(k)), k) for k in (plus, minus)])
    n = len(charge)
    pt, eta, phi = rng.gamma(2, 0.25, n), rng.uniform(2.5, 4.2, n), rng.uniform(0, 2 * np.pi, n)
    chance = np.where(charge > 0, 0.75 * (1 - np.exp(-pt / 0.35)), 0.60 * (1 - np.exp(-pt / 0.5)))
    chance *= (1 + 0.3 * charge * np.cos(phi)) / 1.3
    keep = rng.random(n) < (chance if asymmetric else 0.5)
    p = np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), np.full(n, M_MU)], axis=1)
    return Pool(p[keep], charge[keep], event[keep], np.zeros(int(keep.sum()), np.int64))


def _same_event(pool: Pool, axes: tuple) -> PairHists:
    """Pair the leptons of each event with the pair loop."""
    order = np.argsort(pool.event, kind="stable")
    _, counts = np.unique(pool.event, return_counts=True)
    names = ("px", "py", "pz", "mass")
    columns = {name: pool.momentum[order, k] for k, name in enumerate(names)}
    lepton = ak.unflatten(ak.zip(columns | {"charge": pool.charge[order].astype(float)}), counts)
    number = np.arange(len(counts))
    events = ak.zip({"lepton": lepton, "event": number, "weight": np.ones(len(counts))}, depth_limit=1)
    return fill(pairs(events)[0], axes)


def _mixing(n_events: int) -> Iterator[dict]:
    """R of mixed events; independent leptons of both charges; binomial instead of Poisson multiplicities."""
    axes, everything = (regular("mass", 9, 0.2, 2.0),), np.ones(9, dtype=bool)
    for label, asymmetric in (("symmetric acceptance", False), ("asymmetric acceptance", True)):
        rng = stream(16, label)
        numbers = (rng.poisson(0.6, n_events), rng.poisson(0.45, n_events))
        pool = _leptons(rng, *numbers, asymmetric=asymmetric)
        mixed = mixed_pairs(pool, n_events, rng=rng)
        if not asymmetric:
            r, sigma = r_factor(mixed, axes)
            yield _row(
                f"mixed events, {label}: R", r[0], 1, 3 * sigma[0], "convention: 3σ of the pool's events"
            )
            continue
        edges = {"mass": axes[0].edges}
        r, sigma = r_factor(mixed, axes, coarse=edges)
        hists = _same_event(pool, axes)
        ratio, error = control_ratio(hists, everything, r_factor=r)
        error = np.hypot(error, np.average(sigma / r, weights=hists.os.values()))
        yield _row(f"independent leptons, {label}: +− over background", ratio, 1, 3 * error, "3σ")
    rng = stream(17, "trap")
    plus, minus = ((rng.random((2, n_events)) < [[0.35], [0.175]]).sum(axis=0) for _ in range(2))
    pool = _leptons(rng, plus, minus, asymmetric=True)
    r, _ = r_factor(mixed_pairs(pool, n_events, rng=rng), axes)
    ratio, error = control_ratio(_same_event(pool, axes), everything, r_factor=r)
    tolerance = max(0.05, 3 * error)
    yield _row("binomial parents, R of mixing: control ratio", ratio, 2.25, tolerance, "(⟨n⟩/⟨n(n−1)⟩^½)²")
    yield _row(
        "the diagnostic fires: ratio above 1 by 5σ (1 = yes)", (ratio - 1) / error > 5, 1, 0, "same toy"
    )


def _charm(n_toys: int) -> Iterator[dict]:
    """Prompt pairs, open charm displaced by its lifetime and combinatorial pairs in (mass, vertex offset)."""
    axes = (regular("mass", 12, 0.25, 1.45), variable("offset", [0, 30, 60, 100, 150, 250, 500]))
    rng, n, amount = stream(19, "charm"), 1_000_000, 1500.0
    wide = rng.random(n) > 0.4
    prompt = np.where(wide, 0.25 + rng.exponential(0.35, n), rng.normal(0.78, 0.04, n))
    samples = (
        (prompt, np.abs(rng.normal(0, 50, n))),
        (0.25 + rng.gamma(2.2, 0.35, n), np.hypot(rng.exponential(120, n), rng.normal(0, 50, n))),
        (0.25 + rng.gamma(2, 0.2, n), np.abs(rng.normal(0, 75, n))),
    )
    s, c, b = (np.histogram2d(*part, [a.edges for a in axes])[0] / n for part in samples)
    s, c, b = 20_000 * s, amount * c / c.sum(), 4000 * b
    pulls = []
    for _ in range(n_toys):
        shapes = [np.maximum(rng.poisson(part / part.sum() * 40_000).astype(float), 0.5) for part in (c, s)]
        toy = (rng.poisson(s + c + b), rng.poisson(b / 2 * 1.3), rng.poisson(b / 2 / 1.3))
        found = fit_charm(_hists(axes, *toy), *(filled(axes, part, part) for part in shapes))
        pulls.append((found.charm - amount) / found.charm_sigma)
    width = max(0.15, 3 / np.sqrt(2 * n_toys))
    yield _row(
        "open charm, MOCK of 1500 pairs: found in one sample",
        found.charm,
        amount,
        3 * found.charm_sigma,
        "3σ",
    )
    yield _row("open charm: mean pull", np.mean(pulls), 0, 3.5 / np.sqrt(n_toys), f"{n_toys} toys")
    yield _row("open charm: width of pulls", np.std(pulls, ddof=1), 1, width, f"{n_toys} toys")


def _bootstrap() -> Iterator[dict]:
    """Pairs of one event share it: scatter of independent samples against the bootstrap of events."""
    rng, axes = stream(15, "events"), (regular("mass", 3, 0.2, 2.2),)
    found = np.mean([bootstrap_covariance([_events(rng)], axes) for _ in range(4)], axis=0)
    toys = []
    for _ in range(400):
        pairs = _events(rng)
        toys.append(np.histogram(pairs.mass, axes[0].edges, weights=event_weights(pairs, axes))[0])
    seen = np.cov(np.array(toys), rowvar=False)
    ratio = np.sqrt(found.sum() / seen.sum())
    yield _row("bootstrap of events: error of the sum over its scatter", ratio, 1, 0.15, "400 samples")


def _events(rng: np.random.Generator, n_events: int = 20_000) -> Pairs:
    plus, minus = rng.poisson(0.7, n_events), rng.poisson(0.5, n_events)
    common = rng.gamma(2, 0.2, n_events)
    parts = []
    for charge, number in ((0, plus * minus), (2, plus * (plus - 1) // 2), (-2, minus * (minus - 1) // 2)):
        event = np.repeat(np.arange(n_events), number)
        n = len(event)
        mass, pt = 0.2 + common[event] + rng.gamma(2, 0.05, n), rng.gamma(2, 0.3, n)
        parts.append(Pairs(mass, pt, 20 + mass, np.full(n, charge, np.int8), np.ones(n), event))
    return Pairs.concatenate(parts)


def _row(quantity: str, ours: float, expected: float, tolerance: float, source: str) -> dict:
    return {
        "quantity": quantity,
        "ours": float(ours),
        "expected": expected,
        "tolerance": tolerance,
        "source": source,
    }
