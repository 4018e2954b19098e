"""Three ways to sample the virtual photons of millicharged pairs, from what a run holds."""

from __future__ import annotations

from typing import Any

import numpy as np

from gammastar import predict
from gammastar.config import Millicharge
from gammastar.core.errors import SteeringError
from gammastar.core.records import FloatArray
from gammastar.core.rng import stream
from gammastar.pipeline.context import Context
from gammastar.pipeline.producing import LEPTON_MASS, Production

__all__ = ["generator"]

Pairs = tuple[FloatArray, FloatArray, FloatArray]
Found = tuple[predict.VirtualPhotons, FloatArray | None]


def generator(
    ctx: Context, production: Production, made: Any, pairs: Pairs, m_chi: float, rng: np.random.Generator
) -> Found:
    """Return virtual photons of χχ̄ by the steering's strategy, with the weights of the flow's replicas.

    Parameters
    ----------
    ctx : Context
    production : Production
        Its first part holds sampler, domain and replicas.
    made : Products
        With the training pairs for the strategies that need them.
    pairs : tuple
        Edges [GeV], dileptons per proton on target in each bin, covariance.
    m_chi : float [GeV]
    rng : numpy.random.Generator

    Raises
    ------
    SteeringError
        If the strategy needs the training pairs, and only the record of a run is at hand.
    """
    section = None if ctx.steering.predict is None else ctx.steering.predict.millicharge
    photon, measured = production.parts[0], ctx.steering.spectrum
    if section is None or measured is None or not isinstance(photon, predict.VirtualPhoton):
        msg = "[predict.millicharge] with a spectrum is needed to sample millicharged pairs"
        raise SteeringError(msg)
    m_lepton, n, inside = LEPTON_MASS[measured.lepton], section.n_sample, photon.in_domain
    if section.strategy == "conditional":
        found = predict.conditional(m_chi, pairs[0], pairs[1], m_lepton, photon.sampler, inside, n=n, rng=rng)
        return found, _replicas(photon, found)
    total = float(predict.chi_rate(*pairs, [m_chi], m_lepton)[0][0])
    cloud = _cloud(section, made)
    if section.strategy == "rejection":
        joint = _joint(ctx, made, cloud)
        return predict.by_rejection(m_chi, total, m_lepton, joint, inside, n=n, rng=rng), None
    trained = _per_mass(ctx, cloud.weighted_for(m_chi, m_lepton), m_chi)
    return predict.from_generator(total, trained, inside, n=n, rng=rng), None


def _replicas(photon: predict.VirtualPhoton, found: predict.VirtualPhotons) -> FloatArray | None:
    if photon.replica_weights is None:
        return None
    mass = np.clip(found.mass, *photon.sampler.mass_range)
    return photon.replica_weights(mass, found.pt, found.energy)


def _cloud(section: Millicharge, made: Any) -> predict.PairCloud:
    """Return the training pairs of the flow: measured ones, simulated ones outside the domain."""
    pairs = made.training
    if not hasattr(pairs, "reference"):
        msg = (
            f"predict.millicharge.strategy = {section.strategy!r} needs the pairs of a full run; from the "
            "record of a run only 'conditional' works"
        )
        raise SteeringError(msg)
    return predict.PairCloud(pairs.mass, pairs.pt, pairs.energy, pairs.reference)


def _options(ctx: Context) -> Any:
    from gammastar.pipeline.training import flow_options

    section = ctx.steering.flow
    if section is None:
        msg = "predict.millicharge.strategy: flows of their own need the options in [flow]"
        raise SteeringError(msg)
    return flow_options(section, (0.0, np.inf))


def _joint(ctx: Context, made: Any, cloud: predict.PairCloud) -> predict.Joint:
    """Return one flow of mass, pt and energy of all pairs, trained once per run."""
    from gammastar.flow.joint import JointOptions, fit_joint

    found: predict.Joint | None = made.joint
    if found is None:
        options = _options(ctx)
        own = JointOptions(epochs=options.epochs, batch=options.batch)
        beam = ctx.steering.spectrum.beam_energy if ctx.steering.spectrum is not None else 0.0
        ctx.tell("accept", None, "one flow of mass, transverse momentum and energy")
        found = fit_joint(cloud, beam_energy=beam, options=own, rng=stream(ctx.seed, "joint"))
        made.joint = found
    return found


def _per_mass(ctx: Context, cloud: predict.PairCloud, m_chi: float) -> predict.Trained:
    """Return a flow trained on the pairs with the weights of one m_χ."""
    from dataclasses import replace

    from gammastar import flow

    positive = cloud.weight > 0
    mass, pt, energy, weight = (
        values[positive] for values in (cloud.mass, cloud.pt, cloud.energy, cloud.weight)
    )
    options = replace(_options(ctx), mass_range=(float(mass.min()), float(mass.max())))
    beam = ctx.steering.spectrum.beam_energy if ctx.steering.spectrum is not None else 0.0
    ctx.tell("accept", None, f"a flow for m_chi = {m_chi:g} GeV")
    found = flow.fit(
        mass,
        pt,
        energy,
        weight,
        beam_energy=beam,
        options=options,
        rng=stream(ctx.seed, "per mass", f"{m_chi:.6f}"),
    )
    return predict.Trained(found, predict.PairCloud(mass, pt, energy, weight))
