"""The contract of an unfolding method."""

from __future__ import annotations

import numpy as np

from gammastar.core.axes import filled, regular
from gammastar.core.errors import UserError
from gammastar.core.records import FloatArray, Response, Spectrum
from gammastar.core.sampling import stream
from gammastar.testing.contracts import Contract
from gammastar.unfold import Unfolder, without_replicas
from gammastar.unfold.closure_tests import drawn_again
from gammastar.unfold.methods import own_method

__all__ = ["check_unfolder"]

CELLS, RESOLUTION, SIZE = 10, 0.04, 20_000.0  # true cells; GeV; pairs of the simulation


def check_unfolder(unfolder: Unfolder, *, most: float = 1.0) -> None:
    """Check that a function can be ``[unfold] method``: a smeared MOCK spectrum of 10 cells is unfolded.

    Parameters
    ----------
    unfolder : function (measured, response) → Spectrum
        See `gammastar.unfold.methods.own_method`.
    most : float
        Largest mean distance to the truth, where data are the exact expectation of the simulated spectrum,
        in standard deviations.

    Raises
    ------
    ContractError
        If the result is no spectrum of counts on ``response.true`` with a covariance; if another call gives
        another one; if ``measured`` or ``response`` are changed; if variances in the domain are not positive,
        or do not grow with those of the data; or if the truth is not found.
    """
    contract = Contract("unfolding method", getattr(unfolder, "__name__", unfolder))
    response, truth = _response()
    measured = _measured(response, truth)
    before = [a.copy() for a in (measured.values, measured.cov, response.migration, response.prior)]
    try:
        checked, _ = own_method(unfolder, "result").prepare(measured, response, None)  # type: ignore[arg-type]
        first, again = checked(measured, response), checked(measured, response)
        exact = checked(measured, without_replicas(response))
        wide = checked(_measured(response, truth, 4.0), without_replicas(response))
    except UserError as error:
        contract.need(condition=False, problem=str(error))
        contract.settle()
        return
    after = (measured.values, measured.cov, response.migration, response.prior)
    for name, old, new in zip(
        ("measured", "its covariance", "migration", "prior"), before, after, strict=True
    ):
        contract.close(new, old, f"{name} was changed in place")
    contract.close(again.values, first.values, "another call with the same data gives other values")
    contract.close(again.cov, first.cov, "another call with the same data gives another covariance")
    inside, variance = first.domain.ravel(), np.diag(first.cov)
    contract.need((variance[inside] > 0).all(), "cells of the domain need a variance above 0")
    errors = [np.sqrt(max(float(one.cov.sum()), 0.0)) for one in (exact, wide)]
    contract.need(
        errors[1] > 1.5 * errors[0],
        f"data of twice the error have {errors[1] / max(errors[0], 1e-300):.3g} times it",
    )
    pull = (first.values.ravel() - truth)[inside] / np.sqrt(np.maximum(variance[inside], 1e-300))
    contract.need(
        bool(np.abs(pull).mean() < most),
        f"of the exact expectation the truth is missed by {np.abs(pull).mean():.3g} standard deviations",
    )
    contract.settle()


def _response() -> tuple[Response, FloatArray]:
    """Return a smeared response of a finite simulation, and the true spectrum of it."""
    reco, true = (regular("mass", 2 * CELLS, 0.2, 1.2),), (regular("mass", CELLS, 0.2, 1.2),)
    (measured,), (cells,) = reco, true
    distance = measured.centers[:, None] - cells.centers[None, :]
    migration = np.exp(-0.5 * (distance / RESOLUTION) ** 2)
    migration *= np.linspace(0.3, 0.7, CELLS) / migration.sum(axis=0)
    prior = np.exp(-cells.centers / 0.4)
    prior *= SIZE / prior.sum()
    empty = np.zeros((0, *migration.shape))
    efficiency, fakes = migration.sum(axis=0), np.zeros(2 * CELLS)
    exact = Response(migration, efficiency, fakes, reco, true, prior, empty, empty[:, 0])
    known = drawn_again(exact, 30, stream(1, "contract"))
    return known, known.prior


def _measured(response: Response, truth: FloatArray, scale: float = 1.0) -> Spectrum:
    """Return the exact expectation with the covariance of a Poisson law, times a factor."""
    values = response.migration @ truth
    cov = np.diag(scale * np.maximum(values, 1.0))
    everything = np.ones(len(values), dtype=np.bool_)
    return Spectrum(filled(response.reco, values, np.diag(cov)), cov, "counts", None, everything)
