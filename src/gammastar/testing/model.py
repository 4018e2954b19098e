"""The contract of a dark-sector model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gammastar.core.constants import M_E, M_MU
from gammastar.core.errors import UserError
from gammastar.core.records import FloatArray
from gammastar.predict import Labels, Model, VectorModel
from gammastar.testing.contract import Contract

__all__ = ["check_model"]

NO_RATE = (
    "rate_ratio(mass): say how many particles are made per squared coupling over dark photons per ε²; "
    "np.ones_like(mass) for kinetic mixing"
)
_LEPTONS = {"ee": M_E, "mumu": M_MU}


def check_model(
    model: Model,
    *,
    masses: Sequence[float] = (0.05, 0.3, 0.6),
    couplings: Sequence[float] = (1e-8, 1e-6, 1e-4),
) -> None:
    """Check that a model can be used for a scan in mass and coupling.

    Parameters
    ----------
    model : Model
    masses : sequence of float [GeV]
        Inside the domain of the model.
    couplings : sequence of float
        Increasing and positive.

    Raises
    ------
    ContractError
        If lifetimes have the wrong shape, are not positive or grow with the coupling; if branching ratios
        are not in [0, 1], do not sum to one (to zero, if stable) or are open below a lepton threshold; or if
        masses and couplings outside the domain are accepted; if the rate over that of dark photons has the
        wrong shape or is not positive and finite; if `labels` is none, or limits are to be recast although cτ
        does not go as 1/g².
    """
    contract = Contract("model", model)
    if not contract.need(isinstance(model, Model), "derive it from gammastar.predict.Model"):
        contract.settle()
    grid = np.asarray(couplings, dtype=np.float64)
    threshold = [2 * M_MU] if min(masses) < 2 * M_MU < max(masses) else []
    contract.need(np.isfinite(model.charge), f"charge = {model.charge!r} must be a number")
    _rate(contract, model, masses)
    labelled = contract.need(isinstance(model.labels, Labels), f"labels = {model.labels!r} must be a Labels")
    recast = labelled and model.labels.limits == "recast"
    names = set()
    for mass in (*masses, *threshold):
        ctau = _lifetimes(contract, model, mass, grid)
        if recast and np.isfinite(ctau).all():
            square = "labels: limits that are recast need ctau as 1/coupling², "
            contract.close(
                ctau * grid**2 / (ctau[0] * grid[0] ** 2), np.ones(len(grid)), square + f"{mass:g} GeV"
            )
        names.add(_branching(contract, model, mass, ctau))
        _state(contract, model, mass, float(grid[0]))
    contract.need(len(names) == 1, "branching: name the same final states at every mass, closed ones with 0")
    for what, mass, coupling in (("mass", -1.0, grid[0]), ("coupling", masses[0], -1.0)):
        contract.need(
            _refuses(model, mass, float(coupling)), f"at: a negative {what} must raise a PhysicsError"
        )
    contract.settle()


def _rate(contract: Contract, model: Model, masses: Sequence[float]) -> None:
    """Look at the rate over that of dark photons: of all masses at once and of one by one."""
    if not contract.need(type(model).rate_ratio is not Model.rate_ratio, NO_RATE):
        return
    grid = np.array(masses, dtype=np.float64)
    # a vector with charges of its own needs the shares of the processes: one of them stands for all
    options: dict[str, Any] = {"shares": {"eta_dalitz": 1.0}} if isinstance(model, VectorModel) else {}
    found = np.asarray(model.rate_ratio(grid, **options), dtype=np.float64)
    if not contract.need(
        found.shape == grid.shape, f"rate_ratio: shape {found.shape} for masses of shape {grid.shape}"
    ):
        return
    contract.need(
        bool((np.isfinite(found) & (found > 0)).all()), f"rate_ratio: {found} must be positive and finite"
    )
    single = [np.asarray(model.rate_ratio(grid[i : i + 1], **options)).item() for i in range(len(grid))]
    contract.close(single, found, "rate_ratio: must not depend on the other masses asked for")


def _lifetimes(contract: Contract, model: Model, mass: float, grid: FloatArray) -> FloatArray:
    ctau = np.asarray(model.ctau(mass, grid), dtype=np.float64)
    where = f"at {mass:g} GeV"
    if not contract.need(
        ctau.shape == grid.shape, f"ctau: shape {ctau.shape} for couplings of shape {grid.shape}"
    ):
        return np.full_like(grid, np.nan)
    contract.need((ctau > 0).all(), f"ctau: {ctau} m {where} must be positive (inf if stable)")
    contract.need(
        (ctau[1:] <= ctau[:-1]).all(), f"ctau: {ctau} m {where} must not grow with the coupling {grid}"
    )
    contract.close(
        model.ctau(mass, grid[:, None]), ctau[:, None], "ctau: must keep any shape of the couplings"
    )
    contract.close(model.ctau(mass, float(grid[0])), ctau[0], "ctau: a scalar coupling must give a scalar")
    return ctau


def _branching(contract: Contract, model: Model, mass: float, ctau: FloatArray) -> frozenset[str]:
    branching = dict(model.branching(mass))
    values, where = np.asarray(list(branching.values()), dtype=np.float64), f"at {mass:g} GeV"
    good = np.isfinite(values) & (values >= 0) & (values <= 1)
    contract.need(good.all(), f"branching: {branching} {where} must lie between 0 and 1")
    total = values.sum()
    stable = bool(np.isinf(ctau).all())
    contract.need(
        abs(total - (0.0 if stable else 1.0)) < 1e-6,
        f"branching: sums to {total:g} {where}, must be {'0 for a stable particle' if stable else '1'}",
    )
    for state, lepton in _LEPTONS.items():
        contract.need(
            mass > 2 * lepton or branching.get(state, 0.0) == 0,
            f"branching: {state!r} is open {where}, at or below its threshold",
        )
    return frozenset(branching)


def _state(contract: Contract, model: Model, mass: float, coupling: float) -> None:
    state = model.at(mass, coupling)
    contract.close(
        [state.mass, state.coupling, state.ctau, state.charge],
        [mass, coupling, model.ctau(mass, coupling), model.charge],
        "at: must hold the mass, coupling, ctau and charge of the model",
    )
    contract.need(dict(state.branching) == dict(model.branching(mass)), "at: must hold the branching ratios")


def _refuses(model: Model, mass: float, coupling: float) -> bool:
    try:
        model.at(mass, coupling)
    except UserError:
        return True
    return False
