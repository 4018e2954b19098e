"""Unfolding: RooUnfold's own example, closure of the MOCK spectrometer under another prior."""

from __future__ import annotations

import csv
from collections.abc import Iterator

import numpy as np
from hist import axis
from validation import (
    true_mass,
    unfolding_codes,
    unfolding_more,
    unfolding_omnifold,
    unfolding_totals,
)

from gammastar import unfold
from gammastar.core.constants import M_MU
from gammastar.core.files import data_path
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import KINEMATICS, Response, Spectrum, filled, regular, variable
from gammastar.core.sampling import stream
from gammastar.mock.card import Card, load_card
from gammastar.mock.cocktail import generate_pairs
from gammastar.mock.spectrometer import accepted, efficiency, pair_kinematics, smear

TABLE = data_path("cards/na60_mock.toml").parents[2] / "tests" / "golden" / "roounfold_example.csv"
TOYS = "simulation of another spectrum and seed"
MASS = (regular("mass", 36, 0.2, 1.1),)
AXES = (
    *MASS,
    variable("pt", [0, 0.25, 0.5, 0.8, 1.2, 3.0]),
    variable("energy", [5, 9, 12, 15, 20, 30, 400]),
)


def rows(*, quick: bool) -> Iterator[dict]:
    yield from _roounfold()
    yield from unfolding_codes.pyunfold()
    yield from unfolding_codes.coverage(quick=quick)
    yield from unfolding_codes.omnifold(quick=quick)
    yield from unfolding_more.rows(quick=quick)
    yield from unfolding_omnifold.rows(quick=quick)
    card = load_card(data_path("cards/na60_mock.toml"))
    yield from unfolding_totals.rows(card, simulated, _measured, 4 if quick else 20)
    yield from _resolution(card, 4 if quick else 16)
    yield from true_mass.rows(card, simulated, _measured, 2 if quick else 10)
    yield from _three_dimensions(card, 1 if quick else 3)


def _roounfold() -> Iterator[dict]:
    with TABLE.open() as file:
        table = list(csv.DictReader(line for line in file if not line.startswith("#")))
    n = len(table)
    column = {
        key: np.array([float(row[key]) for row in table])
        for key in ("train_true", "test_measured", "ibu", "ibu_error")
    }
    pairs = np.zeros((n, n))
    for i, row in enumerate(table):
        counts = [float(c) for c in row["counts"].split()]
        first = int(row["first"] or 1) - 1
        pairs[first : first + len(counts), i] = counts
    migration = pairs / column["train_true"]
    axes = (axis.Regular(n, -10, 10, name="x"),)
    none = np.zeros((0, n, n))
    total = migration.sum(axis=0)
    response = Response(migration, total, np.zeros(n), axes, axes, column["train_true"], none)
    y = column["test_measured"]
    measured = Spectrum(filled(axes, y, y), np.diag(y), "counts", None, np.ones(n, bool))
    result = unfold.iterative(measured, response, n_iterations=4, efficiency_floor=1e-6)
    source = "RooUnfoldExample, 4 iterations, as printed"
    error = np.sqrt(np.diag(result.cov))
    value_off, error_off = np.abs(result.values - column["ibu"]), np.abs(error - column["ibu_error"])
    yield _row("largest difference of 40 values", value_off.max(), 0, 0.051, source)
    yield _row("largest difference of 40 errors", error_off.max(), 0, 0.051, source)
    yield _row("sum of the values", result.values.sum(), 10074.9, 0.051, source)
    for i in (11, 15, 19, 23):
        yield _row(f"value in bin {i + 1}", result.values[i], column["ibu"][i], 0.051, source)
        yield _row(f"error in bin {i + 1}", error[i], column["ibu_error"][i], 0.051, source)
    yield from unfolding_codes.tunfold(pairs, column["train_true"], y)


def simulated(card: Card, n: int, rng: np.random.Generator) -> MatchedPairs:
    """Return dimuons in full phase space and what the MOCK spectrometer makes of them."""
    made = generate_pairs(card, n, rng)
    true = np.stack([made.mass, made.pt, made.energy], axis=1)
    seen = accepted(made.plus, card.detector) & accepted(made.minus, card.detector)
    seen &= rng.random(n) < efficiency(made.mass, made.pt, made.energy, card.efficiency)
    legs = []
    for leg in (made.plus, made.minus):
        p = smear(leg[:3, seen], card.detector, rng)
        legs.append(np.vstack([p, np.sqrt((p**2).sum(axis=0) + M_MU**2)]))
    reco = np.full((n, 3), np.nan)
    reco[seen] = np.stack(pair_kinematics(*legs), axis=1)
    return MatchedPairs(true, reco, np.ones(n), np.arange(n), np.empty((0, 3)), np.empty(0))


