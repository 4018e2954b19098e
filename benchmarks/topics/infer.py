"""The exact engine against pyhf, iminuit and RooStats, on the same models in the same run."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyhf
from data_sets import one_of
from iminuit import Minuit
from pyhf.infer.calculators import ToyCalculator
from pyhf.infer.intervals.upper_limits import toms748_scan
from scipy.stats import norm, uniform

from gammastar.infer import (
    asymptotic_limit,
    binned_channel,
    combine,
    counting_limit,
    exact_cls,
    exact_limit,
    reach,
    unbinned_channel,
    workspace,
)
from gammastar.infer.counting import counting_cls
from gammastar.infer.histfactory.workspaces import channels_of
from gammastar.infer.joint.expectation import arrays_of, fit, joint_workspace
from gammastar.infer.joint.limits import JointLimits, draw_joint, joint_asymptotic, joint_limit, q_tilde
from gammastar.infer.joint.model import JointEffect, JointModel
from gammastar.infer.toys import draw, statistics, toy_model

ORACLE = Path(__file__).resolve().parents[2] / "tests" / "golden" / "roostats_oracle.py"
POT, BACKGROUND, SIGMA = float(np.log(1.2)), 2.0, 0.3


def rows() -> Iterator[dict]:
    yield from _toys()
    yield from _two_channels()
    yield from _minuit()
    yield from _roostats()
    yield from _limits()
    yield from _contour()
    yield from _scan()
    yield from _joint()


def _seconds(task: Callable[[], object], repeats: int = 1) -> float:
    """Return the processor time of a task on one thread: other work on the machine does not count."""
    start = time.process_time()
    for _ in range(repeats):
        task()
    return (time.process_time() - start) / repeats


def _model() -> dict:
    spec = workspace("counting", BACKGROUND, SIGMA, [2], pot_search_sigma=POT)
    spec["channels"][0]["samples"][0]["data"] = [3.0]
    return spec


def _toys(n: int = 50_000) -> Iterator[dict]:
    """One bin, two nuisances, q̃μ with randomised auxiliaries, as pyhf's ToyCalculator has them."""
    spec = _model()
    space = pyhf.Workspace(spec)
    model = space.model()
    calculator = ToyCalculator(
        space.data(model), model, test_stat="qtilde", ntoys=60, track_progress=False
    )  # .distributions() avoids the call that numpy 2.4 has no longer
    peer = 120 / _seconds(lambda: calculator.distributions(1.0))
    ours = toy_model(channels_of(spec))
    rng, zero = np.random.default_rng(1), np.zeros(len(ours.nuisances))

    def task() -> None:
        for strength in (1.0, 0.0):
            statistics(ours, draw(ours, zero, strength, n, rng, randomise=True), 1.0, "qtilde")

    task()  # compiled functions are loaded once
    rate = 2 * n / _seconds(task)
    yield {
        "claim": f"profiled toys per second ({rate:.3g}), against pyhf's ToyCalculator ({peer:.3g})",
        "measured": rate / peer,
        "goal": 1000.0,
    }


def _two_channels(n: int = 50_000) -> Iterator[dict]:
    """Two counting channels, protons on target shared and a background error each: q̃μ, randomised."""
    spaces = []
    for name, signal, background in (("ee", 3.0, 1.0), ("mumu", 1.8, 2.0)):
        spec = workspace(name, background, SIGMA, [1], pot_search_sigma=POT)
        spec["channels"][0]["samples"][0]["data"] = [signal]
        spaces.append(spec)
    spec = combine(spaces)
    space = pyhf.Workspace(spec)
    model = space.model()
    calculator = ToyCalculator(space.data(model), model, test_stat="qtilde", ntoys=40, track_progress=False)
    ours = toy_model(channels_of(spec))
    rng, zero = np.random.default_rng(1), np.zeros(len(ours.nuisances))

    def task() -> None:
        for strength in (1.0, 0.0):
            statistics(ours, draw(ours, zero, strength, n, rng, randomise=True), 1.0, "qtilde")

    task()  # compiled functions are loaded once
    rates = [(2 * n / _seconds(task), 80 / _seconds(lambda: calculator.distributions(1.0))) for _ in range(3)]
    rate, peer = (float(np.median(column)) for column in zip(*rates, strict=True))
    yield {
        "claim": f"profiled toys per second of CPU ({rate:.3g}), two channels, three nuisances, one shared, "
        f"against pyhf's ToyCalculator with SLSQP ({peer:.3g}); in turn on one thread, medians of 3 rounds",
        "measured": rate / peer,
        "goal": 1000.0,
    }


