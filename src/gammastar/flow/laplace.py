"""A Bayesian flow beside the ensemble: a Gaussian posterior of the last layer's weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.linalg import cho_factor, solve_triangular
from torch import Tensor
from torch.nn.functional import pad, silu

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.core.stats import effective_size
from gammastar.flow.bijection import inside_limits
from gammastar.flow.ensemble import FlowEnsemble
from gammastar.flow.model import KinematicFlow, one_thread
from gammastar.flow.network import Network, log_density
from gammastar.flow.options import PairTable

__all__ = ["laplace"]

_CHUNK = 2048


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
    rng : numpy.random.Generator
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
    if prior_precision is None:
        prior_precision = float(1.0 / flow.network.weights[-1].square().mean().clamp(min=1e-8))
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
        information = _information(flow.network, torch.from_numpy(x), torch.from_numpy(context))
    draws = [_factor_draws(one * size, prior_precision, members, rng) for one in information]
    last = flow.network.weights[-1].shape[1]
    flows = []
    for k in range(members):
        shift = np.stack([draw[k].reshape(last + 1, -1) for draw in draws]).astype(np.float32)
        weights = (*flow.network.weights[:-1], flow.network.weights[-1] + torch.from_numpy(shift[:, :last]))
        biases = (*flow.network.biases[:-1], flow.network.biases[-1] + torch.from_numpy(shift[:, last:]))
        flows.append(replace(flow, network=Network(weights, biases)))
    return FlowEnsemble(tuple(flows))


def _information(network: Network, x: Tensor, context: Tensor) -> tuple[FloatArray, FloatArray]:
    """Return the mean of g gᵀ of each factor, g the gradient of ln p in the last layer of one pair."""
    network = network.to(torch.float64)
    n_last = network.weights[-1].shape[1] * network.biases[-1].shape[-1] + network.biases[-1].shape[-1]
    sums = torch.zeros((2, n_last, n_last), dtype=torch.float64)
    for x_part, c_part in zip(torch.split(x, _CHUNK), torch.split(context, _CHUNK), strict=True):
        features = torch.stack([pad(c_part, (0, 1)), torch.cat([c_part, x_part[:, :1]], dim=-1)])
        with torch.no_grad():
            for weight, bias in zip(network.weights[:-1], network.biases[:-1], strict=True):
                features = silu(torch.baddbmm(bias, features, weight))
        # one bias per pair: its gradient is that of the last layer's output
        n, n_out = len(x_part), network.biases[-1].shape[-1]
        own = network.biases[-1].expand(2, n, n_out).clone().requires_grad_()
        shifted = Network(network.weights, (*network.biases[:-1], own))
        torch.autograd.backward(log_density(shifted, x_part, c_part).sum())
        features = torch.cat([features, torch.ones_like(features[..., :1])], dim=-1)
        for factor in (0, 1):
            slope = own.grad
            if slope is None:
                continue
            gradient = (features[factor][:, :, None] * slope[factor][:, None, :]).flatten(1)
            sums[factor] += gradient.T @ gradient
    first, second = (np.asarray(total) / len(x) for total in sums)
    return first, second


def _factor_draws(
    information: FloatArray, prior_precision: float, members: int, rng: np.random.Generator
) -> FloatArray:
    """Return draws of a Gaussian with the inverse of (information + prior) as covariance."""
    precision = information + prior_precision * np.eye(len(information))
    factor, lower = cho_factor(precision, lower=True, overwrite_a=True)
    normal = rng.standard_normal((len(information), members))
    draws: FloatArray = solve_triangular(factor, normal, lower=lower, trans="T").T
    return draws
