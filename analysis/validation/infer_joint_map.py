"""How often joint limits exclude a true signal, over signal, background and the errors of both."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
from validation.infer_toys import row

from gammastar.infer.joint.expectation import Point, arrays_of
from gammastar.infer.joint.limits import draw_joint, tail_probabilities
from gammastar.infer.joint.model import JointEffect, JointModel

LEVEL, PAIRS, CELLS, COMBINATORIAL = 0.10, 1000.0, 3, 50.0
SIGNALS = (3.0, 8.0)
BACKGROUNDS = ((0.3, 1.0), (0.3, 2.0), (3.0, 1.0), (3.0, 1.5), (3.0, 2.0))  # b and κ_b
KAPPAS = (1.0, 1.5, 2.0)  # κ_s


def excluded(s: float, b: float, kappas: tuple[float, float], n: int, toys: int) -> float:
    """Return the fraction of n pseudo-experiments of pairs, search and measurements with CLs < 0.1."""
    response = 0.4 * (0.8 * np.eye(CELLS) + 0.1)
    response /= response.sum(axis=0) / 0.4
    contents = np.array([0.5, 0.3, 0.2]) * PAIRS / 0.4
    shape = np.array([1.0, 2.0, 4.0])
    effects = (
        *((JointEffect("exposure", signal=float(np.log(kappas[0]))),) if kappas[0] > 1 else ()),
        *((JointEffect("background_norm", background=float(np.log(kappas[1]))),) if kappas[1] > 1 else ()),
    )
    model = JointModel(
        contents,
        response,
        np.zeros((CELLS, CELLS)),
        np.full((3, CELLS), COMBINATORIAL),
        (s * shape / (contents @ shape))[:, None],
        np.array([b]),
        np.array([0.0]),
        effects=effects,
    )
    arrays, rng = arrays_of(model), np.random.default_rng(7)
    core = np.r_[1.0, np.ones(CELLS), np.zeros(len(effects) + 1)]
    like, one = np.full(CELLS, COMBINATORIAL) / arrays.like[1], np.ones(CELLS)
    data = draw_joint(arrays, Point(core[None], like[None], one[None]), n, rng)
    clsb, clb, _ = tail_probabilities(arrays, data, 1.0, toys, rng)
    return float(np.mean(clsb < LEVEL * clb))


def map_rows(quick: bool) -> Iterator[dict]:
    """Show the fractions as they are, of full pseudo-experiments."""
    n, toys = (60, 50) if quick else (300, 150)
    for (b, kappa_b), kappa_s, s in product(BACKGROUNDS[-1:] if quick else BACKGROUNDS, KAPPAS, SIGNALS):
        text = f"P(CLs < 0.1), joint, {PAIRS:g} pairs, s = {s:g}, b = {b:g}, κ_b {kappa_b:g}, κ_s {kappa_s:g}"
        error = np.sqrt(LEVEL * (1 - LEVEL) / n)
        found = row(
            text, excluded(s, b, (kappa_s, kappa_b), n, toys), LEVEL, 3 * error, "definition of the level"
        )
        yield found | {"measured": True}
