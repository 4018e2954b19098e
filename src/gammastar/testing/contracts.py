"""Contracts of what users add, each checked by one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gammastar.core.axes import filled, regular
from gammastar.core.constants import M_E, M_MU
from gammastar.core.errors import UserError
from gammastar.core.records import FloatArray, PairHists, Response, Sample, Spectrum
from gammastar.core.sampling import stream
from gammastar.physics.detector import Detector
from gammastar.physics.geometry import Geometry
from gammastar.predict import Channel, Labels, Model, VectorModel
from gammastar.read import Schema, examine, load_schema
from gammastar.subtract.estimate import own_subtraction
from gammastar.unfold.closure_tests import drawn_again
from gammastar.unfold.folding import Unfolder
from gammastar.unfold.methods import own_method
from gammastar.unfold.response_matrix import without_replicas


class ContractError(AssertionError):
    """An extension that breaks the contract of its kind; the message lists every point."""


class Contract:
    """The points that one object has to meet.

    Parameters
    ----------
    kind : str
        What the object is, for the message.
    """

    def __init__(self, kind: str, thing: object) -> None:
        name = thing if isinstance(thing, str) else type(thing).__name__
        self._title = f"{kind} {name}"
        self._problems: list[str] = []

    def need(self, condition: bool | np.bool_, problem: str) -> bool:
        """Note a problem unless the condition holds; return the condition."""
        if not condition and problem not in self._problems:
            self._problems.append(problem)
        return bool(condition)

    def close(
        self, found: Any, expected: Any, problem: str, *, rtol: float = 1e-9, atol: float = 0.0
    ) -> bool:
        """Note a problem unless two arrays agree in shape and value (nan equals nan)."""
        a, b = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
        same = a.shape == b.shape and np.allclose(a, b, rtol=rtol, atol=atol, equal_nan=True)
        return self.need(same, problem)

    def settle(self) -> None:
        """Raise if a problem was noted."""
        if self._problems:
            lines = "".join(f"\n  - {problem}" for problem in self._problems)
            raise ContractError(f"{self._title} breaks its contract:{lines}")


def check_schema(
    schema: Schema | Mapping[str, Any] | str | Path,
    file: str | Path | None = None,
    *,
    truth: bool = False,
    entries: int = 20_000,
    accept: tuple[str, ...] = (),
) -> None:
    """Check a schema and, with a file, that its branches hold what it says.

    Parameters
    ----------
    file : path, optional
        ROOT file to read with it.
    truth : bool
        Read the true virtual photons as well.
    entries : int
        How many entries of the file to look at.
    accept : tuple of str
        Keys whose warnings are known and right, e.g. ``("unit",)`` for an experiment of unusual momenta.
        Errors cannot be accepted.

    Raises
    ------
    ContractError
        If the schema cannot be used or lacks branches in the file, or for any finding of `read.examine`.
    """
    name = schema if isinstance(schema, str | Path) else getattr(schema, "tree", "mapping")
    try:
        ready = schema if isinstance(schema, Schema) else load_schema(schema)
    except UserError as error:
        raise ContractError(f"schema {name} breaks its contract:\n  - {error}") from error
    contract = Contract("schema", str(name))
    found = () if file is None else examine(file, ready, truth=truth, entries=entries)
    for finding in found:
        known = finding.level == "warning" and finding.key in accept
        contract.need(known, f"{finding.where}: {finding.message}")
    contract.settle()


def check_channel(
    channel: Channel, *, masses: Sequence[float] = (0.3, 0.5), n: int = 2000, beam_energy: float = np.inf
) -> None:
    """Check that a channel gives rates and samples that the yields can use.

    Parameters
    ----------
    masses : sequence of float [GeV]
        Inside the domain of the channel.
    n : int
        Particles to produce at each mass.
    beam_energy : float [GeV]
        No particle may reach it.

    Raises
    ------
    ContractError
        If group or processes are not named; if rates are negative or their covariance is none; if weights do
        not sum to the rate, particles are off their mass shell, or the same random stream gives another
        sample.
    """
    contract = Contract("channel", channel)
    if not contract.need(isinstance(channel, Channel), "derive it from gammastar.predict.Channel"):
        contract.settle()
    group, processes = getattr(channel, "group", None), getattr(channel, "processes", None)
    contract.need(isinstance(group, str) and bool(group), f"group = {group!r} must be a name")
    contract.need(
        isinstance(processes, frozenset) and bool(processes) and all(isinstance(p, str) for p in processes),
        f"processes = {processes!r} must be a frozenset of names: they keep channels from double counting",
    )
    rate = _rates(contract, channel, np.asarray(masses, dtype=np.float64))
    for mass, value in zip(masses, rate, strict=True):
        _produced(contract, channel, mass, float(value), (n, beam_energy))
    contract.settle()


def _rates(contract: Contract, channel: Channel, masses: FloatArray) -> FloatArray:
    rate, cov = (np.asarray(x, dtype=np.float64) for x in channel.rate(masses))
    n = len(masses)
    shaped = contract.need(
        rate.shape == (n,) and cov.shape == (n, n),
        f"rate: shapes {rate.shape}, {cov.shape} for {n} masses, must be ({n},), ({n}, {n})",
    )
    if not shaped:
        return np.full(n, np.nan)
    contract.need((np.isfinite(rate) & (rate >= 0)).all(), f"rate: {rate} must not be negative or nan")
    if contract.need(np.isfinite(cov).all(), "rate: the covariance holds values that are not finite"):
        scale = max(float(np.abs(cov).max()), np.finfo(float).tiny)
        contract.close(cov, cov.T, "rate: the covariance must be symmetric", atol=1e-12 * scale)
        lowest = np.linalg.eigvalsh(cov / scale).min()
        contract.need(lowest > -1e-9, "rate: the covariance has a negative eigenvalue")
    alone = np.concatenate([np.asarray(channel.rate(masses[i : i + 1])[0]) for i in range(n)])
    contract.close(alone, rate, "rate: one mass alone must give the same rate as among others")
    return rate


def _produced(
    contract: Contract, channel: Channel, mass: float, rate: float, limits: tuple[int, float]
) -> None:
    n, beam_energy = limits
    sample = channel.produce(mass, n=n, rng=stream(1, "contract"))
    if not contract.need(isinstance(sample, Sample), "produce: must return a Sample"):
        return
    where = f"at {mass:g} GeV"
    contract.need(len(sample.weight) == n, f"produce: {len(sample.weight)} particles {where}, asked for {n}")
    contract.need(
        (np.isfinite(sample.weight) & (sample.weight >= 0)).all(),
        f"produce: weights {where} must be finite and not negative",
    )
    total = float(sample.weight.sum())
    contract.close(total, rate, f"produce: weights sum to {total:g} {where}, the rate is {rate:g}", rtol=1e-6)
    contract.need(sample.in_domain.dtype == np.bool_, "produce: in_domain must be an array of bool")
    contract.need(np.isfinite(sample.origin).all(), "produce: origins must be finite")
    p = _components(sample)
    off_shell = np.abs(p[3] ** 2 - np.sum(p[:3] ** 2, axis=0) - mass**2)
    contract.need(
        bool((off_shell < 1e-3 * mass**2 + 1e-9 * p[3] ** 2).all()), f"produce: particles {where} off shell"
    )
    contract.need(
        (p[3] < beam_energy).all(), f"produce: energies {where} reach the beam, {beam_energy:g} GeV"
    )
    again = channel.produce(mass, n=n, rng=stream(1, "contract"))
    contract.close(_components(again), p, "produce: the same random stream must give the same sample")
    other = channel.produce(mass, n=n, rng=stream(2, "contract"))
    contract.need(
        not np.array_equal(_components(other), p), "produce: another random stream must give another sample"
    )


def _components(sample: Sample) -> FloatArray:
    p4 = sample.p4
    return np.stack([np.asarray(c, dtype=np.float64) for c in (p4.px, p4.py, p4.pz, p4.E)])


def check_geometry(
    volume: Geometry | Detector, *, origin: tuple[float, float, float] = (0.0, 0.0, 0.0), n: int = 4000
) -> None:
    """Check that a volume returns the same chord from wherever on the line one looks.

    Parameters
    ----------
    volume : Geometry or Detector
        Of a detector, its volume as seen from its target, and that planes and magnet stand behind its entry.
    origin : tuple of float [m]
        From where lines start; not used for a detector.
    n : int
        Number of forward lines, their angles to the beam uniform in the logarithm from 0.1 mrad.

    Raises
    ------
    ContractError
        If chords have the wrong shape or order, no line hits, the length of the direction matters, a start
        nearer to the volume, inside or behind it gives another chord, or `is_bounded` is not true to it.
    """
    contract = Contract("volume", volume)
    detector = volume if isinstance(volume, Detector) else None
    shape = detector.volume if detector is not None else volume
    if not isinstance(shape, Geometry):
        contract.need(False, "derive it from gammastar.physics.geometry.Geometry")
        contract.settle()
        return
    start = np.tile(np.asarray(origin if detector is None else detector.target.position, float), (n, 1))
    rng = stream(1, "contract")
    theta, phi = 10 ** rng.uniform(-4, 0.1, n), rng.uniform(-np.pi, np.pi, n)
    unit = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=1)
    chord = np.asarray(shape.chord(start, unit), dtype=np.float64)
    if contract.need(chord.shape == (n, 2), f"chord: shape {chord.shape} for {n} lines, must be ({n}, 2)"):
        _single(contract, shape, chord)
        scale = stream(2, "contract").uniform(0.1, 50.0, (n, 1))
        contract.close(
            shape.chord(start, scale * unit), chord, "chord: the length of the direction must not matter"
        )
        hit = ~np.isnan(chord[:, 0])
        if contract.need(hit.any(), f"chord: none of {n} lines from {start[0].tolist()} m hits; metres?"):
            _along(contract, shape, start[hit], unit[hit], chord[hit])
            _planes(contract, detector, start[hit] + chord[hit, :1] * unit[hit])
    contract.settle()


def _single(contract: Contract, shape: Geometry, chord: FloatArray) -> None:
    miss = np.isnan(chord)
    contract.need((miss[:, 0] == miss[:, 1]).all(), "chord: a miss must be nan in both columns")
    entry, end = chord[~miss.any(axis=1)].T
    contract.need((entry >= 0).all(), "chord: the entry must not lie behind the origin")
    contract.need((entry < end).all(), "chord: the entry must lie before the exit")
    contract.need(np.isfinite(entry).all(), "chord: the entry must be finite")
    contract.need(
        not (shape.is_bounded and np.isinf(end).any()), "is_bounded is true, but a chord has no end"
    )


def _along(
    contract: Contract, shape: Geometry, start: FloatArray, unit: FloatArray, chord: FloatArray
) -> None:
    """Move the start along the line: towards the volume, into it, behind it."""
    entry, end = chord.T

    def moved(step: FloatArray) -> FloatArray:
        return np.asarray(shape.chord(start + step[:, None] * unit, unit), dtype=np.float64)

    tolerance = 1e-9 * max(1.0, float(np.abs(start).max() + entry.max()))
    nearer = moved(entry / 2)
    contract.close(
        nearer,
        chord - entry[:, None] / 2,
        "chord: changes with a start nearer to it",
        rtol=1e-7,
        atol=tolerance,
    )
    depth = np.where(np.isinf(end), 1.0, (end - entry) / 2)
    inside = moved(entry + depth)
    expected = np.stack([np.zeros_like(end), end - entry - depth], axis=1)
    contract.close(
        inside, expected, "chord: a start inside must enter at 0 and keep its exit", rtol=1e-7, atol=tolerance
    )
    past = np.isfinite(end)
    behind = moved(np.where(past, end * (1 + 1e-6) + 1e-6, 0.0))[past]
    contract.need(np.isnan(behind).all(), "chord: a start behind it must miss (one piece per line)")


def _planes(contract: Contract, detector: Detector | None, entry: FloatArray) -> None:
    if detector is None:
        return
    magnet, first = detector.magnet, entry[:, 2].min()
    contract.need(
        magnet is None or magnet.z > first,
        f"magnet at z = {magnet.z if magnet else 0.0:g} m lies before the volume: it bends nothing",
    )
    for plane in detector.planes:
        contract.need(plane.z > first, f"plane {plane.name!r} at z = {plane.z:g} m lies before the volume")


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


CELLS, RESOLUTION, SIZE = 10, 0.04, 20_000.0  # true cells; GeV; pairs of the simulation


def check_subtraction(function: Callable[[PairHists], Spectrum], *, most: float = 1.0) -> None:
    """Check that a function can be ``[subtract] method``: like-sign pairs of 8 MOCK cells are subtracted.

    Parameters
    ----------
    function : function PairHists → Spectrum
        See `gammastar.subtract.estimate.own_subtraction`.
    most : float
        Largest mean distance to the signal, where pairs are the exact expectation of signal and of a
        background that is as often unlike as like-sign, in standard deviations.

    Raises
    ------
    ContractError
        If the result is no spectrum of counts on the axes of the pairs with a covariance; if another call
        gives another one; if the histograms are changed; if variances are not positive, or do not grow with
        the pairs; or if the signal is not found.
    """
    contract = Contract("subtraction", getattr(function, "__name__", function))
    signal = 400.0 * np.exp(-0.3 * np.arange(8.0))
    hists, many = _like_sign(signal), _like_sign(16.0 * signal, 16.0)
    before = [np.array(one.values()) for one in (hists.os, hists.pp, hists.mm)]
    try:
        checked = own_subtraction(function, "result")
        first, again, wide = checked(hists), checked(hists), checked(many)
    except UserError as error:
        contract.need(condition=False, problem=str(error))
        contract.settle()
        return
    for name, old, one in zip(("os", "pp", "mm"), before, (hists.os, hists.pp, hists.mm), strict=True):
        contract.close(one.values(), old, f"hists.{name} was changed in place")
    contract.close(again.values, first.values, "another call with the same pairs gives other values")
    contract.close(again.cov, first.cov, "another call with the same pairs gives another covariance")
    variance = np.diag(first.cov)
    contract.need((variance > 0).all(), "every cell with pairs needs a variance above 0")
    contract.need(
        (np.diag(wide.cov) > 4.0 * variance).all(), "variances do not grow with the number of pairs"
    )
    pull = np.abs(first.values - signal) / np.sqrt(np.maximum(variance, 1e-300))
    contract.need(
        bool(pull.mean() < most),
        f"of the exact expectation the signal is missed by {pull.mean():.3g} standard deviations",
    )
    contract.settle()


def _like_sign(signal: FloatArray, scale: float = 1.0) -> PairHists:
    """Return the expectation of a signal above a background of 60 unlike-sign pairs per cell, scaled."""
    axes = (regular("mass", len(signal), 0.2, 1.0),)
    background = np.full(len(signal), 60.0 * scale)
    counts = (signal + background, 0.6 * background, background / 2.4)  # 2 √(0.6/2.4) = 1
    return PairHists(*(filled(axes, values, values) for values in counts))


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