def _minuit(n: int = 60, many: int = 50_000) -> Iterator[dict]:
    """Two unbinned channels, four nuisances, ratio of profiled likelihoods: two fits per toy."""
    densities = norm(0.4, 0.003).pdf, uniform(0.2, 0.6).pdf
    model = toy_model(
        [
            unbinned_channel(
                name,
                signal=2.0,
                background=1.0,
                densities=densities,
                bounds=(0.2, 0.8),
                events=[0.3, 0.401],
                signal_sigma={"pot": POT, "efficiency": 0.029},
                background_sigma={f"b_{name}": 0.3},
            )
            for name in ("ee", "mumu")
        ]
    )
    rng = np.random.default_rng(2)
    toys = draw(model, np.zeros(4), 1.0, many, rng, randomise=True)
    statistics(model, toys, 1.0, "ratio")
    rate = many / _seconds(lambda: statistics(model, toys, 1.0, "ratio"))

    def loop() -> None:
        for i in range(n):
            one = one_of(toys, i, 2)
            for mu in (0.0, 1.0):

                def twice_nll(theta, mu=mu, one=one):
                    s, b = model.rates(np.asarray(theta), 1.0) * np.array([[mu], [1.0]])
                    start = one.offsets
                    logs = sum(
                        np.log(s[c] * one.ratio[start[c] : start[c + 1]] + b[c]).sum() for c in range(2)
                    )
                    return 2 * (s.sum() + b.sum() - logs) + ((np.asarray(theta) - one.aux[0]) ** 2).sum()

                fit = Minuit(_Bound(twice_nll), np.zeros(4))
                fit.migrad()

    peer = n / _seconds(loop)
    yield {
        "claim": f"profiled toys per second ({rate:.3g}), against a loop of iminuit ({peer:.3g})",
        "measured": rate / peer,
        "goal": 500.0,
    }


class _Bound:
    """A function of one array, for iminuit."""

    def __init__(self, function: Callable) -> None:
        self.function = function

    def __call__(self, theta: np.ndarray) -> float:
        return self.function(theta)


