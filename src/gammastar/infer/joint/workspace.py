"""The joint likelihood as HistFactory workspace and patch set, for pyhf, cabinetry and what reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.infer.histfactory.modifiers import Modifiers, log_normal
from gammastar.infer.histfactory.patchsets import patch_document, signal_steps
from gammastar.infer.histfactory.workspaces import assemble, sample
from gammastar.infer.joint.expectation import arrays_of
from gammastar.infer.joint.model import CHARGES, FREE, JointEffect, JointModel

CHANNELS = ("opposite_sign", "plus_plus", "minus_minus", "search")
LARGEST = 1e3  # of free factors
DESCRIPTION = "Expected signal of each cell per mass and coupling, on pairs and search; test mu = 1."


def joint_workspace(model: JointModel, *, poi_maximum: float = 100.0) -> dict[str, Any]:
    """Return the workspace of a joint likelihood.

    Notes
    -----
    HistFactory: CERN-OPEN-2012-016; the JSON form is that of pyhf. With interpolation codes 4 and 4p, which
    pyhf and ROOT take by default, its likelihood is that of `fit` to rounding.
    """
    arrays, j = arrays_of(model), len(model.pairs)
    free: Modifiers = [{"name": "like_sign", "type": "shapefactor", "data": None}]
    counted = np.sqrt(model.variance) * model.pairs
    opposite = []
    for cell in range(j):
        nominal = arrays.cells[:, cell]
        listed = [_cell(cell), *_shifts(model, cell, nominal)]
        if arrays.sigma.any():
            listed.append({"name": "simulation", "type": "staterror", "data": counted[:, cell].tolist()})
        opposite.append(sample(f"pairs_{cell}", nominal, listed))
        if arrays.in_situ[:, cell].any():
            modifiers = [_cell(cell), *_logs(model, lambda e, c=cell: _signal(e, j)[c])]
            opposite.append(sample(f"signal_{cell}", arrays.in_situ[:, cell], modifiers, signal=True))
    for name, values in model.templates.items():
        opposite.append(sample(name, values, _logs(model, lambda e, n=name: e.templates.get(n, 0.0))))
    opposite.append(sample("combinatorial", arrays.like[0], free, _logs(model, lambda e: e.r_factor)))
    channels = {CHANNELS[0]: opposite}
    for channel, values, sign in zip(CHANNELS[1:3], arrays.like[1:], (-FREE, FREE), strict=True):
        channels[channel] = [sample("combinatorial", values, free, [_log(CHARGES, sign)])]
    observed: dict[str, Any] = dict(zip(CHANNELS[:3], model.counts, strict=True))
    if model.background.size:
        channels[CHANNELS[3]] = [
            sample(
                f"signal_{cell}",
                arrays.signal[cell],
                [_cell(cell), *_logs(model, lambda e, c=cell: _signal(e, j)[c])],
                signal=True,
            )
            for cell in range(j)
            if arrays.signal[cell].any()
        ]
        channels[CHANNELS[3]].append(
            sample("background", model.background, _logs(model, lambda e: e.background))
        )
        observed[CHANNELS[3]] = "masked" if model.observed is None else model.observed
    spec = assemble(channels, observed, poi_maximum=poi_maximum)
    parameters = spec["measurements"][0]["config"]["parameters"]
    parameters += [
        {"name": name, "inits": [1.0], "bounds": [[0.0, LARGEST]]} for name in (f"cell_{c}" for c in range(j))
    ]
    n = len(model.counts[0])
    parameters.append({"name": "like_sign", "inits": [1.0] * n, "bounds": [[0.0, LARGEST]] * n})
    return spec


@dataclass(frozen=True, slots=True, eq=False)
class GridPoint:
    """What one grid point puts into the search."""

    mass: float  # [GeV]
    coupling: float
    signal: FloatArray  # Events per true pair at μ = 1, shape (j,)
    # ln κ of the signal of all cells by the name of its nuisance, beside those of the workspace
    sigmas: Mapping[str, float]


def joint_patchset(
    model: JointModel,
    points: Sequence[GridPoint],
    *,
    coupling_name: str = "eps",
    hepdata: str = "ins0000000",
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the background-only workspace of a mass window, and the patches that put a signal into it."""
    if len(model.background) != 1:
        raise PhysicsError(
            f"joint_patchset: the search has {len(model.background)} bins; signals are put into one"
        )
    spec = joint_workspace(model)
    channel = CHANNELS.index("search")
    samples = spec["channels"][channel]["samples"]
    cells = np.flatnonzero(model.signal.any(axis=1))
    for one in samples[: len(cells)]:
        one["data"] = [0.0]
    outside = np.delete(np.stack([point.signal for point in points]), cells, axis=1).any(axis=1)
    if outside.any():
        at = points[int(outside.argmax())]
        raise PhysicsError(
            f"joint_patchset: the point at {at.mass:g} GeV and {at.coupling:g} has signal in a cell "
            "where the model has none; give the model the largest signal of all points"
        )
    where = f"/channels/{channel}/samples"
    patches = [
        [
            step
            for place, cell in enumerate(cells)
            for step in signal_steps(
                f"{where}/{place}",
                samples[place]["name"],
                [float(point.signal[cell] * model.pairs[cell])],
                point.sigmas,
            )
        ]
        for point in points
    ]
    mass, coupling = (np.array([getattr(point, name) for point in points]) for name in ("mass", "coupling"))
    return spec, patch_document(spec, mass, coupling, patches, about=(coupling_name, hepdata, DESCRIPTION))


def _cell(cell: int) -> dict[str, Any]:
    return {"name": f"cell_{cell}", "type": "normfactor", "data": None}


def _signal(effect: JointEffect, j: int) -> FloatArray:
    return np.broadcast_to(np.asarray(effect.signal, dtype=np.float64), (j,))


def _log(name: str, sigma: float) -> dict[str, Any]:
    """Return a log-normal factor that may fall with its nuisance."""
    (found,) = log_normal(name, abs(sigma))
    if sigma < 0:
        found["data"] = {"hi": found["data"]["lo"], "lo": found["data"]["hi"]}
    return found


def _logs(model: JointModel, of: Any) -> Modifiers:
    """Return the log-normal factors of one sample."""
    return [_log(effect.name, float(of(effect))) for effect in model.effects if of(effect) != 0.0]


def _shifts(model: JointModel, cell: int, nominal: FloatArray) -> Modifiers:
    """Return the shifts of the response of one cell; linear, and so the same up and down."""
    found: Modifiers = []
    for effect in model.effects:
        if effect.response is None or not effect.response[:, cell].any():
            continue
        step = effect.response[:, cell] * model.pairs[cell]
        data = {"hi_data": (nominal + step).tolist(), "lo_data": (nominal - step).tolist()}
        found.append({"name": effect.name, "type": "histosys", "data": data})
    return found
