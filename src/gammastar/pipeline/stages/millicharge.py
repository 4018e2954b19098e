"""Millicharged particles: pairs per proton on target, events in detectors, limits over masses and charges."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from gammastar import accept, predict, spectrum
from gammastar.config import Millicharge
from gammastar.core.constants import LEPTON_MASS, M_PI0
from gammastar.core.errors import PhysicsError, SteeringError
from gammastar.core.records import Exposure, FloatArray, Limit, Reach, Sample
from gammastar.core.sampling import stream
from gammastar.infer.limits import label_at
from gammastar.physics.millicharge import MillichargeDetector, from_dark_photons, load_millicharge_detector
from gammastar.pipeline.cache import Arrays
from gammastar.pipeline.context import Context, detector_files
from gammastar.pipeline.stages.accept import carried, law
from gammastar.pipeline.stages.counting_search import MEDIAN, Plane, sigma_between
from gammastar.pipeline.stages.error_budget import rate_budget, yield_budget
from gammastar.pipeline.stages.infer import intervals_of, limits_of_edges, write_grid
from gammastar.pipeline.stages.predict import Production, files_of, theory_channel
from gammastar.store.manifest import digest, write_json
from gammastar.store.records import write_reach

__all__ = [
    "ChargeSearch",
    "accept_stage",
    "generator",
    "infer_stage",
    "millicharge_detectors",
    "predict_stage",
]

THEORY_MAX = 3.5  # GeV: heaviest virtual photon of a theory channel
FINE = 0.001  # GeV, bins of a spectrum that is known at exact masses: a quarter of the width of the φ
MeasuredPairs: TypeAlias = tuple[FloatArray, FloatArray, FloatArray]
"""Edges [GeV], dileptons per proton on target in each bin, their covariance."""
YIELDS = ("signal", "in_domain_signal", "mc_error", "n_effective")


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
    from gammastar.pipeline.stages.flow import flow_options

    section = ctx.steering.flow
    if section is None:
        msg = "predict.millicharge.strategy: flows of their own need the options in [flow]"
        raise SteeringError(msg)
    return flow_options(section, (0.0, np.inf))


def _joint(ctx: Context, made: Any, cloud: predict.PairCloud) -> predict.Joint:
    """Return one flow of mass, pt and energy of all pairs, trained once per run."""
    from gammastar.flow.event_generator import JointOptions, fit_joint

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


def _parts(ctx: Context, exposure: Exposure, pairs: MeasuredPairs | None) -> list[_Part]:
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


def _pairs(ctx: Context, production: Production, made: Any) -> MeasuredPairs | None:
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


@dataclass(frozen=True, slots=True, eq=False)
class ChargeSearch:
    """The result of one detector of millicharged particles.

    Attributes
    ----------
    detector : MillichargeDetector
    assumption : str
        Where the background comes from.
    limit : Limit
        At the median uncertainty of the signal.
    reach, measured : Reach
        With every signal event, and with those from where dileptons were measured.
    spreads : mapping of str to NDArray, shape (masses, charges)
        ln κ of the signal by source, protons on target excepted.
    """

    detector: MillichargeDetector
    assumption: str
    limit: Limit
    reach: Reach
    measured: Reach
    spreads: Mapping[str, FloatArray]


def infer_stage(ctx: Context, exposure: Exposure, made: Any) -> dict[str, ChargeSearch]:
    """Return limit and reach in (m_χ, Q) of every detector and write their files."""
    section, accepted = ctx.steering.infer, made.millicharge_accepted
    if section is None or not accepted:
        return {}
    found = {}
    for name, detector in millicharge_detectors(ctx).items():
        ctx.tell("infer", None, detector.name)
        plane = Plane(ctx, section, detector, made.millicharge, accepted[name], exposure, main=False)
        _, expected, limit = plane.limits()
        median = expected[..., MEDIAN]
        whole, inside = (plane.reach(median, signal) for signal in (plane.signal, plane.inside))
        found[name] = ChargeSearch(detector, plane.assumption, limit, whole, inside, plane.spreads)
        _write(ctx, name, found[name], plane)
        write_grid(ctx, plane, suffix=f"_{name}", coupling_name="charge")
        slope = _exponents(plane.accepted)
        ctx.book.methods[f"limit, {detector.name}"] = f"{limit.method}; {plane.assumption}"
        ctx.book.numbers[f"exponent of Q, {detector.name}"] = f"{detector.exponent} declared, {slope}"
    return found


def _exponents(planes: Arrays) -> str:
    """Return d ln s/d ln Q at the smallest and at the middle charge of the mass with the largest signal."""
    row = int(planes["signal"].max(axis=1).argmax())
    signal, charge = planes["signal"][row], planes["couplings"]
    if not (signal > 0).all():
        return "no signal at small charge"
    slope = np.diff(np.log(signal)) / np.diff(np.log(charge))
    middle = len(slope) // 2
    return f"{slope[0]:.3f} at Q = {charge[0]:.2g} and {slope[middle]:.3f} at Q = {charge[middle]:.2g}"


def _write(ctx: Context, name: str, search: ChargeSearch, plane: Plane) -> None:
    """Write ``reach_<name>.csv`` and ``.json``: mass of χ [GeV] against Q."""
    rows: list[dict[str, Any]] = []
    parts = {"all": search.reach, "measured domain": search.measured}
    for part, reach in parts.items():
        for i, mass in enumerate(reach.mass):
            decided = limits_of_edges(reach, i)
            at = (decided["peak"], *reach.edges[i].tolist())
            axes = (plane.mass, plane.couplings)
            labels = [
                label_at(search.limit.method, sigma_between(plane.sigma, axes, float(mass), q))
                if q > 0
                else ""
                for q in at
            ]
            rows.append(
                {
                    "part": part,
                    "mass": float(mass),
                    "charge_low": float(reach.edges[i, 0]),
                    "charge_high": float(reach.edges[i, 1]),
                    "closed": bool(reach.closed[i]),
                    "clipped_side": reach.clipped_side[i],
                    "charge_peak": decided.pop("peak"),
                    "signal": float(reach.signal[i]),
                    **decided,
                    "cl": search.limit.cl,
                    "method": labels[0] or search.limit.method,
                    "method_low": labels[1],
                    "method_high": labels[2],
                }
            )
    write_reach(ctx.folder / f"reach_{name}.csv", {key: [row[key] for row in rows] for key in rows[0]})
    plain = [
        {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()}
        for row in rows
    ]
    content = {
        "label": f"{'MOCK ' if ctx.book.mock else ''}expected reach, {search.detector.name}",
        "mock": ctx.book.mock,
        "partial": ctx.book.partial,
        "illustrative": search.detector.illustrative,
        "assumption": search.assumption,
        "expected_limit": search.limit.expected,
        "signal_uncertainties": {name: float(np.median(s)) for name, s in search.spreads.items()},
        "exponent": search.detector.exponent,
        "mass_intervals": {part: intervals_of(reach) for part, reach in parts.items()},
        "columns": ["part", "mass", "charge_low", "charge_high", "closed", "clipped_side"],
        "rows": plain,
    }
    write_json(ctx.folder / f"reach_{name}.json", content)
