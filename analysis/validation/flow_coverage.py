"""Does the band of the flow hold the truth? Acceptances of Appendix B on many data sets, and at full size.

The band is that of bootstrap replicas (the data and the training), with Student's factor for their small
number, and the precision of the pairs within 30 MeV: a flow shares what it learns between masses, and a
smoothing that these pairs cannot contradict is common to all replicas.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.stats import t as student
from validation.flow_mock import BEAM, RANGE, appendix_b, pairs, truth_at

from gammastar.core.rng import stream
from gammastar.flow import FlowOptions, KinematicFlow, fit, fit_ensemble
from gammastar.flow.samples import Table

SEED = 22
LOWEST = 1e-4  # acceptance below which nothing is claimed
CTAU = np.geomspace(3e-3, 100.0, 19)  # m
NEAR = 0.03  # GeV
SETS, PAIRS, MEMBERS = 20, 20_000, 6
DENSE = (0.3, 0.5, 0.7, 0.782, 1.02)  # GeV: windows with enough pairs for a training of 2e4
MASSES = (0.3, 0.5, 0.7, 0.9, 1.1)
OPTIONS = FlowOptions(mass_range=RANGE, mass_flattening=0.5)


def truths(masses: tuple[float, ...], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return acceptance and its error of n true virtual photons per mass, shape (masses, ctau) each."""
    found = [appendix_b(m, *truth_at(m, n, stream(SEED, "truth", f"{m}")), CTAU) for m in masses]
    return np.array([a for a, _ in found]), np.array([e for _, e in found])


def acceptances(flow: KinematicFlow, masses: tuple[float, ...], n: int) -> np.ndarray:
    """Return the acceptance of a flow, shape (masses, ctau), with numbers common to all flows."""
    result = []
    for mass in masses:
        normal = stream(SEED, "normal", f"{mass}").standard_normal((n, 2))
        result.append(appendix_b(mass, *flow.transform(np.full(n, mass), normal), CTAU)[0])
    return np.array(result)


def banded(values: np.ndarray, masses: tuple[float, ...], options: FlowOptions, n: int, seed: int):
    """Return acceptance of the nominal flow, spread of the replicas, precision of the near pairs."""
    table = Table(*values.T.copy(), np.ones(len(values)), np.arange(len(values)))
    start = {"beam_energy": BEAM, "options": options}
    nominal = acceptances(fit(*values.T, rng=stream(seed, "nominal"), **start), masses, n)
    members = fit_ensemble(table, members=MEMBERS, seed=seed, **start).members
    spread = np.std([acceptances(member, masses, n) for member in members], axis=0, ddof=1)
    near = np.array([(np.abs(values[:, 0] - m) < NEAR).sum() for m in masses])
    return nominal, spread, near


def rows() -> Iterator[dict]:
    """Yield coverage over data sets, and the acceptance at 3e5 pairs."""
    yield from _coverage()
    yield from _full_size()


def _row(quantity: str, ours: float, expected: float, tolerance: float, source: str) -> dict:
    keys = ("quantity", "ours", "expected", "tolerance", "source")
    return dict(zip(keys, (quantity, float(ours), expected, tolerance, source), strict=True))


def _local(error: np.ndarray, n_truth: int, near: np.ndarray) -> np.ndarray:
    return error * np.sqrt(n_truth / near)[..., None]


def data_set(number: int):
    """Return acceptance, spread and near pairs of one data set of its own."""
    values = pairs(int(1.05 * PAIRS), stream(SEED, "data", number))[0][:PAIRS]
    return banded(values, DENSE, OPTIONS, 50_000, number)


def _coverage() -> Iterator[dict]:
    n_truth = 1_000_000
    truth, error = truths(DENSE, n_truth)
    used = truth > 1e-3  # below it a handful of the 2e4 pairs decides
    factor = float(student.ppf(0.975, MEMBERS - 1)) / 1.96
    sets = [data_set(number) for number in range(SETS)]
    off = [nominal - truth for nominal, _, _ in sets]
    spread = [factor * sigma for _, sigma, _ in sets]
    local = [_local(error, n_truth, near) for _, _, near in sets]
    off, spread, local = (np.array(a)[:, used] for a in (off, spread, local))
    name = f"acceptance of Appendix B, {SETS} data sets of {PAIRS}, {len(DENSE)} masses"
    source = f"{MEMBERS} replicas, Student's factor"
    ratio = np.median(off.std(axis=0, ddof=1) / np.sqrt(((spread / factor) ** 2).mean(axis=0)))
    yield _row(f"{name}: scatter between data sets over spread of replicas", ratio, 1.0, 0.35, "median")
    pull = off / spread
    width = float(np.sqrt(np.mean(pull**2)))
    source += f"; width of these pulls {width:.2f}: a smoothing that all replicas share"
    inside = (np.abs(pull) < 1.96).mean()
    yield _row(f"{name}: inside 95 % of the replicas alone", inside, 0.95, 0.1, source)
    pull = off / np.hypot(spread, local)
    source = "replicas and pairs within 30 MeV"
    yield _row(f"{name}: width of pulls", np.sqrt(np.mean(pull**2)), 0.8, 0.3, source)
    yield _row(f"{name}: inside 95 %", (np.abs(pull) < 1.96).mean(), 0.97, 0.03, source)


def _full_size() -> Iterator[dict]:
    n_truth = 2_000_000
    truth, error = truths(MASSES, n_truth)
    values = pairs(315_000, stream(SEED, "full"))[0][:300_000]
    nominal, sigma, near = banded(values, MASSES, OPTIONS, 300_000, SEED)
    factor = float(student.ppf(0.975, MEMBERS - 1)) / 1.96
    band = np.sqrt((factor * sigma) ** 2 + error**2 + _local(error, n_truth, near) ** 2)
    for row, mass in enumerate(MASSES):
        used = truth[row] > LOWEST
        pull = (nominal[row] - truth[row])[used] / band[row][used]
        name = f"acceptance of Appendix B at {mass} GeV, {used.sum()} lifetimes"
        source = "2e6 true photons; band of replicas and of the pairs within 30 MeV"
        yield _row(f"{name}: largest |pull|", np.abs(pull).max(), 0.0, 2.5, source)
    ratio = (nominal / truth)[truth > 0.1]
    yield _row(
        "acceptance above 0.1: |flow/truth − 1|", np.abs(ratio - 1.0).max(), 0.0, 0.1, "long lifetimes"
    )
