"""Windows of 0 to 5 calibration pairs: fits of the joint likelihood against Minuit on that of pyhf."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyhf
from data_sets import joint_nll
from iminuit import Minuit
from validation.infer_joint import BINS, Window
from validation.infer_toys import row

from gammastar.infer.joint.expectation import arrays_of, fit, joint_workspace
from gammastar.infer.joint.limits import draw_joint
from gammastar.infer.joint.model import JointEffect, JointModel

PAIRS = range(6)
JUDGE = "Minuit on pyhf 0.7.6, from its start and from our minimum"


def few_pairs_rows(quick: bool) -> Iterator[dict]:
    worst, default, fits = -np.inf, 0, 0
    for seed in range(1 if quick else 8):
        for pairs in PAIRS:
            one = _window(pairs, seed)
            for strength in (1.0, None):
                ours, own, other = _fitted(one, strength)
                worst, default, fits = (
                    max(worst, ours - min(own, other)),
                    default + (other > ours + 1e-4),
                    fits + 1,
                )
    label = f"{fits} fits of windows with 0 to 5 pairs"
    yield row(f"{label}: −ln L above the lowest of the judge, most", worst, 0.0, 1e-4, JUDGE)
    yield row(f"{label}: those where pyhf's start ends higher", default, 0.0, np.nan, JUDGE) | {
        "measured": True
    }
    open_, toys = 0, 20 if quick else 200
    for seed in range(2 if quick else 10):
        for pairs in PAIRS:
            one = _window(pairs, seed)
            arrays = arrays_of(one)
            point = fit(arrays, one.data, 1.0).point
            drawn = draw_joint(arrays, point, toys, np.random.default_rng([seed, pairs]))
            for strength in (1.0, None):
                open_ += int((~fit(arrays, drawn, strength, most=1.0).done).sum())
    n = 2 * 6 * toys * (2 if quick else 10)
    yield row(f"of {n} fits of pseudo-experiments with 0 to 5 pairs, not ended", open_ / n, 0.0, 1e-4, "all")


def _window(pairs: int, seed: int) -> JointModel:
    """Return a window whose pairs are thrown into its bins, at a scale where μ = 1 is three events."""
    rng, counts = np.random.default_rng([seed, pairs]), np.zeros((3, BINS))
    for _ in range(pairs):
        counts[0 if rng.random() < 0.7 else rng.integers(1, 3), rng.integers(0, BINS)] += 1
    window = Window(max(pairs, 1.0))
    effects = (JointEffect("pot", signal=0.18), JointEffect("efficiency", response=-0.1 * window.response))
    seen = np.array([float(rng.integers(0, 4))])
    return replace(
        window.model(counts, variance=window.response / 300.0, observed=seen), effects=effects * (seed % 2)
    )


def _fitted(one: JointModel, strength: float | None) -> tuple[float, float, float]:
    """Return −ln L of our fit, and of Minuit from it and from pyhf's start."""
    arrays = arrays_of(one)
    found = fit(arrays, one.data, strength, most=1.0 if strength is None else np.inf)
    ours = float(joint_nll(arrays, found.point, one.data)[0])
    space = pyhf.Workspace(joint_workspace(one))
    built = space.model()
    data = space.data(built)
    core, j = found.point.core[0], len(one.pairs)
    own = {"mu": core[0], "like_sign": found.point.like[0], "simulation": found.point.gamma[0]}
    own |= {f"cell_{c}": core[1 + c] for c in range(j)} | {"charge_ratio": core[-1]}
    own |= {effect.name: core[1 + j + k] for k, effect in enumerate(one.effects)}
    start = np.array(built.config.suggested_init(), dtype=np.float64)
    mine = start.copy()
    for name in built.config.par_order:
        mine[built.config.par_slice(name)] = own[name]
    return ours, *(_minuit(built, data, begin, strength) for begin in (mine, start))


def _minuit(built: pyhf.Model, data: list[float], begin: np.ndarray, strength: float | None) -> float:
    def nll(x: np.ndarray) -> float:
        return float(np.nan_to_num(-built.logpdf(x, data)[0], nan=1e10, posinf=1e10))

    poi, bounds = built.config.poi_index, list(built.config.suggested_bounds())
    bounds[poi] = (0.0, 1.0)
    held, start = np.array(built.config.suggested_fixed()), np.clip(begin, *np.transpose(bounds))
    if strength is not None:
        start[poi], held[poi] = strength, True
    minuit = Minuit(nll, start)
    minuit.limits, minuit.errordef, minuit.fixed = bounds, 0.5, held
    with np.errstate(all="ignore"):
        minuit.migrad()
    return float(minuit.fval)
