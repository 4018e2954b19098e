"""Pulls of a joint fit, and what each of its parameters does to the fitted signal strength.

A parameter is fixed away from its fitted value, all others are fitted again, and μ moves. Cells, like-sign
contents and the finite simulation are parameters as the nuisances are: the pairs constrain them all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.infer.joint.expectation import Arrays, Curvature, Point, arrays_of, curvature, expected
from gammastar.infer.joint.fits import NEAR, fit, fit_held
from gammastar.infer.joint.limits import FARTHEST, unit_of
from gammastar.infer.joint.model import CHARGES, JointData, JointModel


@dataclass(frozen=True, slots=True, eq=False)
class JointImpacts:
    """Parameters in order of their impact."""

    names: tuple[str, ...]  # Nuisances by their names; ``cell_<j>``, ``like_sign_<i>``, ``simulation_<i>``
    strength: float  # Fitted μ
    # Fitted parameters and their standard deviations: factors of contents, nuisances in their own standard
    # deviations. A content that rests at zero has the distance at which −ln L is ½ higher, shape (n,)
    value: FloatArray
    error: FloatArray
    # Distance to the auxiliary measurement and standard deviation after the fit, both in standard deviations
    # before it; nan for free contents, shape (n,)
    pull: FloatArray
    constraint: FloatArray
    # Change of μ for the parameter one standard deviation below and above its fitted value, after and before
    # the fit; `prefit` is nan for free contents, shape (n, 2)
    postfit: FloatArray
    prefit: FloatArray


def joint_impacts(
    model: JointModel, strength: float = 1.0, *, data: JointData | None = None, most: int = 20
) -> JointImpacts:
    """Return the impacts of the parameters on μ.

    Notes
    -----
    A content, which cannot be negative, is moved by a factor e^{±σ/value}.
    """
    unit = unit_of(replace(model, observed=None))
    arrays = arrays_of(model.scaled(unit))
    seen = _predicted(model, arrays, strength / unit) if data is None else data
    found = fit(arrays, seen, None, most=FARTHEST).point
    if found.core[0, 0] <= NEAR:
        msg = "joint_impacts: the fit finds no signal, on whose strength a parameter could have an impact"
        raise PhysicsError(msg)
    every = _Parameters.of(arrays, seen, found)
    chosen = np.argsort(-np.abs(every.slope * every.error), kind="stable")[:most]
    moved = [every.moved(chosen, sign * every.error[chosen]) for sign in (-1.0, 1.0)]
    moved += [every.moved(chosen, sign * every.prior[chosen]) for sign in (-1.0, 1.0)]
    shifts = every.refitted(arrays, seen, np.tile(chosen, 4), np.concatenate(moved)).reshape(4, -1).T * unit
    postfit, prefit = shifts[:, :2], shifts[:, 2:]
    order = np.argsort(-np.abs(postfit).max(axis=1), kind="stable")
    rows = chosen[order]
    names = _names(model, arrays)
    return JointImpacts(
        tuple(names[k] for k in rows),
        unit * float(found.core[0, 0]),
        every.value[rows],
        every.error[rows],
        (every.value - every.centre)[rows] / every.prior[rows],
        every.error[rows] / every.prior[rows],
        postfit[order],
        np.where(np.isfinite(every.prior[rows])[:, None], prefit[order], np.nan),
    )


def _predicted(model: JointModel, arrays: Arrays, strength: float) -> JointData:
    """Return the measured pairs with the search that they and a strength predict."""
    if model.in_situ is not None:
        msg = "joint_impacts: pairs with signal in themselves predict no search; give `data`"
        raise PhysicsError(msg)
    point = fit(arrays, model.with_search(model.background), 0.0).point
    core = point.core.copy()
    core[:, 0] = strength
    return model.with_search(expected(arrays, Point(core, point.like, point.gamma)).search)


def _names(model: JointModel, arrays: Arrays) -> list[str]:
    i, j = arrays.cells.shape
    named = [f"cell_{c}" for c in range(j)] + [effect.name for effect in model.effects] + [CHARGES]
    return named + [f"like_sign_{b}" for b in range(i)] + [f"simulation_{b}" for b in range(i)]


@dataclass(frozen=True, slots=True, eq=False)
class _Parameters:
    """All parameters but μ of one fit: core without μ, then like, then gamma, shape (n,) each.

    `prior` is the standard deviation before the fit (nan: free), `centre` its centre, `slope` dμ/dp with all
    others fitted again.
    """

    point: Point
    value: FloatArray
    error: FloatArray
    slope: FloatArray
    prior: FloatArray
    centre: FloatArray

    @classmethod
    def of(cls, arrays: Arrays, data: JointData, point: Point) -> _Parameters:
        i, j = arrays.cells.shape
        bent = curvature(arrays, point, data)
        value = np.concatenate([point.core[0], point.like[0], point.gamma[0]])
        gradient = np.concatenate([bent.core[0], bent.bins[0, :, 0], bent.bins[0, :, 1]])
        content = np.ones(len(value), dtype=bool)
        content[1 + j : point.core.shape[1]] = False
        fixed = np.zeros(len(value), dtype=bool)
        fixed[len(value) - i :] = arrays.sigma <= 0
        resting = content & (value <= NEAR) & (gradient > 0)
        free = ~fixed & ~resting
        hessian = _whole(bent)
        inverse = np.linalg.pinv(hessian[np.ix_(free, free)], hermitian=True)
        error, slope = np.zeros(len(value)), np.zeros(len(value))
        variance = np.maximum(np.diag(inverse), 0.0)
        error[free] = np.sqrt(variance)
        slope[free] = np.divide(inverse[0], variance, out=np.zeros_like(variance), where=variance > 0)
        answer = -inverse @ hessian[np.ix_(free, resting)]  # of the free parameters to one that rests
        slope[resting] = answer[0]
        bend = np.diag(hessian)[resting] + (hessian[np.ix_(resting, free)] * answer.T).sum(axis=1)
        error[resting] = 1.0 / (gradient[resting] + np.sqrt(gradient[resting] ** 2 + np.maximum(bend, 0.0)))
        prior, centre = np.full(len(value), np.nan), np.zeros(len(value))
        prior[1 + j : point.core.shape[1]] = 1.0
        centre[1 + j : point.core.shape[1]] = data.auxiliary[0]
        prior[len(value) - i :] = np.where(arrays.sigma > 0, arrays.sigma, np.nan)
        centre[len(value) - i :] = data.simulated[0]
        return cls(point, *(x[1:] for x in (value, error, slope, prior, centre)))

    @property
    def _content(self) -> npt.NDArray[np.bool_]:
        """Which of them cannot be negative."""
        content = np.ones(len(self.value), dtype=bool)
        content[: self.point.core.shape[1] - 1] = np.isnan(self.prior[: self.point.core.shape[1] - 1])
        return content

    def moved(self, rows: npt.NDArray[np.intp], step: FloatArray) -> FloatArray:
        """Return the values of some parameters after a step; contents stay positive."""
        value, step = self.value[rows], np.nan_to_num(step)
        above = self._content[rows] & (value > NEAR)
        factor = np.exp(np.clip(np.divide(step, value, out=np.zeros_like(step), where=above), -20.0, 20.0))
        plain = np.where(self._content[rows], np.maximum(value + step, 0.0), value + step)
        return np.where(above, value * factor, plain)

    def refitted(
        self, arrays: Arrays, data: JointData, rows: npt.NDArray[np.intp], values: FloatArray
    ) -> FloatArray:
        """Return the changes of μ with one parameter each fixed at a value, all others fitted again."""
        n, m, i = len(rows), self.point.core.shape[1], self.point.like.shape[1]
        every = np.zeros(n, dtype=np.intp)
        start = np.concatenate([np.repeat(self.point.core[:, :1], n, axis=0), np.tile(self.value, (n, 1))], 1)
        held = np.zeros(start.shape)
        at = np.arange(n), 1 + rows
        start[at], held[at] = values, 1.0
        cut = [slice(0, m), slice(m, m + i), slice(m + i, m + 2 * i)]
        found = fit_held(
            arrays,
            data.part(every),
            Point(*(start[:, part] for part in cut)),
            Point(*(held[:, part] for part in cut)),
            most=FARTHEST,
        )
        return np.asarray(found.point.core[:, 0] - self.point.core[0, 0], dtype=np.float64)


def _whole(bent: Curvature) -> FloatArray:
    """Return the Hessian of one data set with the bins written out: core, like, gamma."""
    m, i = bent.core.shape[1], bent.bins.shape[1]
    whole = np.zeros((m + 2 * i, m + 2 * i))
    whole[:m, :m] = bent.core_core[0]
    for a in (0, 1):
        rows = slice(m + a * i, m + (a + 1) * i)
        whole[rows, :m], whole[:m, rows] = bent.bins_core[0, :, a], bent.bins_core[0, :, a].T
        for b in (0, 1):
            whole[rows, m + b * i : m + (b + 1) * i] = np.diag(bent.bins_bins[0, :, a, b])
    return whole
