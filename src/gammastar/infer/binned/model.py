"""A HistFactory workspace as arrays: expected events, their derivatives, and the constraints of nuisances.

The expectation of a bin is Σ_samples (nominal + Σ shifts(α)) Π factors, with the interpolations of ROOT's
HistFactory (pyhf's code4 and code4p) and, as there, without negative templates: what a shape pulls below
zero is zero. K. Cranmer et al., CERN-OPEN-2012-016.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.infer.binned.expectation import Expectation, SampleTerms, expectation_of
from gammastar.infer.histfactory.hs3 import staterrors
from gammastar.infer.histfactory.workspaces import MASKED

SMALLEST = 1e-9  # events; the logarithm of an expectation of zero is not finite
ALPHA, GAMMA, FACTOR = (-5.0, 5.0), (1e-10, 10.0), (0.0, 10.0)  # bounds as in pyhf
ONE_SIDED = 0.7  # even over odd part of what a nuisance does
KINDS = {"normfactor", "normsys", "histosys", "shapesys", "staterror", "shapefactor", "lumi"}


@dataclass(frozen=True, slots=True, eq=False)
class BinnedModel:
    """A likelihood of Poisson bins and constrained parameters."""

    events: Expectation  # Cells of all samples
    names: tuple[str, ...]  # Of the parameters, bins in brackets
    poi: int
    # shape (parameters,)
    start: FloatArray
    low: FloatArray
    high: FloatArray
    fixed: npt.NDArray[np.bool_]  # shape (parameters,)
    # Measured value and error of Gaussian constraints, counts of Poisson ones; nan without such a one, shape
    # (parameters,)
    centre: FloatArray
    width: FloatArray
    tau: FloatArray
    counts: FloatArray  # shape (bins,)
    masked: bool  # Counts are expected ones
    one_sided: npt.NDArray[np.int64]  # Nuisances that move events the same way for both signs

    def expected(self, x: FloatArray) -> FloatArray:
        """Return the expected events at parameters (sets, parameters), shape (sets, bins)."""
        return self.events.total(x)

    def penalty(self, x: FloatArray, aux: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return −ln of the constraints (without constants), its gradient and its diagonal curvature."""
        gauss, poisson = np.isfinite(self.width), np.isfinite(self.tau)
        value, gradient, curvature = np.zeros(len(x)), np.zeros(x.shape), np.zeros(x.shape)
        pull = (x[:, gauss] - aux[:, gauss]) / self.width[gauss]
        value += 0.5 * (pull**2).sum(axis=1)
        gradient[:, gauss], curvature[:, gauss] = pull / self.width[gauss], self.width[gauss] ** -2.0
        gamma, tau, seen = x[:, poisson], self.tau[poisson], aux[:, poisson]
        value += (gamma * tau - seen * np.log(gamma)).sum(axis=1)
        gradient[:, poisson], curvature[:, poisson] = tau - seen / gamma, np.maximum(seen, 1e-3) / gamma**2
        return value, gradient, curvature

    @property
    def aux(self) -> FloatArray:
        """Observed auxiliary measurements, shape (1, parameters): counts where they are counted."""
        return np.where(np.isfinite(self.tau), self.tau, self.centre)[None, :]

    def nll(self, x: FloatArray, counts: FloatArray, aux: FloatArray) -> FloatArray:
        """Return −ln L of data sets, with all constants, shape (sets,)."""
        mean = np.maximum(self.expected(x), SMALLEST)
        gauss, poisson = np.isfinite(self.width), np.isfinite(self.tau)
        constant = np.log(self.width[gauss] * np.sqrt(2.0 * np.pi)).sum()
        seen = aux[:, poisson]
        constant = constant + (gammaln(seen + 1.0) - seen * np.log(self.tau[poisson])).sum(axis=1)
        bins = (mean - counts * np.log(mean) + gammaln(counts + 1.0)).sum(axis=1)
        return np.asarray(bins + self.penalty(x, aux)[0] + constant, dtype=np.float64)


