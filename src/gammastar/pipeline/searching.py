"""The dark half: predict and accept."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gammastar import accept, predict, spectrum
from gammastar.core.constants import M_E, M_MU
from gammastar.core.data import data_path
from gammastar.core.errors import SteeringError
from gammastar.core.records import Exposure, FloatArray, Spectrum
from gammastar.core.resolve import resolve
from gammastar.core.rng import stream
from gammastar.core.sampler import Sampler
from gammastar.physics.detector import Detector, load_detector
from gammastar.physics.widths import RTable
from gammastar.pipeline.checkpoint import Arrays
from gammastar.pipeline.context import Context, shipped
from gammastar.pipeline.learning import InDomain
from gammastar.store.manifest import digest

__all__ = ["accept_stage", "detectors", "make_model", "predict_stage", "virtual_photon"]

YIELDS = ("signal", "in_domain_signal", "mc_error", "n_effective")
LEPTON_MASS = {"e": M_E, "mu": M_MU}


class _Model(Protocol):
    def ctau(self, mass: float, coupling: npt.ArrayLike) -> FloatArray: ...

    def branching(self, mass: float) -> Any: ...


def make_model(name: str, base: Path) -> _Model:
    """Return the model of a name or of ``file.py:attribute`` (a model or a function without arguments)."""
    if name == "dark_photon":
        return predict.DarkPhoton(RTable.read(data_path("measurements/r_ratio.csv")))
    if ":" not in name:
        msg = f"predict.model = {name!r}: neither 'dark_photon' nor of the form 'file.py:attribute'"
        raise SteeringError(msg)
    found = resolve(name, base)
    model: _Model = found if hasattr(found, "branching") and not isinstance(found, type) else found()
    return model


def detectors(ctx: Context) -> dict[str, Detector]:
    """Return the detectors of the steering by the stems of their files."""
    section = ctx.steering.accept
    names = () if section is None else section.detectors
    paths = [shipped(name, ctx.base, "detectors") for name in names]
    return {path.stem: load_detector(path) for path in paths}


def virtual_photon(
    ctx: Context, measured: Spectrum, sampler: Sampler, in_domain: InDomain
) -> predict.VirtualPhoton:
    """Return the data-driven channel of a spectrum per proton on target."""
    section = ctx.steering.spectrum
    if section is None:
        msg = "[spectrum] is needed for the rate of virtual photons"
        raise SteeringError(msg)
    mass, density, cov = spectrum.mass_density(measured)
    rates, rate_cov = predict.rate(mass, density, cov, LEPTON_MASS[section.lepton])
    return predict.VirtualPhoton(mass, rates, rate_cov, sampler, in_domain)


def predict_stage(ctx: Context, channel: predict.VirtualPhoton) -> Arrays:
    """Return masses and rates per proton on target and squared coupling."""
    section = ctx.steering.predict
    if section is None:
        msg = "[predict] is needed for a rate"
        raise SteeringError(msg)
    centres = channel.mass_centres
    masses = np.array(section.masses or np.linspace(centres[0], centres[-1], section.n_masses))
    key = ctx.book.key(section, ctx.book.key_of("spectrum"))

    def compute() -> Arrays:
        ctx.tell("predict", None, f"rate at {len(masses)} masses")
        rate, cov = channel.rate(masses)
        return {"mass": masses, "rate": rate, "cov": cov}

    ctx.book.methods["rate"] = "dileptons per proton on target times m/(2 kappa) (Allison and Blinov, Eq. 6)"
    return ctx.book.arrays("predict", key, compute)


def accept_stage(
    ctx: Context, channel: predict.VirtualPhoton, exposure: Exposure, predicted: Arrays
) -> dict[str, Arrays]:
    """Return expected events over masses and couplings per detector, and acceptance curves.

    One sample per mass serves every coupling and every detector.
    """
    section, predicting, inferring = ctx.steering.accept, ctx.steering.predict, ctx.steering.infer
    if section is None or predicting is None:
        msg = "[predict] and [accept] are needed for expected events"
        raise SteeringError(msg)
    model = make_model(predicting.model, ctx.base)
    found = detectors(ctx)
    low, high, n = (1e-9, 1e-2, 141) if inferring is None else (*inferring.coupling, inferring.n_couplings)
    couplings = np.geomspace(low, high, n)
    described = digest({name: repr(detector) for name, detector in found.items()})
    before = ctx.book.key_of("spectrum", "flow", "predict")
    described = digest(described, couplings, predicting.model_dump(mode="json"))
    key = ctx.book.key(section, before, described)

    def compute() -> Arrays:
        result: Arrays = {}
        for name, detector in found.items():
            ready = functools.partial(
                accept.yields,
                couplings=couplings,
                model=model,
                detector=detector,
                final_states=section.final_states,
                measured=accept.Measured(exposure, section.target_scaling),
            )
            rows = _plane(ctx, channel, predicted, detector.name, ready) | _curves(ctx, channel, detector)
            rows["couplings"] = couplings
            result |= {f"{name}|{key}": value for key, value in rows.items()}
        return result

    arrays = ctx.book.arrays("accept", key, compute)
    return {
        name: {k.partition("|")[2]: v for k, v in arrays.items() if k.startswith(f"{name}|")}
        for name in found
    }


def _plane(
    ctx: Context,
    channel: predict.VirtualPhoton,
    predicted: Arrays,
    label: str,
    ready: Callable[..., accept.AcceptedYield],
) -> Arrays:
    """Return signal, its part in the measured domain, and errors, shape (n_masses, n_couplings) each."""
    n = 0 if ctx.steering.predict is None else ctx.steering.predict.n_sample
    masses = predicted["mass"]
    point = functools.partial(_point, channel, masses, label, ready, (ctx.seed, n))
    rows = ctx.each(point, len(masses), "accept", lambda i: f"{label}: m = {masses[i]:.3f} GeV")
    return {name: np.stack([row[name] for row in rows]) for name in YIELDS}


def _point(
    channel: predict.VirtualPhoton,
    masses: FloatArray,
    label: str,
    ready: Callable[..., accept.AcceptedYield],
    seed_and_size: tuple[int, int],
    i: int,
) -> Arrays:
    """Return signal and errors over couplings at one mass; it depends on nothing but its arguments."""
    mass, (seed, n) = float(masses[i]), seed_and_size
    sample = channel.produce(mass, n=n, rng=stream(seed, "predict", i))
    found = ready(sample, mass, rng=stream(seed, "accept", label, i))
    return {name: getattr(found, name) for name in YIELDS}


def _curves(ctx: Context, channel: predict.VirtualPhoton, detector: Detector) -> Arrays:
    section, predicting = ctx.steering.accept, ctx.steering.predict
    if section is None or predicting is None:
        return {}
    low, high = channel.mass_centres[[0, -1]]
    masses = np.array([m for m in section.acceptance_masses if low <= m <= high])
    ctau = np.geomspace(*section.ctau, 71)
    curves = []
    for mass in masses:
        rng = stream(ctx.seed, "acceptance", detector.name, f"{mass:.6f}")
        sample = channel.produce(float(mass), n=predicting.n_sample, rng=rng)
        state = "mumu" if "mumu" in section.final_states else "ee"
        curves.append(
            np.stack(accept.acceptance_curve(sample, float(mass), ctau, detector, final_state=state, rng=rng))
        )
    return {"ctau": ctau, "acceptance_mass": masses, "acceptance": np.array(curves).reshape(-1, 2, len(ctau))}
