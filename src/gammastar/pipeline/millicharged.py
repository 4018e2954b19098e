"""Millicharged particles: pairs per proton on target, and events in detectors."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from gammastar import accept, predict, spectrum
from gammastar.config import Millicharge
from gammastar.core.constants import M_PI0
from gammastar.core.errors import PhysicsError, SteeringError
from gammastar.core.records import Exposure, FloatArray, Sample
from gammastar.core.rng import stream
from gammastar.physics.millicharge import from_dark_photons
from gammastar.physics.millicharge_detector import MillichargeDetector, load_millicharge_detector
from gammastar.pipeline.carrying import carried, law
from gammastar.pipeline.checkpoint import Arrays
from gammastar.pipeline.context import Context, detector_files
from gammastar.pipeline.generating import generator
from gammastar.pipeline.producing import LEPTON_MASS, Production, files_of, theory_channel
from gammastar.pipeline.yield_errors import rate_budget, yield_budget
from gammastar.store.manifest import digest

__all__ = ["accept_stage", "millicharge_detectors", "predict_stage"]

THEORY_MAX = 3.5  # GeV: heaviest virtual photon of a theory channel
FINE = 0.001  # GeV, bins of a spectrum that is known at exact masses: a quarter of the width of the φ
Pairs: TypeAlias = tuple[FloatArray, FloatArray, FloatArray]
"""Edges [GeV], dileptons per proton on target in each bin, their covariance."""

YIELDS = ("signal", "in_domain_signal", "mc_error", "n_effective")


@dataclass(frozen=True)
class _Part:
    """A theory channel with the masses of virtual photons for which it counts."""

    name: str
    channel: predict.Channel
    low: float
    high: float

    def rate(self, m_chi: FloatArray) -> FloatArray:
        """Return pairs per proton on target and Q² with their lower and upper edge, shape (3, k)."""
        if isinstance(self.channel, predict.JPsi):
            value = predict.resonance_rate(self.channel, m_chi)
            sigma = self.channel.table.mesons["jpsi"].sigma
            return np.stack([value, (1 - sigma) * value, (1 + sigma) * value])

        def edge(i: int) -> FloatArray:
            return from_dark_photons(
                lambda m: predict.envelope(self.channel, m)[i],
                m_chi,
                self.high,
                mass_min=self.low,
                panels=200,
            )

        return np.stack([edge(i) for i in range(3)])

    def photons(self, m_chi: float, n: int, rng: np.random.Generator) -> predict.VirtualPhotons:
        """Return virtual photons of χχ̄."""
        if isinstance(self.channel, predict.JPsi):
            return predict.chi_from_resonances(self.channel, m_chi, n=n, rng=rng)
        return predict.chi_from_channel(self.channel, m_chi, mass_range=(self.low, self.high), n=n, rng=rng)


def millicharge_detectors(ctx: Context) -> dict[str, MillichargeDetector]:
    """Return the detectors of millicharged particles by the stems of their files."""
    section = ctx.steering.accept
    names = () if section is None else section.millicharge_detectors
    paths = detector_files(names, ctx.base, "accept.millicharge_detectors")
    return {stem: load_millicharge_detector(path) for stem, path in paths.items()}


def _section(ctx: Context) -> Millicharge | None:
    return None if ctx.steering.predict is None else ctx.steering.predict.millicharge


def _parts(ctx: Context, exposure: Exposure, pairs: Pairs | None) -> list[_Part]:
    """Return the theory channels; beside measured pairs they end where these begin.

    Raises
    ------
    PhysicsError
        If two of them contain the same process.
    """
    section, predicting = _section(ctx), ctx.steering.predict
    if section is None or predicting is None:
        return []
    first, last = (THEORY_MAX, 0.0) if pairs is None else (float(pairs[0][0]), float(pairs[0][-1]))
    top = first if pairs is None else max(first, 2 * _lepton_mass(ctx))
    interaction = float(-np.expm1(-exposure.thickness))
    parts = []
    for name in section.channels:
        channel = theory_channel(name, predicting, ctx.code, exposure.beam_energy, interaction)
        high = min(top, M_PI0) if name == "pion_dalitz" else top
        parts.append(_Part(name, channel, 0.0, high))
    predict.check_exclusive([part.channel for part in parts])
    if any(isinstance(part.channel, predict.JPsi) for part in parts) and "jpsi" in predict.held(
        (first, last)
    ):
        msg = (
            "predict.millicharge.channels: 'jpsi' is among the measured pairs, "
            f"{first:.4g} to {last:.4g} GeV: remove it"
        )
        raise PhysicsError(msg)
    return parts


def _pairs(ctx: Context, production: Production, made: Any) -> Pairs | None:
    """Return edges [GeV], dileptons per proton on target and their covariance; None for theory alone.

    Where the spectrum is known at exact masses, in bins of `FINE`: Eq. 8 at 2 m_χ beside a line, or a bin's
    width above the threshold, needs the masses inside a bin.
    """
    predicting = ctx.steering.predict
    if made.spectrum is None or predicting is None or predicting.source == "theory":
        return None
    photon = production.parts[0]
    if isinstance(photon, predict.VirtualPhoton) and isinstance(photon.shape, spectrum.MassShape):
        first, last = photon.shape.edges[[0, -1]]
        fine = np.linspace(first, last, max(2, round((last - first) / FINE)) + 1)
        return fine, *photon.shape.binned(fine)
    _, density, cov = spectrum.mass_density(made.spectrum)
    edges = np.asarray(made.spectrum.hist.axes["mass"].edges, dtype=np.float64)
    width = np.diff(edges)
    return edges, density * width, cov * np.outer(width, width)


def predict_stage(ctx: Context, production: Production, made: Any) -> Arrays | None:
    """Return masses of χ and pairs per proton on target and Q², with errors; None without the section."""
    section = _section(ctx)
    if section is None:
        return None
    m_chi = np.array(section.masses)
    pairs = _pairs(ctx, production, made)
    parts = _parts(ctx, production.exposure, pairs)
    described = [predict.describe(part.channel) for part in parts]
    key = ctx.book.key(ctx.steering.predict, ctx.book.key_of("spectrum"), digest(described, files_of(ctx)))

    def compute() -> Arrays:
        ctx.tell("predict", None, f"millicharged pairs at {len(m_chi)} masses")
        total, cov, rows = np.zeros(len(m_chi)), np.zeros((len(m_chi), len(m_chi))), {}
        if pairs is not None:
            total, cov = predict.chi_rate(*pairs, m_chi, _lepton_mass(ctx))
            rows["channel|virtual_photon"] = total
        square = np.array([np.diag(cov) + (production.exposure.pot_sigma * total) ** 2] * 2)
        for part in parts:
            value, low, high = part.rate(m_chi)
            half = 0.5 * (high - low)
            total, cov = total + value, cov + np.outer(half, half)
            square += np.stack([value - low, high - value]) ** 2
            rows[f"channel|{part.name}"] = value
        down, up = np.sqrt(square)
        edges = {"low": np.clip(total - down, 0.0, None), "high": total + up}
        budget = rate_budget(total, cov, production.exposure.pot_sigma)
        return rows | budget | edges | {"mass": m_chi, "rate": total, "cov": cov}

    for part, text in zip(parts, described, strict=True):
        ctx.book.methods[f"millicharged pairs, {part.name}, photons up to {part.high:.4g} GeV"] = text
    if pairs is not None:
        ctx.book.methods["millicharged pairs, virtual photons"] = (
            f"dileptons times Eq. 8 of Allison and Blinov, sampled by strategy {section.strategy!r}; photons "
            "heavier than the measured ones are left out"
        )
    return ctx.book.arrays("millicharge", key, compute)


def _lepton_mass(ctx: Context) -> float:
    section = ctx.steering.spectrum
    return LEPTON_MASS["mu" if section is None else section.lepton]


def accept_stage(ctx: Context, production: Production, made: Any) -> dict[str, Arrays]:
    """Return expected events over masses and charges per detector, as `searching.accept_stage` does."""
    found, predicted = millicharge_detectors(ctx), made.millicharge
    section, accepting = _section(ctx), ctx.steering.accept
    if not found or predicted is None or section is None or accepting is None:
        return {}
    charges = np.geomspace(*accepting.charge, accepting.n_charges)
    described = digest({name: repr(detector) for name, detector in found.items()}, charges, files_of(ctx))
    before = ctx.book.key_of("spectrum", "flow", "spin", "millicharge")
    key = ctx.book.key(accepting, before, described, ctx.book.key(ctx.steering.predict))

    def compute() -> Arrays:
        point = functools.partial(_point, ctx, production, made, found, charges)
        masses = predicted["mass"]
        rows = [point(i) for i in range(len(masses))]
        result: Arrays = {}
        for name in found:
            planes = {k: np.stack([row[name][k] for row in rows], axis=-2) for k in rows[0][name]}
            planes["signal_sigma"] = np.array(planes["signal_sigma"].max())
            planes["couplings"] = charges
            planes |= yield_budget(predicted, planes)
            result |= {f"{name}|{k}": v for k, v in planes.items()}
        return result

    arrays = ctx.book.arrays("accept_millicharge", key, compute)
    return {
        name: {k.partition("|")[2]: v for k, v in arrays.items() if k.startswith(f"{name}|")}
        for name in found
    }


def _point(
    ctx: Context,
    production: Production,
    made: Any,
    found: dict[str, MillichargeDetector],
    charges: FloatArray,
    i: int,
) -> dict[str, Arrays]:
    """Return the rows of every detector at one mass of χ."""
    m_chi = float(made.millicharge["mass"][i])
    accepting = ctx.steering.accept
    if accepting is None:
        return {}
    sample = _sample(ctx, production, made, m_chi, stream(ctx.seed, "millicharge", i))
    rows: dict[str, Arrays] = {}
    for name, detector in found.items():
        rng = stream(ctx.seed, "depth", name, i)
        here, sigma = carried(sample, (name, detector), accepting, (production.exposure.target_a, None), rng)
        if isinstance(sample, accept.Replicated):
            here = accept.Replicated.of(here, sample.replicas)
        seen = accept.millicharge_yields(here, m_chi, charges, detector, measured=law(ctx, production))
        row = {key: getattr(seen, key) for key in YIELDS}
        row["in_domain_fraction"] = seen.in_domain_fraction
        row["signal_sigma"] = np.array([sigma])
        if seen.replicas is not None:
            row["signal_variations"] = seen.replicas
        rows[name] = row
    ctx.tell("accept", (i + 1) / len(made.millicharge["mass"]), f"millicharge: m = {m_chi:.3f} GeV")
    return rows


def _sample(
    ctx: Context, production: Production, made: Any, m_chi: float, rng: np.random.Generator
) -> Sample:
    """Return χ and χ̄ of all channels at one mass."""
    section, accepting = _section(ctx), ctx.steering.accept
    if section is None or accepting is None:
        msg = "[predict.millicharge] and [accept] are needed for millicharged particles"
        raise SteeringError(msg)
    samples: list[Sample] = []
    weights: list[FloatArray | None] = []
    pairs, n, spin = _pairs(ctx, production, made), section.n_sample, production.spin
    if pairs is not None and 2 * m_chi < pairs[0][-1]:
        photons, members = generator(ctx, production, made, pairs, m_chi, rng)
        samples.append(
            predict.chi_pairs(photons, m_chi, rng=rng, longitudinal=accepting.longitudinal, spin=spin)
        )
        weights.append(None if members is None else np.concatenate([members, members], axis=1))
    for part in _parts(ctx, production.exposure, pairs):
        if part.rate(np.array([m_chi]))[0, 0] > 0:
            photons = part.photons(m_chi, n, rng)
            samples.append(
                predict.chi_pairs(photons, m_chi, rng=rng, longitudinal=accepting.longitudinal, spin=spin)
            )
            weights.append(None)
    if not samples:
        msg = f"predict.millicharge: no channel makes pairs of m_chi = {m_chi:g} GeV; drop this mass"
        raise SteeringError(msg)
    whole = predict.joined(samples)
    size = next((len(w) for w in weights if w is not None), 0)
    if not size:
        return whole
    every = [
        np.ones((size, len(s.weight))) if w is None else w for s, w in zip(samples, weights, strict=True)
    ]
    return accept.Replicated.of(whole, np.concatenate(every, axis=1))
