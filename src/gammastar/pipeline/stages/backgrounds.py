"""What is subtracted besides the like-sign pairs of the histograms: R, mixed events, charm, corrections."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gammastar import config, mock, read, select, subtract
from gammastar.config.measured import Charm, CorrectionSection
from gammastar.core.axes import MASS, variable
from gammastar.core.constants import mass as particle_mass
from gammastar.core.errors import SteeringError
from gammastar.core.files import shipped
from gammastar.core.pairs import MatchedPairs, Pairs
from gammastar.core.records import FloatArray, PairHists
from gammastar.core.sampling import stream
from gammastar.pipeline.cache import Arrays
from gammastar.pipeline.context import Context
from gammastar.pipeline.stages.input_files import load_cuts, load_schema
from gammastar.pipeline.stages.read import Inputs
from gammastar.pipeline.stages.stored import Parts, Truth, fill_all, held, thinned
from gammastar.spectrum.angles import ANGLES
from gammastar.store.events import write_tree
from gammastar.store.filesets import find_file
from gammastar.store.manifest import file_sha256

__all__ = [
    "Component",
    "Ratio",
    "charge_ratio",
    "charm_component",
    "correction_component",
    "pair_offset",
    "reads_leptons",
]

OFFSET = "charm_offset"
ETA = 221
WINDOW = 2.0  # standard deviations of the mass around the η whose simulated pairs give pt and energy


@dataclass(frozen=True, eq=False)
class Ratio:
    """R with its error, and the mixed pairs where there are any, of so many `leptons` if not of all."""

    value: float | FloatArray
    sigma: float | FloatArray
    mixed: Pairs | None = None
    leptons: int = 0

    @property
    def mean(self) -> tuple[float, float]:
        """Return R and its error, averaged over cells."""
        return float(np.mean(self.value)), float(np.mean(self.sigma))


@dataclass(frozen=True, eq=False)
class Component:
    """Pairs to remove: a template on pairs, their number and its error inside the axes."""

    name: str
    template: Pairs
    amount: float
    sigma: float
    source: str
    charm: subtract.CharmFit | None = None


def charge_ratio(ctx: Context, axes: tuple[Any, ...], simulated: Arrays, given: Inputs) -> Ratio:
    """Return R as the steering asks for it: a number, from the simulation, or from mixed events."""
    section = _subtraction(ctx)
    if section.r_factor == "simulation":
        if not simulated:
            msg = "subtract.r_factor = 'simulation' needs [simulate]; give the number and its error instead"
            raise SteeringError(msg)
        r, sigma = (float(x) for x in simulated["r_factor"])
        return Ratio(r, sigma)
    if not reads_leptons(section):
        value = float(section.r_factor)
        if section.r_mult == 1.0 and section.r_mult_sigma == 0.0:
            return Ratio(value, section.r_factor_sigma)
        pair = subtract.with_multiplicity(value, section.r_factor_sigma, section.r_mult, section.r_mult_sigma)
        return Ratio(float(pair[0]), float(pair[1]))
    mixed, chosen = _mixed_pairs(ctx, given, section.mixed_pairs)
    coarse: dict[str, Any] = {str(name): edges for name, edges in section.r_coarse.items()}
    r_cells, errors = subtract.r_factor(mixed, axes, coarse=coarse or None, rng=stream(ctx.seed, "mixing"))
    r_cells, errors = subtract.with_multiplicity(r_cells, errors, section.r_mult, section.r_mult_sigma)
    if not coarse:
        return Ratio(float(r_cells.flat[0]), float(errors.flat[0]), mixed, chosen)
    return Ratio(r_cells, errors, mixed, chosen)


def reads_leptons(section: config.Subtract) -> bool:
    """Return whether R or the background comes from the leptons of the data, which are read for it."""
    return section.r_factor == "mixed" or section.method == "B4"


def _subtraction(ctx: Context) -> config.Subtract:
    if ctx.steering.subtract is None:
        msg = "[subtract] is needed for the subtraction"
        raise SteeringError(msg)
    return ctx.steering.subtract


def _selection(ctx: Context) -> tuple[config.Read, config.Select]:
    if ctx.steering.read is None or ctx.steering.select is None:
        msg = "[read] and [select] are needed for the subtraction"
        raise SteeringError(msg)
    return ctx.steering.read, ctx.steering.select


def _mixed_pairs(ctx: Context, given: Inputs, n: int) -> tuple[Pairs, int]:
    """Combine leptons of different events of the data and apply the selection of pairs.

    Returns the pairs, and the size of the pool if it holds but a sample of the leptons, else 0.
    """
    reading, section = _selection(ctx)
    schema, cuts = load_schema(reading, ctx.code), load_cuts(section, ctx.code)
    if schema.layout == "pair":
        msg = "subtract: files of pairs hold no single leptons to mix; give r_factor and another method"
        raise SteeringError(msg)
    ctx.tell("subtract", None, "leptons for mixed events")
    chunks = read.open_events([str(f) for f in given.files], schema, step=reading.step)
    leptons = (select.singles(events, cuts) for events in chunks)
    parts, rest = held(leptons, section.max_in_memory, lambda part: len(part[1]))
    rng = stream(ctx.seed, "mixed")
    if rest is None:
        momentum, charge, event, group = (np.concatenate(column) for column in zip(*parts, strict=True))
        pool = subtract.Pool.of(momentum, charge, event, group, rng=rng)
    else:
        pool = subtract.streamed_pool(rest, dataset=ctx.steering.analysis.name)
    chosen = 0 if rest is None else len(pool.charge)
    return select.apply(subtract.mixed_pairs(pool, n, rng=rng), cuts), chosen


def selected_pairs(ctx: Context, files: Sequence[Any]) -> Pairs:
    """Return the opposite-sign pairs of other files after the selection of the data, or a sample of them."""
    reading, section = _selection(ctx)
    schema, cuts = load_schema(reading, ctx.code), load_cuts(section, ctx.code)
    chunks = read.open_events([str(f) for f in files], schema, step=reading.step)
    found = (select.pairs(events, cuts)[0] for events in chunks)
    return thinned(
        (part.select(part.os) for part in found), section.max_in_memory, ctx.steering.analysis.name
    )


def _files(ctx: Context, names: Sequence[str]) -> list[Any]:
    return [path for name in names for path in find_file(name, ctx.base)]


def pair_offset(columns: Any, names: Sequence[str], key: str) -> FloatArray:
    """Return one pair column, or the distance of the two leptons in several lepton columns.

    Raises
    ------
    SteeringError
        If a column is missing; the message names `key`.
    """
    wanted = list(names) if len(names) == 1 else [f"{name}_{leg}" for name in names for leg in (1, 2)]
    missing = [name for name in wanted if name not in columns]
    if missing:
        msg = f"{key}: the pairs have no column {', '.join(missing)}; name lepton_columns in the schema"
        raise SteeringError(msg)
    if len(names) == 1:
        return np.asarray(columns[names[0]])
    squares = [(columns[f"{name}_1"] - columns[f"{name}_2"]) ** 2 for name in names]
    return np.asarray(np.sqrt(np.sum(squares, axis=0)))


def with_offset(pairs: Pairs, charm: Charm) -> Pairs:
    """Return the pairs with the vertex offset and, where they have them, the decay angles as only columns."""
    kept = {name: pairs.columns[name] for name in ANGLES if name in pairs.columns}
    offset = pair_offset(pairs.columns, charm.offset, "subtract.charm.offset")
    return replace(pairs, columns={OFFSET: offset} | kept)


def _content(pairs: Pairs, axes: tuple[Any, ...]) -> float:
    return float(select.fill(pairs, axes).os.values().sum())


def _charm_template(ctx: Context, charm: Charm) -> Pairs:
    if charm.template != "simulation":
        return with_offset(selected_pairs(ctx, _files(ctx, charm.template)), charm)
    section = ctx.steering.simulate
    if section is None:
        msg = "subtract.charm.template = 'simulation' needs [simulate]; give files of simulated charm instead"
        raise SteeringError(msg)
    ctx.tell("subtract", None, "MOCK open charm")
    card = mock.load_card(shipped(section.card, ctx.base, "cards"))
    events = mock.simulate_events(card, charm.n_template, kind="charm", seed=ctx.seed + 2)
    path: Path = ctx.folder / "input" / "mock_charm.root"
    write_tree(path, {"events": events.branches, "meta": events.meta_branches()})
    ctx.book.enter({path: file_sha256(path)})
    return with_offset(selected_pairs(ctx, [path]), charm)


def charm_component(
    ctx: Context, parts: Parts, truth: Truth, ratio: Ratio, axes: tuple[Any, ...]
) -> Component:
    """Fit open charm in mass and vertex offset; prompt pairs have the offsets of the response simulation."""
    section = _subtraction(ctx)
    charm = section.charm
    if charm is None:
        msg = "[subtract.charm] is needed to fit open charm"
        raise SteeringError(msg)
    mass_axis = next(axis for axis in axes if axis.name == MASS)
    plane = (mass_axis, variable(OFFSET, list(charm.edges)))
    template = _charm_template(ctx, charm)
    ctx.tell("subtract", None, f"charm fit, {len(template)} simulated charm pairs")
    prompt = tuple(select.fill(_prompt(part, charm), plane).os for part in truth.parts)
    method = "B5" if section.method == "B4" else section.method
    r, sigma = ratio.mean
    flat: PairHists = fill_all(parts, plane, lambda part: with_offset(part, charm))
    found = subtract.fit_charm(
        flat,
        select.fill(template, plane).os,
        functools.reduce(operator.add, prompt),
        method=method,
        r_factor=r if method not in ("B1", "B2") else 1.0,
        r_factor_sigma=sigma,
        coarse={MASS: section.coarse["mass"]} if "mass" in section.coarse else None,
    )
    share = _content(template, axes) / _content(template, plane)
    about = "simulated charm, fitted in mass and vertex offset"
    return Component("open charm", template, found.charm * share, found.charm_sigma * share, about, found)


def _prompt(matched: MatchedPairs, charm: Charm) -> Pairs:
    seen = matched.select(matched.reconstructed)
    n = len(seen)
    kinematics = (seen.reco[:, 0], seen.reco[:, 1], seen.reco[:, 2])
    offset = pair_offset(seen.columns, charm.offset, "subtract.charm.offset")
    return Pairs(*kinematics, np.zeros(n, np.int8), seen.weight, seen.event, {OFFSET: offset})


def correction_component(
    ctx: Context, given: CorrectionSection, total: float, matched: MatchedPairs | None, axis: Any
) -> Component:
    """Return a named correction; `total` is the yield after the background subtraction."""
    if given.kind == "files":
        template = selected_pairs(ctx, _files(ctx, given.files))
        if not len(template):
            msg = f"subtract.corrections: no opposite-sign pair of {given.name!r} passes the selection"
            raise SteeringError(msg)
        scale = 1.0 if given.fraction is None else total
        amount = given.fraction * total if given.fraction is not None else float(given.pairs or 0.0)
        return Component(given.name, template, amount, float(given.sigma or 0.0) * scale, given.source)
    if matched is None or given.n_dalitz is None or given.resolution is None:
        msg = f"subtract.corrections: {given.name!r} needs the response simulation for its kinematics"
        raise SteeringError(msg)
    sized = subtract.eta_dimuon(
        axis,
        given.n_dalitz,
        resolution=given.resolution,
        efficiency_ratio=given.efficiency_ratio,
        n_dalitz_sigma=given.n_dalitz_sigma,
    )
    pole = particle_mass(ETA)
    seen = matched.reco[matched.reconstructed]
    near = seen[np.abs(seen[:, 0] - pole) < WINDOW * given.resolution]
    if not len(near):
        msg = f"subtract.corrections: no simulated pair within {WINDOW:g} σ of the η gives its pt and energy"
        raise SteeringError(msg)
    masses = stream(ctx.seed, "eta").normal(pole, given.resolution, len(near))
    n = len(near)
    template = Pairs(masses, near[:, 1], near[:, 2], np.zeros(n, np.int8), np.ones(n), np.arange(n))
    return Component(given.name, template, sized.amount, sized.sigma, given.source or sized.source)
