"""The joint likelihood as a HistFactory workspace, for pyhf, cabinetry and everything that reads them."""

from __future__ import annotations

from typing import Any

import numpy as np

from gammastar.core.records import FloatArray
from gammastar.infer.histfactory.modifiers import Modifiers, log_normal
from gammastar.infer.histfactory.workspaces import assemble, sample
from gammastar.infer.joint.expectation import arrays_of
from gammastar.infer.joint.model import CHARGES, FREE, JointEffect, JointModel

__all__ = ["CHANNELS", "joint_workspace"]

CHANNELS = ("opposite_sign", "plus_plus", "minus_minus", "search")
LARGEST = 1e3  # of free factors


def joint_workspace(model: JointModel, *, poi_maximum: float = 100.0) -> dict[str, Any]:
    """Return the workspace of a joint likelihood.

    Parameters
    ----------
    model : JointModel
    poi_maximum : float
        Upper bound of the signal strength ``mu``.

    Returns
    -------
    dict
        Channels ``opposite_sign``, ``plus_plus``, ``minus_minus`` and ``search``, the last one unless the
        model has none. Cell j is the sample ``pairs_j`` with the free factor ``cell_j``; its signal,
        ``signal_j``, has the factors ``mu`` and ``cell_j``. The like-sign content is a free factor
        ``like_sign`` per bin, the finite simulation the ``staterror`` called ``simulation``, each effect a
        ``normsys`` or ``histosys`` of its own name. A masked search holds its expected background.

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
