"""Section ``[spectrum]``: virtual photons per proton on target, extrapolated where the steering allows it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gammastar import mock, spectrum
from gammastar.config.measured import SpectrumSection, load_card_of, load_published, load_runs
from gammastar.core.constants import M_E
from gammastar.core.errors import PhysicsError, SteeringError
from gammastar.core.records import KINEMATICS, BoolArray, Exposure, FloatArray, Spectrum, filled, variable
from gammastar.core.sampling import Sampler, stream
from gammastar.pipeline.context import MASS_COUNTS, Context, axes_of, forward_of, needed
from gammastar.pipeline.gate import gate
from gammastar.spectrum.mass_shape import resolution_of, without_fakes
from gammastar.store.folder import write_tensors
from gammastar.store.manifest import digest, digest_of, write_spectrum_files
from gammastar.unfold.simulation import in_window

N_MODELLED = 300_000  # pairs of a card for the kinematics at a published spectrum
N_CELLS = 30  # quantiles of q_T and of the energy


def spectrum_stage(ctx: Context, state: Any) -> None:
    """Divide the unfolded counts by the protons on target; write the spectrum."""
    section = needed(ctx.steering.spectrum, "spectrum")
    if section.table is not None:
        _published(ctx, section, state)
        return
    unfolded, unfolding = needed(state.unfolded, "unfold"), needed(state.unfolding, "unfold")
    exposure = _exposure(ctx, section, state)
    state.spectrum = spectrum.per_pot(unfolded, exposure)
    gate(ctx, state, state.spectrum)
    if section.extrapolate:
        axes, known = tuple(unfolded.hist.axes), state.truth.sample
        cells = forward_of(ctx, state).cells(axes, (known.true, known.weight))
        prior = unfolding["prior"] * cells.reshape(unfolding["prior"].shape)
        state.spectrum = spectrum.extrapolate(state.spectrum, filled(axes, prior, prior))
    state.mass_counts = _counts(ctx, state)
    key = ctx.cache.key(section, ctx.cache.key_of("unfold"), digest(exposure.pot, exposure.pot_sigma))
    ctx.cache.done("spectrum", key, digest_of(state.spectrum))
    write_spectrum_files(ctx.folder, state.spectrum, unfolded)


def _counts(ctx: Context, state: Any) -> spectrum.MassCounts | None:
    """Return and write the pairs by mass to which lines are fitted; None where too few are simulated."""
    kept = state.subtraction
    shifts = dict(zip(kept["shift_names"].tolist(), kept["shifts"], strict=True))
    simulated = in_window(state.matched, axes_of(ctx.steering.select))
    try:
        resolution = resolution_of(simulated, state.spectrum)
    except PhysicsError as error:
        ctx.cache.notes.append(f"rates at exact masses follow the unfolded bins: {error}")
        return None
    counts = spectrum.mass_counts(replace(state.subtracted, shifts=shifts), resolution)
    counts = without_fakes(counts, simulated)
    write_tensors(ctx.folder / MASS_COUNTS, counts.arrays())
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

    def sample(self, mass: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:  # noqa: ARG002
        """Refuse."""
        msg = "a mass spectrum has no q_T and no energy: give [spectrum.table] kinematics, the name of a card"
        raise SteeringError(msg)


def _published(ctx: Context, section: SpectrumSection, state: Any) -> None:
    """Take the spectrum of a published table, and kinematics from the hadrons of a card."""
    table = section.table
    if table is None:
        return
    found = load_published(table, ctx.base, section)
    ctx.cache.enter({found.origin.path: found.origin.sha256})
    pot = section.pot if isinstance(section.pot, float | int) else 1.0
    exposure = Exposure(
        *(section.beam_energy, section.target_a, section.target_z, section.thickness),
        *(pot, ctx.steering.systematics.pot),
    )
    state.spectrum = replace(found.spectrum, exposure=exposure)
    source, *assumed = found.notes
    ctx.cache.methods["measured spectrum"] = source
    ctx.cache.notes += [f"published table: {note}" for note in assumed]
    edges = np.asarray(state.spectrum.hist.axes[0].edges, dtype=np.float64)
    kinematics = ""
    state.training, state.sampler = _Modelled(), _Unknown(edges)
    if table.kinematics is not None:
        card = load_card_of(section, ctx.base)
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


def _of_card(ctx: Context, card: mock.Card, edges: FloatArray) -> Sampler:
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


def _exposure(ctx: Context, section: SpectrumSection, state: Any) -> Exposure:
    """Return the exposure of the data that were read: lost entries take their protons with them."""
    pot, simulated = section.pot, state.simulated
    if pot == "simulation":
        if not simulated:
            msg = "spectrum.pot = 'simulation' needs [simulate]; give the number of protons on target"
            raise SteeringError(msg)
        pot = float(simulated["data_pot"])
    lost = ctx.cache.partial.get("select", {}).get("lost_fraction", 0.0)
    if pot == "runs":
        runs = load_runs(needed(ctx.steering.read, "read"), ctx.base)
        if runs is None or lost:
            msg = "spectrum.pot = 'runs' needs [read.runs]"
            text = "spectrum.pot = 'runs': files were skipped, and nobody knows the protons of their events"
            raise SteeringError(text if lost else msg)
        pot, notes = runs.exposure(dict(state.cutflow["cutflow_runs"].tolist()))
        ctx.cache.methods["protons on target"] = f"sum over the runs that are kept: {pot:.6g}"
        for note in notes:
            ctx.cache.alarm(note)
    return Exposure(
        section.beam_energy,
        section.target_a,
        section.target_z,
        section.thickness,
        pot * (1.0 - lost) if lost else pot,
        ctx.steering.systematics.pot,
    )
