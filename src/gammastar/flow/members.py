"""Training of the members of a band: bootstrap replicas, or draws of the Laplace approximation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.linalg import cho_factor, solve_triangular
from torch import Tensor

from gammastar.core.errors import PhysicsError
from gammastar.core.files import Pathlike
from gammastar.core.records import FloatArray, effective_size
from gammastar.core.sampling import stream
from gammastar.flow.bijection import inside_limits
from gammastar.flow.ensembles import FlowEnsemble
from gammastar.flow.model import KinematicFlow
from gammastar.flow.network import one_thread
from gammastar.flow.options import FlowOptions, PairTable, Table, ranks
from gammastar.flow.training import fit_pairs

_CHUNK = 2048


def _replica(pairs: Table, seed: int, member: int, *, bootstrap: bool) -> Table:
    """Return the pairs with Poisson(1) weights by event."""
    if not bootstrap:
        return pairs
    n, index = ranks(pairs.event)
    count = stream(seed, "replica", member).poisson(1.0, n).astype(np.float64)[index]
    return Table(pairs.mass, pairs.pt, pairs.energy, pairs.weight * count, pairs.event)


def _numbered(pairs: PairTable) -> Table:
    """Return the pairs with their events numbered once, in the same order, so that no member has to sort."""
    mass, pt, energy, weight = (
        np.asarray(a, dtype=np.float64) for a in (pairs.mass, pairs.pt, pairs.energy, pairs.weight)
    )
    return Table(mass, pt, energy, weight, ranks(np.asarray(pairs.event, dtype=np.int64))[1])


def _member(
    pairs: Table, beam_energy: float, options: FlowOptions, seed: int, member: int, more: dict[str, Any]
) -> KinematicFlow:
    folder: Path | None = more["folder"]
    return fit_pairs(
        _replica(pairs, seed, member, bootstrap=more["bootstrap"]),
        beam_energy=beam_energy,
        options=options,
        rng=stream(seed, "member", member),
        checkpoint=None if folder is None else folder / f"member_{member:02d}.checkpoint",
    )


def _train_member(arguments: tuple[Any, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    flow = _member(*arguments)
    return flow.to_tensors(), flow.card()


def fit_ensemble(
    pairs: PairTable,
    *,
    beam_energy: float,
    options: FlowOptions | None = None,
    members: int = 5,
    seed: int,
    bootstrap: bool | Callable[[int], PairTable] = True,
    folder: Pathlike | None = None,
    each: Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]] = map,
) -> FlowEnsemble:
    """Train several flows on bootstrap replicas of the events.

    Parameters
    ----------
    pairs, beam_energy, options
        As for `fit_pairs`.
    seed : int
        Decides replicas and starts; member k is the same whatever their number and wherever it is trained.
    bootstrap : bool or callable
        False: the same pairs for all, which leaves the spread of split, start and order alone. A function of
        the member's number: its pairs, where more than Poisson weights by event belongs to a replica.
    folder : path, optional
        Folder of checkpoints: finished members are not trained again, an interrupted one goes on.
    each : function like ``map``
        Where the members are trained, e.g. ``executor.map`` of ``facility.open_executor``; each takes one
        thread.

    Returns
    -------
    FlowEnsemble

    Raises
    ------
    PhysicsError
        As `fit_pairs`, or if there are fewer than two members.
    """
    folder = None if folder is None else Path(folder)
    if members < 2:
        msg = f"fit_ensemble: members = {members}; at least two are needed for a spread"
        raise PhysicsError(msg)
    options = FlowOptions() if options is None else options
    if options.mass_range is None:  # the same for every replica
        lowest, highest = float(np.min(pairs.mass)), float(np.max(pairs.mass))
        options = replace(options, mass_range=(lowest, highest))
    more = {"bootstrap": bootstrap is True, "folder": folder}
    made = bootstrap if callable(bootstrap) else None
    table = _numbered(pairs)
    jobs = [
        (table if made is None else _numbered(made(k)), beam_energy, options, seed, k, more)
        for k in range(members)
    ]
    return FlowEnsemble(tuple(KinematicFlow.from_tensors(*made) for made in each(_train_member, jobs)))


def laplace(
    flow: KinematicFlow,
    pairs: PairTable,
    *,
    rng: np.random.Generator,
    members: int = 8,
    prior_precision: float | None = None,
    n_pairs: int = 20_000,
) -> FlowEnsemble:
    """Return flows drawn from the Laplace posterior of the last layer of a trained flow.

    Parameters
    ----------
    flow : KinematicFlow
        The posterior is centred on it.
    pairs : PairTable
        The pairs it was trained on; their effective number scales the information.
    members : int
        Draws.
    prior_precision : float, optional
        Inverse variance of the Gaussian prior of each weight; by default one over the mean square of the
        trained weights of the last layer, so that directions without data move within their size.
    n_pairs : int
        Pairs, drawn by |weight|, from which the information per pair is estimated.

    Returns
    -------
    FlowEnsemble
        To be used, and compared, as an ensemble of trainings.

    Raises
    ------
    PhysicsError
        If no pair lies in the range of the flow, or the prior precision is not positive.

    Notes
    -----
    Section IV of the data-driven paper proposes Bayesian flows; Laplace approximation of the last layer
    (MacKay, Neural Comput. 4 (1992) 448; Kristiadi et al., arXiv:2002.10118) with the empirical Fisher
    information, exact within each of the two factors of the density. It knows the statistical error of the
    last layer alone: no replica of the split, no other start.
    """
    last = flow.zuko.transform.transforms[0].hyper[-1]
    if prior_precision is None:
        prior_precision = float(1.0 / max(float(last.weight[last.mask].square().mean()), 1e-8))
    if not prior_precision > 0:
        msg = f"laplace: prior_precision = {prior_precision!r} must be positive"
        raise PhysicsError(msg)
    mass, pt, energy, weight = (
        np.asarray(a, dtype=np.float64) for a in (pairs.mass, pairs.pt, pairs.energy, pairs.weight)
    )
    low, high = flow.mass_range
    good = (mass >= low) & (mass <= high) & (weight != 0) & inside_limits(mass, pt, energy, flow.beam_energy)
    if not good.any():
        msg = f"laplace: no pair lies in the range of the flow, {low:.6g} to {high:.6g} GeV"
        raise PhysicsError(msg)
    mass, pt, energy, weight = mass[good], pt[good], energy[good], weight[good]
    size = effective_size(weight)
    share = np.abs(weight) / np.abs(weight).sum()
    chosen = rng.choice(len(mass), size=n_pairs, p=share)
    x, _ = flow.bijection.forward(mass[chosen], pt[chosen], energy[chosen])
    context = flow.bijection.condition(mass[chosen])
    with one_thread():
        double = copy.deepcopy(flow.zuko).double()
        information = _information(double, torch.from_numpy(x), torch.from_numpy(context))
    seen = [torch.cat([row, row[:1] | True]) for row in last.mask[:: len(last.mask) // 2]]
    draws = [_factor_draws(one * size, prior_precision, members, rng) for one in information]
    flows = []
    for k in range(members):
        zuko = copy.deepcopy(flow.zuko)
        shift = torch.zeros(2, last.in_features + 1, last.out_features // 2)
        for factor, known in enumerate(seen):
            shift[factor, known] = torch.from_numpy(draws[factor][k]).float().reshape(int(known.sum()), -1)
        moved = zuko.transform.transforms[0].hyper[-1]
        moved.weight += shift[:, :-1].transpose(1, 2).flatten(0, 1)
        moved.bias += shift[:, -1].flatten()
        flows.append(replace(flow, zuko=zuko))
    return FlowEnsemble(tuple(flows))


def _information(flow: Any, x: Tensor, context: Tensor) -> list[FloatArray]:
    """Return the mean of g gᵀ of each factor, g the gradient of ln p in the last layer of one pair."""
    step = flow.transform.transforms[0]
    inner = torch.nn.Sequential(*list(step.hyper)[:-1])
    mask = step.hyper[-1].mask[:: step.total]
    sums: list[Any] = [0.0, 0.0]
    for x_part, c_part in zip(torch.split(x, _CHUNK), torch.split(context, _CHUNK), strict=True):
        with torch.no_grad():
            features = inner(torch.cat([x_part, c_part], dim=-1))
            raw = step.hyper[-1](features).unflatten(-1, (2, -1))
        raw.requires_grad_()
        spline = step.univariate(*torch.split(raw, [one[0] for one in step.shapes], dim=-1))
        z, log_slope = spline.call_and_ladj(x_part)
        (slope,) = torch.autograd.grad((log_slope - 0.5 * z.square()).sum(), raw)
        ones = torch.ones_like(features[:, :1])
        for factor in (0, 1):
            known = torch.cat([features[:, mask[factor]], ones], dim=-1)
            gradient = (known[:, :, None] * slope[:, factor, None, :]).flatten(1)
            sums[factor] += gradient.T @ gradient
    return [np.asarray(total) / len(x) for total in sums]


def _factor_draws(
    information: FloatArray, prior_precision: float, members: int, rng: np.random.Generator
) -> FloatArray:
    """Return draws of a Gaussian with the inverse of (information + prior) as covariance."""
    precision = information + prior_precision * np.eye(len(information))
    factor, lower = cho_factor(precision, lower=True, overwrite_a=True)
    normal = rng.standard_normal((len(information), members))
    draws: FloatArray = solve_triangular(factor, normal, lower=lower, trans="T").T
    return draws
