"""The contract of a production channel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gammastar.core.records import FloatArray, Sample
from gammastar.core.sampling import stream
from gammastar.predict import Channel
from gammastar.testing.contract import Contract

__all__ = ["check_channel"]


def check_channel(
    channel: Channel, *, masses: Sequence[float] = (0.3, 0.5), n: int = 2000, beam_energy: float = np.inf
) -> None:
    """Check that a channel gives rates and samples that the yields can use.

    Parameters
    ----------
    channel : Channel
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