def signal_sigma(model: BinnedModel) -> float:
    """Return the uncertainty of all signal together, ln κ: one σ of each nuisance, in quadrature."""
    signal = (model.events.linear == model.poi).any(axis=1)
    error = np.where(np.isfinite(model.tau), model.tau**-0.5, model.width)
    moved = np.flatnonzero(np.isfinite(error) & ~model.fixed)
    centre = model.start.copy()
    centre[moved] = np.where(np.isfinite(model.tau), 1.0, model.centre)[moved]
    centre[model.poi] = 1.0
    shifts = np.zeros((moved.size, len(centre)))
    shifts[np.arange(moved.size), moved] = error[moved]
    sums = [
        np.maximum(
            model.events.cells(np.clip(centre + sign * shifts, model.low, model.high))[signal].sum(axis=0),
            1e-300,
        )
        for sign in (1.0, -1.0)
    ]
    return float(np.sqrt(((0.5 * np.log(sums[0] / sums[1])) ** 2).sum()))


@dataclass(slots=True)
class _Parameters:
    """Parameters as they are met in a workspace."""

    settings: Mapping[str, Mapping[str, Any]]
    rows: dict[str, tuple[float, ...]] = field(
        default_factory=dict
    )  # start, low, high, fixed, centre, width, tau

    def add(
        self, name: str, index: int | None, start: float, bounds: tuple[float, float], *constraint: float
    ) -> int:
        """Return the number of a parameter, made where it is new; the measurement may set it up otherwise."""
        label = name if index is None else f"{name}[{index}]"
        if label not in self.rows:
            setting, i = self.settings.get(name, {}), index or 0
            centre, width, tau = constraint or (np.nan, np.nan, np.nan)
            if "auxdata" in setting and np.isfinite(width):
                centre = float(setting["auxdata"][i])
            if "sigmas" in setting and np.isfinite(width):
                width = float(setting["sigmas"][i])
            low, high = setting["bounds"][i] if "bounds" in setting else bounds
            value = float(setting["inits"][i]) if "inits" in setting else start
            if not np.isfinite([value, low, high]).all():
                msg = (
                    f"parameter {label!r} of the measurement: {value}, bounds {low} to {high} must be finite"
                )
                raise PhysicsError(msg)
            held = float(bool(setting.get("fixed")) or (bool(constraint) and tau == 0.0))
            self.rows[label] = (
                value,
                float(low),
                float(high),
                held,
                centre,
                width,
                np.nan if tau == 0.0 else tau,
            )
        return list(self.rows).index(label)


NO_CONSTRAINT: tuple[float, ...] = ()


def binned_model(workspace: Mapping[str, Any]) -> BinnedModel:
    """Return a workspace as arrays."""
    config = workspace["measurements"][0]["config"]
    parameters = _Parameters({entry["name"]: entry for entry in config["parameters"]})
    observed = {o["name"]: o["data"] for o in workspace["observations"]}
    samples: list[SampleTerms] = []
    counts: list[float] = []
    for channel in workspace["channels"]:
        bins = len(channel["samples"][0]["data"])
        place = slice(len(counts), len(counts) + bins)
        counts += [float(n) for n in observed[channel["name"]]]
        errors = staterrors(channel)
        samples += [_terms(sample, place, errors, parameters) for sample in channel["samples"]]
    if config["poi"] not in parameters.rows:
        msg = f"exact limits: no sample carries the parameter of interest {config['poi']!r}"
        raise PhysicsError(msg)
    held = parameters.settings.get(config["poi"], {})
    if held.get("fixed") or "auxdata" in held or "sigmas" in held:
        msg = f"parameter {config['poi']!r}: the parameter of interest can be neither fixed nor constrained"
        raise PhysicsError(msg)
    table = np.array(list(parameters.rows.values()), dtype=np.float64)
    names = tuple(parameters.rows)
    poi = names.index(config["poi"])
    table[poi, 2] = max(table[poi, 2], 1e6)  # the statistic itself bounds the strength
    return BinnedModel(
        expectation_of(samples, len(counts), len(names)),
        names,
        poi,
        np.clip(table[:, 0], table[:, 1], table[:, 2]),
        table[:, 1],
        table[:, 2],
        table[:, 3] > 0,
        table[:, 4],
        table[:, 5],
        table[:, 6],
        np.array(counts),
        workspace["measurements"][0]["name"] == MASKED,
        _one_sided(samples, len(names)),
    )


