"""Flows drawn from the Laplace posterior of the last layer of a trained flow.

Section IV of the data-driven paper proposes Bayesian flows; Laplace approximation of the last layer (MacKay,
Neural Comput. 4 (1992) 448; Kristiadi et al., arXiv:2002.10118) with the empirical Fisher information, exact
within each of the two factors of the density. It knows the statistical error of the last layer alone: no
replica of the split, no other start.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.linalg import cho_factor, solve_triangular
from torch import Tensor

from gammastar.core.records import FloatArray, effective_size
from gammastar.flow import FlowEnsemble, KinematicFlow
from gammastar.flow.network import inside_limits, one_thread
from gammastar.flow.options import PairTable

_CHUNK = 2048


def laplace(
    flow: KinematicFlow,
    pairs: PairTable,
    *,
    rng: np.random.Generator,
    members: int = 8,
    n_pairs: int = 20_000,
) -> FlowEnsemble:
    """Return flows drawn from the posterior about a flow that was trained on `pairs`.

    The Gaussian prior of a weight has one over the mean square of the trained weights of the layer as
    precision, so that directions without data move within their size. `n_pairs`, drawn by |weight|, give the
    information.
    """
    last = flow.zuko.transform.transforms[0].hyper[-1]
    prior_precision = float(1.0 / max(float(last.weight[last.mask].square().mean()), 1e-8))
    mass, pt, energy, weight = (
        np.asarray(a, dtype=np.float64) for a in (pairs.mass, pairs.pt, pairs.energy, pairs.weight)
    )
    low, high = flow.mass_range
    good = (mass >= low) & (mass <= high) & (weight != 0) & inside_limits(mass, pt, energy, flow.beam_energy)
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
