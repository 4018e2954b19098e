"""Workspaces with every kind of nuisance: toys in step against those of pyhf, and against asymptotic limits.

The workspaces are MOCK ones of the structure of small and simplified ATLAS likelihoods; `infer_atlas` takes
the published one that is at hand.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyhf
from iminuit import Minuit
from validation.infer_toys import row

from gammastar.infer import Convention
from gammastar.infer.binned.fits import derivatives, fitted, negative_log
from gammastar.infer.binned.model import BinnedModel, binned_model
from gammastar.infer.binned.toys import BinnedToys, binned_cls, binned_limits, drawn, statistic_of
from gammastar.infer.histfactory.likelihoods import Likelihood
from gammastar.infer.scanning import expected_events, strength_limits

MU = {"name": "mu", "type": "normfactor", "data": None}
LUMI = {"name": "lumi", "type": "lumi", "data": None}
LUMINOSITY = {"name": "lumi", "auxdata": [1.0], "sigmas": [0.017], "bounds": [[0.9, 1.1]], "inits": [1.0]}
QTILDE = Convention("qtilde", "randomised")
PEER = "toys of pyhf 0.7.6 (q̃μ, SLSQP)"


def binned_rows(quick: bool) -> Iterator[dict]:
    if not quick:
        for name, (spec, toys) in mock_workspaces().items():
            yield from _against_pyhf(name, spec, toys)
        yield _beside_minuit([spec for spec, _ in mock_workspaces().values()])
    yield from _without_events(quick)


def _norm(name: str, high: float, low: float) -> dict[str, Any]:
    return {"name": name, "type": "normsys", "data": {"hi": high, "lo": low}}


def _shape(name: str, high: list[float], low: list[float]) -> dict[str, Any]:
    return {"name": name, "type": "histosys", "data": {"hi_data": high, "lo_data": low}}


def _bins(kind: str, name: str, errors: list[float]) -> dict[str, Any]:
    return {"name": name, "type": kind, "data": errors}


def _space(channels: dict[str, list[tuple]], counts: dict[str, list[int]]) -> dict[str, Any]:
    names = ("name", "data", "modifiers")
    return {
        "channels": [
            {"name": c, "samples": [dict(zip(names, sample, strict=True)) for sample in samples]}
            for c, samples in channels.items()
        ],
        "observations": [{"name": c, "data": [float(n) for n in counts[c]]} for c in channels],
        "measurements": [{"name": "MOCK", "config": {"poi": "mu", "parameters": [LUMINOSITY]}}],
        "version": "1.0.0",
    }


def mock_workspaces() -> dict[str, tuple[dict[str, Any], int]]:
    """Return MOCK workspaces by what they hold, with the toys that pyhf is given for each hypothesis."""
    factor = {"name": "mu_top", "type": "normfactor", "data": None}
    simplified = {
        "SR": [
            ("signal", [0.8, 1.2, 1.0], [MU]),
            ("Bkg", [1.6, 0.8, 0.4], [_shape("totalError", [2.1, 1.1, 0.55], [1.1, 0.5, 0.25])]),
        ]
    }
    control = {
        "SR": [
            ("signal", [3.0], [MU, LUMI, _norm("jes", 1.08, 0.9)]),
            ("top", [1.4], [factor, _norm("jes", 1.1, 0.95), _bins("staterror", "mc", [0.2])]),
            ("other", [0.6], [LUMI, _norm("xs", 1.3, 0.8), _bins("staterror", "mc", [0.1])]),
        ],
        "CR": [
            ("top", [40.0], [factor, _norm("jes", 1.05, 0.97)]),
            ("other", [5.0], [LUMI, _norm("xs", 1.3, 0.8)]),
        ],
    }
    counted = {
        "SR": [
            ("signal", [1.5, 1.5], [MU, _norm("pot", 1.2, 1 / 1.2)]),
            ("fakes", [1.0, 0.5], [_bins("shapesys", "fakes", [0.4, 0.25])]),
            ("prompt", [0.6, 0.6], [_shape("scale", [0.8, 0.5], [0.45, 0.75]), _norm("pot", 1.2, 1 / 1.2)]),
        ]
    }
    return {
        "one background with its total error as a shape, three bins": (
            _space(simplified, {"SR": [2, 0, 1]}),
            4000,
        ),
        "two backgrounds, lumi, asymmetric normsys, staterror, control region": (
            _space(control, {"SR": [2], "CR": [47]}),
            600,
        ),
        "shapesys, histosys, shared normsys, two bins": (_space(counted, {"SR": [2, 0]}), 600),
    }


def _against_pyhf(name: str, spec: dict[str, Any], toys: int) -> Iterator[dict]:
    """Return the deviation of CLs+b, CLb and CLs from pyhf's toys in standard deviations of both."""
    space = pyhf.Workspace(spec)
    model = space.model()
    data = space.data(model)
    pyhf.set_backend("numpy", pyhf.optimize.scipy_optimizer())
    np.random.seed(7)  # noqa: NPY002 - pyhf draws from the global generator
    calculator = pyhf.infer.calculators.ToyCalculator(
        data, model, test_stat="qtilde", ntoys=toys, track_progress=False
    )
    started = time.process_time()
    with contextlib.redirect_stderr(io.StringIO()):
        q, with_signal, without = calculator.teststatistic(1.0), *calculator.distributions(1.0)
    spent = time.process_time() - started
    peer = float(with_signal.pvalue(q)), float(without.pvalue(q))
    n, started = 40_000, time.process_time()
    ours, _ = binned_cls(spec, rng=np.random.default_rng(5), convention=QTILDE, n_toys=n)
    own = time.process_time() - started
    pairs = zip(("CLs+b", "CLb"), (ours.clsb, ours.clb), peer, strict=True)
    for what, value, other in pairs:
        error = np.sqrt(value * (1.0 - value) * (1.0 / n + 1.0 / toys))
        yield row(
            f"MOCK, {name}: {what}, deviation [σ]", (value - other) / error, 0.0, 3.0, f"{PEER}, {toys}"
        )
    yield row(f"MOCK, {name}: observed q̃μ, difference", ours.q - float(q), 0.0, 1e-4, "pyhf 0.7.6, SLSQP")
    speed = (2 * n / own) / (2 * toys / spent)
    yield row(f"MOCK, {name}: toys per second over pyhf's", speed, 100.0, np.nan, PEER) | {"measured": True}