def _roostats(n: int = 50_000) -> Iterator[dict]:
    """Two channels of three bins, four nuisances; no row where no interpreter has ROOT."""
    here = sys.executable if importlib.util.find_spec("ROOT") else ""
    python = os.environ.get("GAMMASTAR_ROOT_PYTHON", here)
    if not python:
        return
    command = [python, str(ORACLE), "500", "ratio"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peer = json.loads(done.stdout.splitlines()[-1])["rate"]
    shared = {"pot": POT, "efficiency": 0.03}
    model = toy_model(
        [
            binned_channel(
                name,
                signal=signal,
                background=background,
                observed=[1, 1, 1],
                signal_sigma=shared,
                background_sigma={f"b_{name}": sigma},
            )
            for name, signal, background, sigma in (
                ("one", [0.5, 1.5, 0.5], [1.0, 0.6, 0.4], 0.3),
                ("two", [0.3, 0.9, 0.3], [0.5, 0.5, 1.0], 0.5),
            )
        ]
    )
    rng, zero = np.random.default_rng(3), np.zeros(4)
    start = time.process_time()
    for strength in (1.0, 0.0):
        statistics(model, draw(model, zero, strength, n, rng, randomise=True), 1.0, "ratio")
    rate = 2 * n / (time.process_time() - start)
    yield {
        "claim": f"profiled toys per second of CPU ({rate:.3g}), against RooStats ({peer:.3g})",
        "measured": rate / peer,
        "goal": 300.0,
    }


def _limits() -> Iterator[dict]:
    spec = _model()
    space = pyhf.Workspace(spec)
    model = space.model()
    found = []
    peer = _seconds(
        lambda: found.append(toms748_scan(space.data(model), model, 0.01, 10, level=0.1, rtol=1e-4))
    )
    channels = channels_of(spec)
    ours = _seconds(lambda: asymptotic_limit(channels), 20)
    expected = 3.0 * float(found[0][0])
    difference = abs(asymptotic_limit(channels).observed / expected - 1)
    yield {
        "claim": f"asymptotic limit with bands per mass ({1e3 * ours:.2g} ms), against pyhf "
        f"({1e3 * peer:.3g} ms); they differ by {difference:.0e}",
        "measured": peer / ours,
        "goal": 200.0,
    }
    yield {
        "claim": "the same limit, relative difference from pyhf",
        "measured": difference,
        "goal": 1e-4,
        "unit": "",
        "higher": False,
    }


def _contour() -> Iterator[dict]:
    """60 masses, one event, three nuisances: limits by weighted and by fresh toys, then both edges."""
    mass, coupling = np.linspace(0.22, 0.8, 60), np.geomspace(1e-8, 1e-5, 60)
    signal = 2e28 * np.exp(-mass[:, None] / 0.12) * coupling**4
    signal = signal * np.exp(-(coupling**2) * mass[:, None] ** 2 / 1e-13)
    channels = [
        unbinned_channel(
            "mumu",
            signal=1.0,
            background=0.5,
            densities=(norm(m, 0.003).pdf, uniform(0.2, 0.6).pdf),
            bounds=(0.2, 0.82),
            events=[0.411],
            signal_sigma={"pot": POT, "efficiency": 0.029},
            background_sigma={"b": 0.3},
        )
        for m in mass
    ]

    def weighted() -> None:
        limits = [exact_limit([c], rng=np.random.default_rng(i)).events for i, c in enumerate(channels)]
        reach(mass, coupling, signal, limits)

    def plain() -> None:
        limits = []
        for i, channel in enumerate(channels):
            low, high = np.log(0.5), np.log(20.0)
            for _ in range(14):  # common random numbers; 10 000 fresh toys of each hypothesis
                middle = 0.5 * (low + high)
                rng, strength = np.random.default_rng(i), float(np.exp(middle))
                cls = exact_cls([channel], rng=rng, strength=strength, n_toys=10_000).cls
                low, high = (low, middle) if cls < 0.1 else (middle, high)
            limits.append(np.exp(0.5 * (low + high)))
        reach(mass, coupling, signal, limits)

    for name, task, goal in (
        ("profiled weighted toys (2 % of the limit)", weighted, 60.0),
        ("14 times 20 000 fresh toys per mass", plain, 180.0),
    ):
        yield {
            "claim": f"contour of 60 masses at 90 % CL, one event, {name}",
            "measured": _seconds(task),
            "goal": goal,
            "unit": " s",
            "higher": False,
        }
    yield {
        "claim": "contour of 60 masses at 90 % CL, no event, closed form",
        "measured": _seconds(lambda: reach(mass, coupling, signal, counting_limit(0, 0.5, signal_sigma=POT))),
        "goal": 60.0,
        "unit": " s",
        "higher": False,
    }


def _scan() -> Iterator[dict]:
    mass, coupling = np.linspace(0.22, 1.0, 40), np.geomspace(1e-8, 1e-5, 60)
    signal = 2e28 * np.exp(-mass[:, None] / 0.12) * coupling**4
    signal = signal * np.exp(-(coupling**2) * mass[:, None] ** 2 / 1e-13)
    points = signal.ravel()
    some = points[(points > 0.3) & (points < 30)][::40]
    spec = workspace("counting", BACKGROUND, SIGMA, [2], pot_search_sigma=POT)

    def test() -> None:
        for value in some:
            spec["channels"][0]["samples"][0]["data"] = [float(value)]
            space = pyhf.Workspace(spec)
            model = space.model()
            pyhf.infer.hypotest(1.0, space.data(model), model, test_stat="qtilde")

    peer = _seconds(test) / len(some)
    ours = _seconds(lambda: counting_cls(some, 2, BACKGROUND, signal_sigma=POT, background_sigma=SIGMA))
    yield {
        "claim": f"exact CLs per point, against pyhf's asymptotic hypotest ({1e3 * peer:.1f} ms)",
        "measured": peer / ours * len(some),
        "goal": 20.0,
    }

    def plane() -> None:
        limit = counting_limit(2, BACKGROUND, signal_sigma=POT, background_sigma=SIGMA)
        reach(mass, coupling, signal, float(limit))

    yield {
        "claim": f"contour with both edges from exact limits, per point of a {points.size}-point scan",
        "measured": peer / _seconds(plane) * points.size,
        "goal": 100.0,
    }


def _window() -> JointModel:
    """Return 12 cells in 12 bins, 80 pairs, 7 effects: 45 parameters."""
    rng, cells, bins = np.random.default_rng(1), 12, 12
    x, t = np.linspace(0, 1, bins)[:, None], np.linspace(0.05, 0.95, cells)
    response = np.exp(-0.5 * ((x - t) / 0.1) ** 2)
    response *= 0.4 / response.sum(axis=0)
    truth = np.exp(-2 * t)
    truth *= 80 / 0.4 / truth.sum()
    like = np.full(bins, 8.0 / bins)
    effects = (
        *(JointEffect(name, signal=POT) for name in ("pot_calibration", "pot_search", "spin")),
        JointEffect("efficiency", response=-0.05 * response),
        JointEffect("r_factor", r_factor=0.05),
        JointEffect("charm_norm", templates={"charm": 0.3}),
        JointEffect("background_norm", background=SIGMA),
    )
    return JointModel(
        truth,
        response,
        response / 300.0,
        rng.poisson([response @ truth + 2 * like, like, like]),
        (3.0 * t**2 / (truth @ t**2))[:, None],
        np.array([0.5]),
        np.array([3.0]),
        templates={"charm": np.full(bins, 0.3)},
        effects=effects,
    )


def _joint(n: int = 2000) -> Iterator[dict]:
    """Pairs and search in one likelihood: a fit, a limit with bands, pseudo-experiments."""
    model = _window()
    spec = joint_workspace(model)
    space = pyhf.Workspace(spec)
    built, arrays = space.model(), arrays_of(model)
    data = space.data(built)
    size = f"{built.config.npars} parameters, {len(json.dumps(spec)) / 1024:.0f} kB of JSON"
    peer = _seconds(lambda: pyhf.infer.mle.fit(data, built))
    point = fit(arrays, model.data, 1.0).point
    toys = draw_joint(arrays, point, n, np.random.default_rng(2))
    rate = n / _seconds(lambda: fit(arrays, toys, 1.0))
    yield {
        "claim": f"joint likelihood, {size}: fits of toys per second ({rate:.3g}), against pyhf "
        f"({1 / peer:.3g})",
        "measured": rate * peer,
        "goal": 200.0,
    }
    rate = n / _seconds(lambda: q_tilde(arrays, toys, 1.0))
    yield {
        "claim": "the same, q̃μ of pseudo-experiments per second",
        "measured": rate,
        "goal": 200.0,
        "unit": "",
    }
    ours = _seconds(lambda: joint_asymptotic(model))
    test = _seconds(lambda: pyhf.infer.hypotest(1.0, data, built, test_stat="qtilde"))
    yield {
        "claim": f"its asymptotic limit with bands ({ours:.2g} s), against one test by pyhf ({test:.2g} s)",
        "measured": test / ours,
        "goal": 1.0,
    }
    yield {
        "claim": "its limit by 1000 + 1000 pseudo-experiments per strength, observed and expected",
        "measured": _seconds(lambda: joint_limit(model, JointLimits(method="exact"))),
        "goal": 120.0,
        "unit": " s",
        "higher": False,
    }
