"""Section ``[spectrum]``: virtual photons per proton on target, extrapolated where the steering allows it."""

from __future__ import annotations

from typing import Any

from gammastar import spectrum
from gammastar.config.measured import SpectrumSection
from gammastar.core.axes import filled
from gammastar.core.errors import SteeringError
from gammastar.core.records import Exposure
from gammastar.pipeline.context import Context, needed
from gammastar.store.manifest import digest
from gammastar.store.records import digest_of, write_spectrum_files

__all__ = ["spectrum_stage"]


def spectrum_stage(ctx: Context, state: Any) -> None:
    """Divide the unfolded counts by the protons on target; write the spectrum."""
    unfolded, unfolding = needed(state.unfolded, "unfold"), needed(state.unfolding, "unfold")
    section = needed(ctx.steering.spectrum, "spectrum")
    exposure = _exposure(ctx, section, state)
    state.spectrum = spectrum.per_pot(unfolded, exposure)
    if section.extrapolate:
        prior = filled(tuple(unfolded.hist.axes), unfolding["prior"], unfolding["prior"])
        state.spectrum = spectrum.extrapolate(state.spectrum, prior)
    key = ctx.cache.key(section, ctx.cache.key_of("unfold"), digest(exposure.pot, exposure.pot_sigma))
    ctx.cache.done("spectrum", key, digest_of(state.spectrum))
    write_spectrum_files(ctx.folder, state.spectrum, unfolded)


def _exposure(ctx: Context, section: SpectrumSection, state: Any) -> Exposure:
    """Return the exposure of the data that were read: lost entries take their protons with them."""
    pot, simulated = section.pot, state.simulated
    if pot == "simulation":
        if not simulated:
            msg = "spectrum.pot = 'simulation' needs [simulate]; give the number of protons on target"
            raise SteeringError(msg)
        pot = float(simulated["data_pot"])
    lost = ctx.cache.partial.get("select", {}).get("lost_fraction", 0.0)
    return Exposure(
        section.beam_energy,
        section.target_a,
        section.target_z,
        section.thickness,
        pot * (1.0 - lost) if lost else pot,
        ctx.steering.systematics.pot,
    )
