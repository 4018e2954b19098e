"""The joint likelihood: against pyhf, against the two steps at many pairs, and coverage of both at few."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyhf
from data_sets import joint_nll
from hist.axis import Regular
from validation.infer_toys import row

from gammastar import unfold
from gammastar.core.errors import UserError
from gammastar.core.records import Response, Spectrum, filled
from gammastar.infer import asymptotic_limit, counting_channel
from gammastar.infer.counting import counting_cls
from gammastar.infer.joint.discovery import joint_significance, p_zero
from gammastar.infer.joint.expectation import Arrays, Point, arrays_of, fit, joint_workspace
from gammastar.infer.joint.limits import draw_joint, joint_asymptotic, tail_probabilities
from gammastar.infer.joint.model import JointData, JointEffect, JointModel

BINS, CELLS = 8, 6
SIGNAL, BACKGROUND = 5.0, 0.5  # events of the search
EFFICIENCY, COMBINATORIAL = 0.4, 0.1  # ++ pairs over opposite-sign ones
LEVEL = 0.10
SIZES = (10.0, 30.0, 100.0, 200.0)
HARD = 8.0  # the hardest sixth of the energies holds 70 % of such a signal
DEFINITION = "definition of the level"


@dataclass(frozen=True)
class Window:
    """A mass window: energies fall as e^(−2t), resolution 0.15, signal as a power of t."""

    pairs: float
    power: float = 2.0

    @property
    def energy(self) -> np.ndarray:
        """Energies of the true cells, in units of their range."""
        return np.linspace(0.05, 0.95, CELLS)

    @property
    def response(self) -> np.ndarray:
        """Opposite-sign pairs per true pair."""
        x = np.linspace(0, 1, BINS)[:, None]
        matrix = np.exp(-0.5 * ((x - self.energy) / 0.15) ** 2)
        return EFFICIENCY * matrix / matrix.sum(axis=0)

    @property
    def contents(self) -> np.ndarray:
        """True pairs by cell."""
        shape = np.exp(-2.0 * self.energy)
        return self.pairs / EFFICIENCY * shape / shape.sum()

    @property
    def like(self) -> np.ndarray:
        """Expected ++ pairs."""
        return np.full(BINS, COMBINATORIAL * self.pairs / BINS)

    @property
    def signal(self) -> np.ndarray:
        """Events of the search per true pair."""
        shape = self.energy**self.power
        return SIGNAL * shape / (self.contents @ shape)

    def model(self, counts: np.ndarray, **changes: object) -> JointModel:
        """Return the model of some counts."""
        values = {
            "pairs": self.contents,
            "response": self.response,
            "variance": np.zeros((BINS, CELLS)),
            "counts": counts,
            "signal": self.signal[:, None],
            "background": np.array([BACKGROUND]),
            "observed": np.array([0.0]),
        }
        return JointModel(**(values | changes))

    def truth(self, arrays: Arrays) -> Point:
        """Return the parameters from which pseudo-experiments are drawn."""
        like = self.like / arrays.like[1]
        return Point(np.r_[1.0, np.ones(CELLS), 0.0][None], like[None], np.ones((1, BINS)))


def joint_rows(quick: bool) -> Iterator[dict]:
    yield from _against_pyhf()
    yield from _many_pairs()
    n, toys = (60, 100) if quick else (300, 200)
    for size in SIZES[1:2] if quick else SIZES:
        yield from _coverage(Window(size, HARD), n, toys)
    if not quick:
        yield from _coverage(Window(30.0), n, toys)
    if not quick:
        yield from _in_situ(200, 200)
    yield from _discoveries(*((60, 50) if quick else (400, 200)))


def _against_pyhf() -> Iterator[dict]:
    window = Window(60.0)
    rng = np.random.default_rng(1)
    like, response = window.like, window.response
    counts = rng.poisson([response @ window.contents + 2 * like, like, like])
    effects = (
        JointEffect("pot", signal=0.18),
        JointEffect("efficiency", response=-0.1 * response),
        JointEffect("r_factor", r_factor=0.1),
    )
    model = window.model(counts, variance=response / 300.0, effects=effects, observed=np.array([3.0]))
    space = pyhf.Workspace(joint_workspace(model))
    peer, arrays = space.model(), arrays_of(model)
    data = space.data(peer)
    found = fit(arrays, model.data, most=100.0)
    ours = joint_nll(arrays, found.point, model.data)[0]
    value = float(pyhf.infer.mle.fit(data, peer, return_fitted_val=True)[1]) / 2
    source = "pyhf 0.7.6, SLSQP"
    yield row(
        "joint likelihood, 22 parameters: −ln L at our fit less at that of pyhf",
        ours - value,
        0.0,
        2e-6,
        source,
    )
    limit = joint_asymptotic(model)
    cls = float(pyhf.infer.hypotest(limit.observed, data, peer, test_stat="qtilde"))
    yield row("its CLs by pyhf at our observed limit, 90 % CL", cls, LEVEL, 1e-5, source)
    bands = pyhf.infer.hypotest(limit.expected[2], data, peer, test_stat="qtilde", return_expected=True)[1]
    yield row("its CLs by pyhf at our median expected limit", float(bands), LEVEL, 3e-5, source)


def _many_pairs() -> Iterator[dict]:
    """Where the pairs are many both likelihoods are Gaussian in what they know of the signal."""
    for pairs, events in ((2e4, 25.0), (2e5, 25.0), (2e5, 100.0)):
        window = Window(pairs)
        rng = np.random.default_rng(2)
        like = window.like
        counts = rng.poisson([window.response @ window.contents + 2 * like, like, like])
        model = window.model(counts, background=np.array([events]), observed=np.array([events]))
        estimate, error = _two_step(window, counts)["least squares"]
        channel = counting_channel(
            "search",
            signal=estimate,
            background=events,
            observed=int(events),
            signal_sigma={"spectrum": float(np.log1p(error / estimate))},
        )
        ratio = estimate * joint_asymptotic(model).observed / asymptotic_limit([channel]).observed
        label = f"limit on μ, joint over two-step, {pairs:g} pairs, b = n = {events:g}"
        yield row(label, ratio, 1.0, 0.01, "asymptotic limits of both")


def _two_step(window: Window, counts: np.ndarray) -> dict[str, tuple[float, float]]:
    """Return signal and error after subtraction and unfolding, with a simulation like the data."""
    axes = (Regular(BINS, 0, 1, name="energy"),), (Regular(CELLS, 0, 1, name="energy"),)
    matrix = window.response
    nothing = np.zeros((0, BINS, CELLS))
    response = Response(matrix, matrix.sum(axis=0), np.zeros(BINS), *axes, window.contents, nothing)
    left, variance = counts[0] - counts[1] - counts[2], counts.sum(axis=0)
    data = Spectrum(filled(axes[0], left, variance), np.diag(variance), "counts", None, np.ones(BINS, bool))
    found = {}
    for name, method in (
        ("least squares", lambda: unfold.least_squares(data, response)),
        ("iterative", lambda: unfold.iterative(data, response, n_iterations=4)),
    ):
        try:
            result = method()
        except UserError:  # nothing is left after the subtraction
            found[name] = 0.0, 1.0
            continue
        signal = float(result.values @ window.signal)
        found[name] = signal, float(np.sqrt(window.signal @ result.cov @ window.signal))
    return found


def _coverage(window: Window, n: int, toys: int) -> Iterator[dict]:
    """Draw every pair and the search anew, and analyse each pseudo-experiment as if it were real."""
    model = window.model(np.ones((3, BINS)))
    arrays, rng = arrays_of(model), np.random.default_rng(1)
    drawn = draw_joint(arrays, window.truth(arrays), n, rng)
    data = JointData(drawn.pairs, drawn.search, np.zeros((n, 1)), np.ones((n, BINS)))
    clsb, clb, _ = tail_probabilities(arrays, data, 1.0, toys, rng)
    where = "hard signal" if window.power == HARD else "soft signal"
    label = f"{where}, {window.pairs:g} pairs, {n} full pseudo-experiments"
    error = 3 * np.sqrt(LEVEL * (1 - LEVEL) / n)
    yield row(f"P(CLs+b < 0.1), joint, {label}", np.mean(clsb < LEVEL), LEVEL, error, DEFINITION)
    excess = max(float(np.mean(clsb < LEVEL * clb)) - LEVEL, 0.0)
    yield row(f"most that CLs excludes beyond 0.10, joint, {label}", excess, 0.0, error, DEFINITION)
    values: dict[tuple[str, str], list[float]] = {}
    for k in range(n):
        for method, (signal, spread) in _two_step(window, data.pairs[k]).items():
            for treatment, name in (("exact", "plug-in"), ("marginalised", "averaged")):
                cls = _cls(signal, spread, float(data.search[k, 0]), treatment)
                values.setdefault((method, name), []).append(cls)
    for (method, name), cls in values.items():
        excluded = float(np.mean(np.array(cls) < LEVEL))
        text = f"P(CLs < 0.1), two-step, {method}, {name}, {label}"
        yield row(text, excluded, LEVEL, 0.0, DEFINITION) | {"measured": True}


def _cls(signal: float, error: float, events: float, treatment: str) -> float:
    """Return CLs of the estimated signal, its error log-normal as `SignalPlane.spreads` has it."""
    if signal <= 0:
        return 1.0
    sigma = float(np.log1p(np.clip(error / signal, 0.0, 3.0)))
    return float(counting_cls(signal, events, BACKGROUND, signal_sigma=sigma, method=treatment))


def _peak() -> JointModel:
    """Return a search for 30 pairs of a peak among 200: one channel, cells wider than the peak."""
    peak = np.exp(-0.5 * ((np.arange(BINS) - 3.5) / 1.0) ** 2)[:, None]
    few = np.linspace(0.1, 0.9, 3)
    cells = np.exp(-0.5 * ((np.linspace(0, 1, BINS)[:, None] - few) / 0.35) ** 2)
    cells *= EFFICIENCY / cells.sum(axis=0)
    pairs = np.full(3, 200.0 / EFFICIENCY / 3)
    signal = cells * peak
    signal *= 30.0 / (signal @ pairs).sum()
    return JointModel(
        pairs,
        cells,
        np.zeros((BINS, 3)),
        np.ones((3, BINS)),
        np.zeros((3, 0)),
        np.zeros(0),
        np.zeros(0),
        in_situ=signal,
    )


def _in_situ(n: int, toys: int) -> Iterator[dict]:
    """Search for a peak in the pairs themselves: one channel, and the same likelihood."""
    window, model = Window(200.0), _peak()
    arrays, rng = arrays_of(model), np.random.default_rng(4)
    truth = Point(np.r_[1.0, np.ones(3), 0.0][None], (window.like / arrays.like[1])[None], np.ones((1, BINS)))
    drawn = draw_joint(arrays, truth, n, rng)
    data = JointData(drawn.pairs, drawn.search, np.zeros((n, 1)), np.ones((n, BINS)))
    clsb, _, _ = tail_probabilities(arrays, data, 1.0, toys, rng)
    tolerance = 3 * np.sqrt(LEVEL * (1 - LEVEL) / n)
    label = f"P(CLs+b < 0.1), in situ, 30 of 200 pairs in the peak, {n} full pseudo-experiments"
    yield row(label, np.mean(clsb < LEVEL), LEVEL, tolerance, DEFINITION)


def _discoveries(n: int, toys: int) -> Iterator[dict]:
    """Draw experiments without signal, and ask each for its own p₀; q₀ beside that of pyhf."""
    window = Window(60.0)
    effects = (JointEffect("background_norm", background=0.3), JointEffect("pot", signal=0.18))
    model = window.model(np.ones((3, BINS)), effects=effects, background=np.array([10.0]))
    arrays, rng = arrays_of(model), np.random.default_rng(6)
    truth = Point(
        np.r_[0.0, np.ones(CELLS), 0.0, 0.0, 0.0][None],
        (window.like / arrays.like[1])[None],
        np.ones((1, BINS)),
    )
    data = draw_joint(arrays, truth, n, rng)
    p, _ = p_zero(arrays, data, toys, rng)
    yield from _uniform(p, "search of b = 10, κ = 1.35, 60 pairs")
    arrays, like = arrays_of(_peak()), Window(200.0).like
    truth = Point(np.r_[0.0, np.ones(3), 0.0][None], (like / arrays.like[1])[None], np.ones((1, BINS)))
    p, _ = p_zero(arrays, draw_joint(arrays, truth, n, rng), toys, rng)
    yield from _uniform(p, "in situ, 200 pairs")
    seen = replace(model, counts=data.pairs[0], observed=np.array([19.0]))
    space = pyhf.Workspace(joint_workspace(seen))
    peer = space.model()
    p_value = float(pyhf.infer.hypotest(0.0, space.data(peer), peer, test_stat="q0"))
    yield row(
        "p0 of 19 events over 10, joint", joint_significance(seen).p_value, p_value, 1e-5, "pyhf 0.7.6, SLSQP"
    )


def _uniform(p: np.ndarray, where: str) -> Iterator[dict]:
    """Compare the part of experiments below some levels; half of all have no excess, and p₀ of one."""
    for level in (0.05, 0.1, 0.3):
        part, error = float(np.mean(p <= level)), 3 * np.sqrt(level * (1 - level) / len(p))
        label = f"P(p0 ≤ {level:g}) without signal, joint, {where}, {len(p)} full pseudo-experiments"
        yield row(label, part, level, error, DEFINITION)
