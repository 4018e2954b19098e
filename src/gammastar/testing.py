"""Contract tests for user code: one line each, a schema, channel, volume, model, subtraction, unfolding.

They raise `ContractError`, an `AssertionError` that lists everything that is wrong, so that they fit into
any test suite::

    from gammastar.testing import check_model

    def test_my_model():
        check_model(MyModel())
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from gammastar.core.constants import M_E, M_MU
from gammastar.core.errors import UserError
from gammastar.core.records import FloatArray, PairHists, Response, Sample, Spectrum, filled, regular
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

__all__ = [
    "ContractError",
    "check_channel",
    "check_geometry",
    "check_model",
    "check_schema",
    "check_subtraction",
    "check_unfolder",
]


class ContractError(AssertionError):
    """An extension that breaks the contract of its kind; the message lists every point."""


class _UnusableError(Exception):
    """What is checked cannot be used at all: the rest of the contract is not looked at."""


class Contract:
    """The points that one object has to meet; leaving the block raises if one is not, or on a `UserError`."""

    def __init__(self, kind: str, thing: object) -> None:
        name = thing if isinstance(thing, str) else getattr(thing, "__name__", type(thing).__name__)
        self._title = f"{kind} {name}"
        self._problems: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *_: object) -> None:
        if isinstance(error, UserError):
            self._problems.append(str(error))
        elif kind not in {None, _UnusableError}:
            return
        if self._problems:
            lines = "".join(f"\n  - {problem}" for problem in self._problems)
            raise ContractError(f"{self._title} breaks its contract:{lines}") from error

    def need(self, condition: object, problem: str) -> None:
        """Note a problem unless the condition holds."""
        if not condition and problem not in self._problems:
            self._problems.append(problem)

    def demand(self, condition: object, problem: str) -> None:
        """End the checks unless the condition holds."""
        self.need(condition, problem)
        if not condition:
            raise _UnusableError

    def close(
        self, value: Any, expected: Any, problem: str, *, rtol: float = 1e-9, atol: float = 0.0
    ) -> None:
        """Note a problem unless two arrays agree in shape and value (nan equals nan)."""
        a, b = np.asarray(value, dtype=np.float64), np.asarray(expected, dtype=np.float64)
        same = a.shape == b.shape and np.allclose(a, b, rtol=rtol, atol=atol, equal_nan=True)
        self.need(same, problem)


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
    with Contract("schema", str(name)) as contract:
        for finding in () if file is None else examine(file, ready, truth=truth, entries=entries):
            accepted = finding.level == "warning" and finding.key in accept
            contract.need(accepted, f"{finding.where}: {finding.message}")


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
    with Contract("channel", channel) as contract:
        contract.demand(isinstance(channel, Channel), "derive it from gammastar.predict.Channel")
        group, processes = getattr(channel, "group", None), getattr(channel, "processes", None)
        contract.need(isinstance(group, str) and group, f"group = {group!r} must be a name")
        names = isinstance(processes, frozenset) and processes and all(isinstance(p, str) for p in processes)
        what = "must be a frozenset of names: they keep channels from double counting"
        contract.need(names, f"processes = {processes!r} {what}")
        rate = _rates(contract, channel, np.asarray(masses, dtype=np.float64))
        for mass, value in zip(masses, rate, strict=True):
            _produced(contract, channel, mass, float(value), (n, beam_energy))


def _rates(contract: Contract, channel: Channel, masses: FloatArray) -> FloatArray:
    rate, cov = (np.asarray(x, dtype=np.float64) for x in channel.rate(masses))
    n = len(masses)
    shapes = f"rate: shapes {rate.shape}, {cov.shape} for {n} masses, must be ({n},), ({n}, {n})"
    contract.demand(rate.shape == (n,) and cov.shape == (n, n), shapes)
    contract.need((np.isfinite(rate) & (rate >= 0)).all(), f"rate: {rate} must not be negative or nan")
    contract.need(np.isfinite(cov).all(), "rate: the covariance holds values that are not finite")
    if np.isfinite(cov).all():
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
    sample, where = channel.produce(mass, n=n, rng=stream(1, "contract")), f"at {mass:g} GeV"
    contract.demand(isinstance(sample, Sample), "produce: must return a Sample")
    weight = sample.weight
    contract.need(len(weight) == n, f"produce: {len(weight)} particles {where}, asked for {n}")
    good = (np.isfinite(weight) & (weight >= 0)).all()
    contract.need(good, f"produce: weights {where} must be finite and not negative")
    total = float(weight.sum())
    contract.close(total, rate, f"produce: weights sum to {total:g} {where}, the rate is {rate:g}", rtol=1e-6)
    contract.need(sample.in_domain.dtype == np.bool_, "produce: in_domain must be an array of bool")
    contract.need(np.isfinite(sample.origin).all(), "produce: origins must be finite")
    p = sample.four_momenta
    off_shell = np.abs(p[3] ** 2 - np.sum(p[:3] ** 2, axis=0) - mass**2)
    on_shell = (off_shell < 1e-3 * mass**2 + 1e-9 * p[3] ** 2).all()
    contract.need(on_shell, f"produce: particles {where} off shell")
    reaching = f"produce: energies {where} reach the beam, {beam_energy:g} GeV"
    contract.need((p[3] < beam_energy).all(), reaching)
    again, other = (channel.produce(mass, n=n, rng=stream(k, "contract")).four_momenta for k in (1, 2))
    contract.close(again, p, "produce: the same random stream must give the same sample")
    differs = not np.array_equal(other, p)
    contract.need(differs, "produce: another random stream must give another sample")


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
    with Contract("volume", volume) as contract:
        detector = volume if isinstance(volume, Detector) else None
        shape = volume.volume if isinstance(volume, Detector) else volume
        contract.demand(isinstance(shape, Geometry), "derive it from gammastar.physics.geometry.Geometry")
        start = np.tile(np.asarray(origin if detector is None else detector.target.position, float), (n, 1))
        rng = stream(1, "contract")
        theta, phi = 10 ** rng.uniform(-4, 0.1, n), rng.uniform(-np.pi, np.pi, n)
        unit = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=1)
        chord = np.asarray(shape.chord(start, unit), dtype=np.float64)
        shapes = f"chord: shape {chord.shape} for {n} lines, must be ({n}, 2)"
        contract.demand(chord.shape == (n, 2), shapes)
        _single(contract, shape, chord)
        longer = stream(2, "contract").uniform(0.1, 50.0, (n, 1)) * unit
        same = "chord: the length of the direction must not matter"
        contract.close(shape.chord(start, longer), chord, same)
        hit = ~np.isnan(chord[:, 0])
        contract.demand(hit.any(), f"chord: none of {n} lines from {start[0].tolist()} m hits; metres?")
        _along(contract, shape, start[hit], unit[hit], chord[hit])
        if detector is not None:
            _planes(contract, detector, start[hit] + chord[hit, :1] * unit[hit])


def _single(contract: Contract, shape: Geometry, chord: FloatArray) -> None:
    miss = np.isnan(chord)
    contract.need((miss[:, 0] == miss[:, 1]).all(), "chord: a miss must be nan in both columns")
    entry, end = chord[~miss.any(axis=1)].T
    contract.need((entry >= 0).all(), "chord: the entry must not lie behind the origin")
    contract.need((entry < end).all(), "chord: the entry must lie before the exit")
    contract.need(np.isfinite(entry).all(), "chord: the entry must be finite")
    endless = shape.is_bounded and np.isinf(end).any()
    contract.need(not endless, "is_bounded is true, but a chord has no end")


def _along(
    contract: Contract, shape: Geometry, start: FloatArray, unit: FloatArray, chord: FloatArray
) -> None:
    """Move the start along the line: towards the volume, into it, behind it."""
    entry, end = chord.T

    def moved(step: FloatArray) -> FloatArray:
        return np.asarray(shape.chord(start + step[:, None] * unit, unit), dtype=np.float64)

    close = {"rtol": 1e-7, "atol": 1e-9 * max(1.0, float(np.abs(start).max() + entry.max()))}
    nearer = chord - entry[:, None] / 2
    contract.close(moved(entry / 2), nearer, "chord: changes with a start nearer to it", **close)
    depth = np.where(np.isinf(end), 1.0, (end - entry) / 2)
    inside = np.stack([np.zeros_like(end), end - entry - depth], axis=1)
    kept = "chord: a start inside must enter at 0 and keep its exit"
    contract.close(moved(entry + depth), inside, kept, **close)
    past = np.isfinite(end)
    behind = moved(np.where(past, end * (1 + 1e-6) + 1e-6, 0.0))[past]
    contract.need(np.isnan(behind).all(), "chord: a start behind it must miss (one piece per line)")


def _planes(contract: Contract, detector: Detector, entry: FloatArray) -> None:
    magnet, first = detector.magnet, entry[:, 2].min()
    if magnet is not None:
        where = f"magnet at z = {magnet.z:g} m lies before the volume: it bends nothing"
        contract.need(magnet.z > first, where)
    for plane in detector.planes:
        contract.need(plane.z > first, f"plane {plane.name!r} at z = {plane.z:g} m lies before the volume")


NO_RATE = "rate_ratio(mass): say how many particles are made per squared coupling over dark photons per ε²; "
NO_RATE += "np.ones_like(mass) for kinetic mixing"
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
    with Contract("model", model) as contract:
        contract.demand(isinstance(model, Model), "derive it from gammastar.predict.Model")
        grid = np.asarray(couplings, dtype=np.float64)
        threshold = [2 * M_MU] if min(masses) < 2 * M_MU < max(masses) else []
        contract.need(np.isfinite(model.charge), f"charge = {model.charge!r} must be a number")
        _rate(contract, model, masses)
        labelled = isinstance(model.labels, Labels)
        contract.need(labelled, f"labels = {model.labels!r} must be a Labels")
        recast = labelled and model.labels.limits == "recast"
        names = set()
        for mass in (*masses, *threshold):
            ctau = _lifetimes(contract, model, mass, grid)
            if recast and np.isfinite(ctau).all():
                square = f"labels: limits that are recast need ctau as 1/coupling², {mass:g} GeV"
                contract.close(ctau * grid**2 / (ctau[0] * grid[0] ** 2), np.ones(len(grid)), square)
            names.add(_branching(contract, model, mass, ctau))
            state, coupling = model.at(mass, float(grid[0])), float(grid[0])
            values = [mass, coupling, model.ctau(mass, coupling), model.charge]
            held = "at: must hold the mass, coupling, ctau and charge of the model"
            contract.close([state.mass, state.coupling, state.ctau, state.charge], values, held)
            same = dict(state.branching) == dict(model.branching(mass))
            contract.need(same, "at: must hold the branching ratios")
        states = "branching: name the same final states at every mass, closed ones with 0"
        contract.need(len(names) == 1, states)
        for what, mass, coupling in (("mass", -1.0, float(grid[0])), ("coupling", masses[0], -1.0)):
            try:
                model.at(mass, coupling)
            except UserError:
                continue
            contract.need(False, f"at: a negative {what} must raise a PhysicsError")


def _rate(contract: Contract, model: Model, masses: Sequence[float]) -> None:
    """Look at the rate over that of dark photons: of all masses at once and of one by one."""
    if type(model).rate_ratio is Model.rate_ratio:
        contract.need(False, NO_RATE)
        return
    grid = np.array(masses, dtype=np.float64)
    # a vector with charges of its own needs the shares of the processes: one of them stands for all
    options: dict[str, Any] = {"shares": {"eta_dalitz": 1.0}} if isinstance(model, VectorModel) else {}
    ratio = np.asarray(model.rate_ratio(grid, **options), dtype=np.float64)
    shapes = f"rate_ratio: shape {ratio.shape} for masses of shape {grid.shape}"
    contract.need(ratio.shape == grid.shape, shapes)
    if ratio.shape == grid.shape:
        good = (np.isfinite(ratio) & (ratio > 0)).all()
        contract.need(good, f"rate_ratio: {ratio} must be positive and finite; of zero nothing is made")
        single = [np.asarray(model.rate_ratio(grid[i : i + 1], **options)).item() for i in range(len(grid))]
        contract.close(single, ratio, "rate_ratio: must not depend on the other masses asked for")


def _lifetimes(contract: Contract, model: Model, mass: float, grid: FloatArray) -> FloatArray:
    ctau, where = np.asarray(model.ctau(mass, grid), dtype=np.float64), f"at {mass:g} GeV"
    contract.need(ctau.shape == grid.shape, f"ctau: shape {ctau.shape} for couplings of shape {grid.shape}")
    if ctau.shape != grid.shape:
        return np.full_like(grid, np.nan)
    contract.need((ctau > 0).all(), f"ctau: {ctau} m {where} must be positive (inf if stable)")
    falling = (ctau[1:] <= ctau[:-1]).all()
    contract.need(falling, f"ctau: {ctau} m {where} must not grow with the coupling {grid}")
    column = model.ctau(mass, grid[:, None])
    contract.close(column, ctau[:, None], "ctau: must keep any shape of the couplings")
    scalar = "ctau: a scalar coupling must give a scalar"
    contract.close(model.ctau(mass, float(grid[0])), ctau[0], scalar)
    return ctau


def _branching(contract: Contract, model: Model, mass: float, ctau: FloatArray) -> frozenset[str]:
    branching = dict(model.branching(mass))
    values, where = np.asarray(list(branching.values()), dtype=np.float64), f"at {mass:g} GeV"
    good = np.isfinite(values) & (values >= 0) & (values <= 1)
    contract.need(good.all(), f"branching: {branching} {where} must lie between 0 and 1")
    total, stable = values.sum(), bool(np.isinf(ctau).all())
    must = "0 for a stable particle" if stable else "1"
    right = abs(total - (0.0 if stable else 1.0)) < 1e-6
    contract.need(right, f"branching: sums to {total:g} {where}, must be {must}")
    for state, lepton in _LEPTONS.items():
        closed = mass > 2 * lepton or branching.get(state, 0.0) == 0
        contract.need(closed, f"branching: {state!r} is open {where}, at or below its threshold")
    return frozenset(branching)


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
    with Contract("subtraction", function) as contract:
        signal = 400.0 * np.exp(-0.3 * np.arange(8.0))
        hists, many = _like_sign(signal), _like_sign(16.0 * signal, 16.0)
        before = [np.array(one.values()) for one in (hists.os, hists.pp, hists.mm)]
        checked = own_subtraction(function, "result")
        first, again, wide = checked(hists), checked(hists), checked(many)
        for name, old, one in zip(("os", "pp", "mm"), before, (hists.os, hists.pp, hists.mm), strict=True):
            contract.close(one.values(), old, f"hists.{name} was changed in place")
        _repeated(contract, first, again, "pairs")
        variance = np.diag(first.cov)
        contract.need((variance > 0).all(), "every cell with pairs needs a variance above 0")
        growing = (np.diag(wide.cov) > 4.0 * variance).all()
        contract.need(growing, "variances do not grow with the number of pairs")
        pull = np.abs(first.values - signal) / np.sqrt(np.maximum(variance, 1e-300))
        missed = f"the signal is missed by {pull.mean():.3g} standard deviations"
        contract.need(pull.mean() < most, f"of the exact expectation {missed}")


def _repeated(contract: Contract, first: Spectrum, again: Spectrum, what: str) -> None:
    start = f"another call with the same {what} gives"
    contract.close(again.values, first.values, f"{start} other values")
    contract.close(again.cov, first.cov, f"{start} another covariance")


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
    with Contract("unfolding method", unfolder) as contract:
        response, truth = _response()
        measured = _measured(response, truth)
        inputs = {"measured": measured.values, "its covariance": measured.cov}
        inputs |= {"migration": response.migration, "prior": response.prior}
        before = {name: array.copy() for name, array in inputs.items()}
        checked, _ = own_method(unfolder, "result").prepare(measured, response, None)  # type: ignore[arg-type]
        first, again = checked(measured, response), checked(measured, response)
        exact = checked(measured, without_replicas(response))
        wide = checked(_measured(response, truth, 4.0), without_replicas(response))
        for name, array in inputs.items():
            contract.close(array, before[name], f"{name} was changed in place")
        _repeated(contract, first, again, "data")
        inside, variance = first.domain.ravel(), np.diag(first.cov)
        contract.need((variance[inside] > 0).all(), "cells of the domain need a variance above 0")
        errors = [np.sqrt(max(float(one.cov.sum()), 0.0)) for one in (exact, wide)]
        times = errors[1] / max(errors[0], 1e-300)
        contract.need(errors[1] > 1.5 * errors[0], f"data of twice the error have {times:.3g} times it")
        pull = (first.values.ravel() - truth)[inside] / np.sqrt(np.maximum(variance[inside], 1e-300))
        mean = np.abs(pull).mean()
        missed = f"of the exact expectation the truth is missed by {mean:.3g} standard deviations"
        contract.need(mean < most, missed)


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