def _histogram(values: np.ndarray, axes: tuple) -> np.ndarray:
    columns = [KINEMATICS.index(a.name) for a in axes]
    return np.histogramdd(values[:, columns], [a.edges for a in axes])[0]


def _measured(sample: MatchedPairs, axes: tuple) -> Spectrum:
    y = _histogram(sample.reco[sample.reconstructed], axes)
    return Spectrum(filled(axes, y, y), np.diag(y.ravel()), "counts", None, y > 0)


def _resolution(card: Card, n_toys: int) -> Iterator[dict]:
    """Mass of accepted dimuons only, so that the prior enters through its mass spectrum alone."""
    n, factor = 300_000, 8
    big = simulated(card, factor * n, stream(7, "truth"))
    truth = _histogram(big.true[big.reconstructed], MASS) / factor
    chi2, pulls, fixed = [], [], []
    for i in range(n_toys):
        mc = simulated(card.with_prior("varied"), 2 * n, stream(6, "mc", i))
        data = simulated(card, n, stream(5, "data", i))
        response = unfold.response(mc.select(mc.reconstructed), MASS, MASS, n_replicas=100, rng=stream(8, i))
        measured = _measured(data, MASS)
        result = unfold.iterative(measured, response, n_iterations=20)
        value, ndf = unfold.folding.chi2(result.values - truth, result.cov)
        chi2.append(value / ndf)
        pulls.append((result.values - truth) / np.sqrt(np.diag(result.cov)))
        early = unfold.iterative(measured, response, n_iterations=4)
        value, ndf = unfold.folding.chi2(early.values - truth, early.cov)
        fixed.append(value / ndf)
    tolerance = max(0.2, 3 * np.sqrt(2 / (n_toys * len(MASS[0]))))
    rule = "20 iterations"
    yield _row(f"mass, 25 MeV bins, {rule}: χ²/ndf, mean of {n_toys} toys", np.mean(chi2), 1, tolerance, TOYS)
    yield _row("mass: mean pull", np.mean(pulls), 0, 0.15, TOYS)
    if n_toys > 10:
        width = np.std(pulls, axis=0, ddof=1).mean()
        yield _row("mass: width of pulls, mean over cells", width, 1, 0.1, TOYS)
        excess = float(np.mean(fixed) > np.mean(chi2))
        yield _row("mass: χ²/ndf of 4 iterations is larger (1 = yes)", excess, 1, 0, TOYS)


def _three_dimensions(card: Card, n_toys: int) -> Iterator[dict]:
    """36 x 5 x 6 cells in mass, pt and energy: acceptance, efficiency and resolution under another prior."""
    n, factor = 300_000, 8
    truth = _histogram(simulated(card, factor * n, stream(7, "truth")).true, AXES) / factor
    chi2, pulls = np.zeros((n_toys, 3)), []
    for i in range(n_toys):
        mc = simulated(card.with_prior("varied"), 2 * n, stream(6, "mc3", i))
        response = unfold.response(mc, AXES, AXES, n_replicas=50, rng=stream(9, i))
        result = unfold.iterative(_measured(simulated(card, n, stream(5, "data3", i)), AXES), response)
        difference = np.where(result.domain, result.values - truth, 0.0).ravel()
        for k in range(3):
            label = np.indices(result.domain.shape)[k].ravel()
            total = (np.arange(result.domain.shape[k])[:, None] == label).astype(float)
            value, ndf = unfold.folding.chi2(total @ difference, total @ result.cov @ total.T)
            chi2[i, k] = value / ndf
        sigma = np.sqrt(np.diag(result.cov))
        populated = result.domain.ravel() & (truth.ravel() * response.efficiency > 10)
        pulls.append(difference[populated] / sigma[populated])
    tolerance = 0.5 if n_toys == 1 else 0.3
    yield _row("mass × pt × energy, mass projection: χ²/ndf", chi2[:, 0].mean(), 1, tolerance, TOYS)
    together = np.concatenate(pulls)
    yield _row("mass × pt × energy, cells above 10 pairs: mean pull", together.mean(), 0, 0.3, TOYS)
    yield _row("mass × pt × energy, cells above 10 pairs: width of pulls", together.std(), 1, 0.15, TOYS)


def _row(quantity: str, ours: float, expected: float, tolerance: float, source: str) -> dict:
    return {
        "quantity": quantity,
        "ours": float(ours),
        "expected": float(expected),
        "tolerance": tolerance,
        "source": source,
    }