def _one_sided(samples: Sequence[SampleTerms], parameters: int) -> npt.NDArray[np.int64]:
    odd, even = np.zeros(parameters), np.zeros(parameters)
    for s in samples:
        for p, o, e in s.shapes:
            odd[p] += np.abs(o).sum()
            even[p] += np.abs(e).sum()
        for p, low, high in s.norms:
            odd[p] += 0.5 * abs(high - low) * s.nominal.sum()
            even[p] += abs(0.5 * (high + low) - 1.0) * s.nominal.sum()
    return np.flatnonzero(even > ONE_SIDED * odd)


def _terms(
    sample: Mapping[str, Any], place: slice, errors: Mapping[str, Sequence[float]], parameters: _Parameters
) -> SampleTerms:
    nominal = np.asarray(sample["data"], dtype=np.float64)
    found = SampleTerms(place, nominal, [], [], [], [])
    for modifier in sample["modifiers"]:
        name, kind, data = modifier["name"], modifier["type"], modifier["data"]
        where = f"exact limits: sample {sample['name']!r}, {kind} {name!r}"
        if kind not in KINDS:
            msg = f"{where} is not of HistFactory"
            raise PhysicsError(msg)
        if kind == "histosys":
            p = parameters.add(name, None, 0.0, ALPHA, 0.0, 1.0, np.nan)
            high, low = (np.asarray(data[side], dtype=np.float64) for side in ("hi_data", "lo_data"))
            found.shapes.append((p, 0.5 * (high - low), 0.5 * (high + low) - nominal))
        elif kind == "normsys":
            if not min(data["hi"], data["lo"]) > 0:
                msg = f"{where}: its factors {data['hi']}, {data['lo']} must be positive"
                raise PhysicsError(msg)
            p = parameters.add(name, None, 0.0, ALPHA, 0.0, 1.0, np.nan)
            found.norms.append((p, float(data["lo"]), float(data["hi"])))
        elif kind == "normfactor":
            found.factors.append(parameters.add(name, None, 1.0, FACTOR))
        elif kind == "lumi":
            setting = parameters.settings.get(name, {})
            if not {"auxdata", "sigmas"} <= set(setting):
                msg = f"{where}: the measurement gives no auxdata and sigmas of it"
                raise PhysicsError(msg)
            found.factors.append(parameters.add(name, None, 1.0, FACTOR, 1.0, 1.0, np.nan))
        else:
            found.gammas.append(_bin_wise(name, kind, nominal, data, errors, parameters))
    if not all(
        np.isfinite(part).all() for part in (nominal, *(s for _, *pair in found.shapes for s in pair))
    ):
        msg = f"exact limits: sample {sample['name']!r} holds numbers that are not finite"
        raise PhysicsError(msg)
    return found


def _bin_wise(
    name: str,
    kind: str,
    nominal: FloatArray,
    data: Any,
    errors: Mapping[str, Sequence[float]],
    parameters: _Parameters,
) -> npt.NDArray[np.int64]:
    """Return the parameters of a shapefactor, shapesys (Poisson) or staterror (Gaussian), one per bin.

    Bins without events or without error have a factor that is held at one, as in pyhf.
    """
    numbers = []
    for i, events in enumerate(nominal):
        constraint: tuple[float, ...] = NO_CONSTRAINT
        bounds = FACTOR if kind == "shapefactor" else GAMMA
        if kind == "shapesys":
            tau = (events / data[i]) ** 2 if events > 0 and data[i] > 0 else 0.0
            constraint = (np.nan, np.nan, tau)
        elif kind == "staterror":
            width = float(errors[name][i])
            constraint = (1.0, width, np.nan) if width > 0 else (np.nan, np.nan, 0.0)
        numbers.append(parameters.add(name, i, 1.0, bounds, *constraint))
    return np.array(numbers)
