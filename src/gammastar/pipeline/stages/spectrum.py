"""Section ``[spectrum]``: photons per proton on target, and the gate before it: one table of checks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import awkward as ak
import numpy as np

from gammastar import mock, read, select, spectrum, subtract
from gammastar.config import measured
from gammastar.core.constants import M_E
from gammastar.core.errors import BranchError, InputFileError, PhysicsError, SteeringError
from gammastar.core.records import (
    KINEMATICS,
    BoolArray,
    Exposure,
    FloatArray,
    Rng,
    Spectrum,
    filled,
    variable,
)
from gammastar.core.sampling import Sampler, stream
from gammastar.pipeline import context
from gammastar.read.meaning import unnamed_weights
from gammastar.spectrum import checks
from gammastar.spectrum.mass_shape import resolution_of, without_fakes
from gammastar.store.folder import write_tensors
from gammastar.store.manifest import digest, digest_of, write_spectrum_files
from gammastar.unfold.simulation import in_window

N_MODELLED = 300_000  # pairs of a card for the kinematics at a published spectrum
N_CELLS = 30  # quantiles of q_T and of the energy


def spectrum_stage(ctx: context.Context, state: Any) -> None:
    """Divide the unfolded counts by the protons on target; write the spectrum."""
    section = context.needed(ctx.steering.spectrum, "spectrum")
    if section.table is not None:
        _published(ctx, section, state)
        return
    unfolded, unfolding = context.needed(state.unfolded, "unfold"), context.needed(state.unfolding, "unfold")
    exposure = _exposure(ctx, section, state)
    state.spectrum = spectrum.per_pot(unfolded, exposure)
    gate(ctx, state, state.spectrum)
    if section.extrapolate:
        axes, known = tuple(unfolded.hist.axes), context.simulated_as_measured(state)
        cells = context.forward_of(ctx, state).cells(axes, (known.true, known.weight))
        prior = unfolding["prior"] * cells.reshape(unfolding["prior"].shape)
        state.spectrum = spectrum.extrapolate(state.spectrum, filled(axes, prior, prior))
    state.mass_counts = _counts(ctx, state)
    key = ctx.cache.key(section, ctx.cache.key_of("unfold"), digest(exposure.pot, exposure.pot_sigma))
    ctx.cache.done("spectrum", key, digest_of(state.spectrum))
    write_spectrum_files(ctx.folder, state.spectrum, unfolded)


def _counts(ctx: context.Context, state: Any) -> spectrum.MassCounts | None:
    """Return and write the pairs by mass to which lines are fitted; None where too few are simulated."""
    kept = state.subtraction
    shifts = dict(zip(kept["shift_names"].tolist(), kept["shifts"], strict=True))
    simulated = in_window(context.simulated_as_measured(state), context.axes_of(ctx.steering.select))
    try:
        resolution = resolution_of(simulated, state.spectrum)
    except PhysicsError as error:
        ctx.cache.notes.append(f"rates at exact masses follow the unfolded bins: {error}")
        return None
    counts = spectrum.mass_counts(replace(state.subtracted, shifts=shifts), resolution)
    counts = without_fakes(counts, simulated)
    write_tensors(ctx.folder / context.MASS_COUNTS, counts.arrays())
    return counts


@dataclass(frozen=True)
class _Modelled:
    """What a published mass spectrum knows of q_T and energy: nowhere were they measured."""

    def in_domain(self, mass: FloatArray, pt: FloatArray, energy: FloatArray) -> BoolArray:  # noqa: ARG002
        """Return that no particle lies where pairs were measured."""
        return np.zeros(len(mass), dtype=np.bool_)


class _Unknown(Sampler):
    """Stands for kinematics that nobody gave: the rate is known, and nothing is drawn."""

    def __init__(self, edges: FloatArray) -> None:
        self._range = float(edges[0]), float(edges[-1])

    @property
    def mass_range(self) -> tuple[float, float]:
        """Masses of the table [GeV]."""
        return self._range

    def sample(self, mass: FloatArray, rng: Rng) -> tuple[FloatArray, FloatArray]:  # noqa: ARG002
        """Refuse."""
        msg = "a mass spectrum has no q_T and no energy: give [spectrum.table] kinematics, the name of a card"
        raise SteeringError(msg)


def _published(ctx: context.Context, section: measured.SpectrumSection, state: Any) -> None:
    """Take the spectrum of a published table, and kinematics from the hadrons of a card."""
    table = section.table
    if table is None:
        return
    found = measured.load_published(table, ctx.base, section)
    ctx.cache.enter({found.origin.path: found.origin.sha256})
    pot = section.pot if isinstance(section.pot, float | int) else 1.0
    beam = section.beam_energy, section.target_a, section.target_z, section.thickness
    exposure = Exposure(*beam, pot, ctx.steering.systematics.pot)
    state.spectrum = replace(found.spectrum, exposure=exposure)
    source, *assumed = found.notes
    ctx.cache.methods["measured spectrum"] = source
    ctx.cache.notes += [f"published table: {note}" for note in assumed]
    edges = np.asarray(state.spectrum.hist.axes[0].edges, dtype=np.float64)
    kinematics = ""
    state.training, state.sampler = _Modelled(), _Unknown(edges)
    if table.kinematics is not None:
        card = measured.load_card_of(section, ctx.base)
        kinematics, state.sampler = card.digest, _of_card(ctx, card, edges)
        ctx.cache.inputs[f"card {card.name}"] = kinematics
        ctx.cache.methods["kinematics"] = f"modelled: hadrons of the MOCK card {card.name}, nowhere measured"
        ctx.cache.alarm(
            f"q_T and energy are modelled by the MOCK card {card.name}; no error of that is known, and none "
            "of the signal counts as measured"
        )
    key = ctx.cache.key(section, digest(digest_of(state.spectrum), kinematics))
    ctx.cache.done("spectrum", key, digest(digest_of(state.spectrum), kinematics))
    write_spectrum_files(ctx.folder, state.spectrum, None)


def _of_card(ctx: context.Context, card: mock.Card, edges: FloatArray) -> Sampler:
    """Return the histogram sampler of the hadrons of a card, on the mass bins of the table."""
    pairs = mock.generate_pairs(card, N_MODELLED, stream(ctx.seed, "modelled kinematics"))
    inside = (pairs.mass >= edges[0]) & (pairs.mass < edges[-1]) & (pairs.energy < card.beam.energy)
    if not inside.any():
        ends = f"{edges[0]:g} to {edges[-1]:g} GeV"
        raise SteeringError(f"spectrum.table.kinematics: card {card.name!r} makes no pair of {ends}")
    points = [row[inside] for row in (pairs.mass, pairs.pt, pairs.energy)]
    bounds = [edges, *(np.quantile(row, np.linspace(0, 1, N_CELLS + 1)) for row in points[1:])]
    bounds[1][0], bounds[2][0], bounds[2][-1] = 0.0, 2 * M_E, card.beam.energy
    content, _ = np.histogramdd(points, bins=bounds, weights=pairs.weight[inside])
    axes = tuple(variable(name, row.tolist()) for name, row in zip(KINEMATICS, bounds, strict=True))
    cov = np.broadcast_to(0.0, (content.size, content.size))
    cells = Spectrum(filled(axes, content, content), cov, "per_pot", None, np.ones(content.shape, np.bool_))
    return spectrum.HistSampler(cells, beam_energy=card.beam.energy)


def _exposure(ctx: context.Context, section: measured.SpectrumSection, state: Any) -> Exposure:
    """Return the exposure of the data that were read: lost entries take their protons with them."""
    pot, simulated = section.pot, state.simulated
    if pot == "simulation":
        pot = float(simulated["data_pot"])
    lost = ctx.cache.partial.get("select", {}).get("lost_fraction", 0.0)
    if pot == "runs":
        if lost:
            text = "spectrum.pot = 'runs': files were skipped, and nobody knows the protons of their events"
            raise SteeringError(text)
        reading = context.needed(ctx.steering.read, "read")
        runs = context.needed(measured.load_runs(reading, ctx.base), "read.runs")
        pot, notes = runs.exposure(dict(state.cutflow["cutflow_runs"].tolist()))
        ctx.cache.methods["protons on target"] = f"sum over the runs that are kept: {pot:.6g}"
        for note in notes:
            ctx.cache.alarm(note)
    beam = section.beam_energy, section.target_a, section.target_z, section.thickness
    return Exposure(*beam, pot * (1.0 - lost) if lost else pot, ctx.steering.systematics.pot)


ROWS, MIXED = 40_000, 40_000  # entries of the first file that are looked at again; mixed pairs of each charge


def gate(ctx: context.Context, state: Any, spectrum: Spectrum) -> None:
    """Check; enter the table into the manifest and each alarm into the notes, refuse what cannot be right."""
    ctx.tell("checks", None, "")
    again = "select" in ctx.cache.taken and "checks" in ctx.cache.previous  # no input file is opened again
    rows = [_row(one) for one in _of_results(ctx, state, spectrum)]
    earlier = ctx.cache.previous["checks"] if again else ()
    rows += [row for row in earlier if row["of_file"]] if again else _of_files(ctx, state)
    ctx.cache.checks = rows
    wrong = []
    for row in rows:
        text = f"{row['name']}: {row['number']}, expected {row['threshold']}; {row['cure']}"
        if row["verdict"] == "alarm":
            ctx.cache.alarm(text)
        elif row["verdict"] == "error":
            wrong.append(text)
    if wrong:
        raise SteeringError("no result of this input can be right:\n  " + "\n  ".join(wrong))


def _row(check: checks.Check, *, of_file: bool = False) -> dict[str, Any]:
    """Return a check as the manifest holds it; `of_file`: it comes from the files of the user alone."""
    about = {"name": check.name, "number": f"{check.number:.4g}", "threshold": check.threshold}
    return about | {"cure": check.cure, "verdict": check.verdict, "of_file": of_file}


def _of_results(ctx: context.Context, state: Any, spectrum: Spectrum) -> Iterator[checks.Check]:
    kept, unfolding = state.subtraction, state.unfolding
    beam = context.needed(spectrum.exposure, "spectrum").beam_energy
    schema = measured.load_schema(context.needed(ctx.steering.read, "read"), ctx.code)
    yield from checks.of_subtraction(state.hists, state.subtracted)
    if len(state.pairs):
        yield from checks.of_pairs(state.pairs, schema.lepton, beam, weighted=bool(schema.weight))
        yield from checks.of_both(state.pairs, kept["weight"], kept["posterior"], state.matched)
    yield from checks.of_simulation(state.matched, beam)
    toys = unfolding.get("refolding_toys")
    p_value = None if toys is None else float(toys[4])
    of_response = unfolding["efficiency"], unfolding["prior"], p_value
    yield from checks.of_unfolding(state.unfolded, state.subtracted, *of_response)
    yield from checks.of_yield(spectrum)


def _of_files(ctx: context.Context, state: Any) -> list[dict[str, Any]]:
    """Return the checks of what the first rows of the first files hold beside what was read."""
    schema = measured.load_schema(context.needed(ctx.steering.read, "read"), ctx.code)
    asked = context.needed(ctx.steering.select, "select")
    reading, given = context.needed(ctx.steering.read, "read"), state.inputs
    runs = measured.load_runs(reading, ctx.base)
    cuts = [measured.load_cuts(asked, ctx.code, data=data, runs=runs) for data in (True, False)]
    found: list[checks.Check] = []
    for files, truth in ((given.files, False), (given.response, True)):
        for name, mean in _weights(files, schema, truth=truth).items():
            cure = "unused, looks like a weight: name it as weight or prescale of the schema"
            what = f"read: mean of the branch {name!r} of {files[0].name}"
            found.append(checks.Check(what, mean, 1.0, 1.0, cure))
    section = context.needed(ctx.steering.subtract, "subtract")
    chunks = [_first(given.files, schema), _first(given.response, schema.of_simulation())]
    if schema.layout != "pair" and chunks[0] is not None and not section.own and section.r_factor != "mixed":
        pool = subtract.mixing_pool([select.singles(chunks[0], cuts[0])])
        if len(np.unique(pool.charge)) == 2:
            mixed = subtract.mixed_pairs(pool, MIXED, rng=stream(ctx.seed, "checks"))
            plain = {name: limits for name, limits in cuts[0].pair.items() if name in checks.KINEMATIC}
            hists = select.fill(select.apply(mixed, select.Cuts(pair=plain)), context.axes_of(asked))
            one = checks.of_r_factor(hists, state.subtraction["like_sign"], state.subtracted)
            found += [one] if one is not None else []
    if schema.layout != "pair" and chunks[0] is not None and chunks[1] is not None:
        counts = ak.to_numpy(ak.num(chunks[1]["lepton"])).astype(np.float64)
        tracks = [select.singles(*both)[:2] for both in zip(chunks, cuts, strict=True)]
        found += checks.of_tracks(tracks[0], tracks[1], counts)
    if chunks[1] is not None and (asked.event or asked.event_functions or asked.pair or asked.pair_functions):
        simulated = select.pairs(chunks[1], cuts[1])[1].rows()
        flow = {name: state.cutflow[f"cutflow_{name}"].tolist() for name in ("name", "n", "os")}
        data = [dict(zip(flow, row, strict=True)) for row in zip(*flow.values(), strict=True)]
        found += checks.of_cuts(data, simulated)
    return [_row(one, of_file=True) for one in found]


def _weights(files: tuple[Any, ...], schema: read.Schema, *, truth: bool) -> dict[str, float]:
    """Return the unused weights of the first file, none of one that was skipped."""
    with contextlib.suppress(InputFileError, BranchError):
        return unnamed_weights(files[0], schema, truth=truth) if files else {}
    return {}


def _first(files: tuple[Any, ...], schema: read.Schema) -> Any:
    """Return the first rows of the first file, None where there are none or the file was skipped."""
    with contextlib.suppress(InputFileError, BranchError):
        return (
            next(read.open_events(str(files[0]), schema, step=ROWS, entry_stop=ROWS), None) if files else None
        )
    return None