def _beside_minuit(specs: list[dict[str, Any]], n: int = 150, starts: int = 5) -> dict:
    """q̃ of toys with and without signal beside the lowest of several random starts of Minuit, and of ours."""
    rng, away, higher = np.random.default_rng(11), [], []
    for spec in specs:
        model = binned_model(spec)
        data = BinnedToys(model.counts[None, :], model.aux)
        for strength in (1.0, 0.0):
            toys = drawn(model, data, strength, QTILDE, n, rng)
            ours = statistic_of(model, toys, 1.0, QTILDE)
            for counts, aux, q in zip(toys.counts, toys.aux, ours.tolist(), strict=True):
                fits = [fitted(model, counts[None], aux[None], strength=mu) for mu in (1.0, (0.0, 1.0))]
                own = [float(fit.nll[0]) for fit in fits]
                theirs = [_migrad(model, counts, aux, mu, starts, rng) for mu in ((1.0, 1.0), (0.0, 1.0))]
                higher.append(max(np.subtract(theirs, own)) > 0.01)
                lowest = np.minimum(theirs, own)
                away.append(abs(q - 2.0 * max(lowest[0] - lowest[1], 0.0)) > 0.02)
    text = f"MOCK, share of {len(away)} toys of {len(specs)} workspaces whose q̃ is off by more than 0.02"
    how = f"lowest of {starts} random starts of Minuit and of ours; Minuit's higher in {np.mean(higher):.2%}"
    return row(text, float(np.mean(away)), 0.0, 0.003, how)


def _migrad(
    model: BinnedModel,
    counts: np.ndarray,
    aux: np.ndarray,
    room: tuple[float, float],
    starts: int,
    rng: np.random.Generator,
) -> float:
    """Return the lowest −ln L that Minuit finds."""
    low, high = model.low.copy(), model.high.copy()
    low[model.poi], high[model.poi] = room
    free = np.flatnonzero(~model.fixed & (low < high))
    width = np.where(np.isfinite(model.tau), model.tau**-0.5, model.width)[free]
    centre = np.where(np.isfinite(model.tau), aux / model.tau, aux)[free]
    x, found = np.where(model.fixed, model.start, low), np.inf

    def whole(values: np.ndarray) -> tuple[np.ndarray, ...]:
        x[free] = values
        return x[None], counts[None], aux[None]

    for _ in range(starts):
        anywhere = rng.uniform(np.maximum(low, 0.0)[free], np.minimum(high, 3.0)[free])
        begin = np.where(np.isfinite(width), centre + width * rng.standard_normal(free.size), anywhere)
        begin = np.clip(begin, low[free] + 1e-3, high[free] - 1e-3)
        fit = Minuit(
            lambda values: float(negative_log(model, *whole(values))[0]),
            begin,
            grad=lambda values: derivatives(model, *whole(values))[0][0, free],
        )
        fit.errordef, fit.limits = Minuit.LIKELIHOOD, list(zip(low[free], high[free], strict=True))
        found = min(found, float(fit.migrad().fval))
    return found


def _without_events(quick: bool) -> Iterator[dict]:
    """No observed event: asymptotic limits against exact ones, and what "auto" takes."""
    for background in (0.5,) if quick else (0.3, 0.5, 1.0):
        factor = {"name": "k", "type": "normfactor", "data": None}
        mc = _bins("staterror", "mc", [0.1 * background])
        channels = {
            "SR": [("signal", [1.0], [MU]), ("background", [background], [factor, mc])],
            "CR": [("background", [400.0], [factor])],
        }
        spec = _space(channels, {"SR": [0], "CR": [400]})
        spec["measurements"][0]["config"]["parameters"] = [{"name": "mu", "bounds": [[0.0, 100.0]]}]
        likelihood = Likelihood(spec, {}, {}, ())
        exact, _ = binned_limits(spec, cl=0.95, n_toys=4_000 if quick else 20_000)
        label = f"MOCK, no event at b = {expected_events(spec):g} beside a control region: limit at 95 % CL"
        yield row(f"{label}, toys", exact, np.log(20.0), 0.06, "ln 20: CLs = e^−s, toys to 2 %")
        weak, _ = strength_limits(likelihood, "workspace", cl=0.95, method="asymptotic")
        shortfall = 1.0 - weak / np.log(20.0)
        yield row(f"{label}, asymptotic one too strong by", shortfall, 0.0, np.nan, "ln 20") | {
            "measured": True
        }
        auto, _ = strength_limits(likelihood, "workspace", cl=0.95, method="auto")
        yield row(f'{label}, as "auto" sets it', auto, np.log(20.0), 0.15, "ln 20: 4000 toys, 5 % at three σ")
