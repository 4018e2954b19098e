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
from gammastar.store.records import write_spectrum_files

__all__ = ["spectrum_stage"]


def spectrum_stage(ctx: Context, made: Any) -> None:
    """Divide the unfolded counts by the protons on target; write the spectrum."""
    unfolded, unfolding = needed(made.unfolded, "unfold"), needed(made.unfolding, "unfold")
    section = needed(ctx.steering.spectrum, "spectrum")
    exposure = _exposure(ctx, section, made)
    made.spectrum = spectrum.per_pot(unfolded, exposure)
    if section.extrapolate:
        prior = filled(tuple(unfolded.hist.axes), unfolding["prior"], unfolding["prior"])
        made.spectrum = spectrum.extrapolate(made.spectrum, prior)
    key = ctx.book.key(section, ctx.book.key_of("unfold"), digest(exposure.pot))
    ctx.book.done("spectrum", key, digest(made.spectrum.values, made.spectrum.cov, made.spectrum.domain))
    write_spectrum_files(ctx.folder, made.spectrum, unfolded)


def _exposure(ctx: Context, section: SpectrumSection, made: Any) -> Exposure:
    """Return the exposure of the data that were read: lost entries take their protons with them."""
    pot, simulated = section.pot, made.simulated
    if pot == "simulation":
        if not simulated:
            msg = "spectrum.pot = 'simulation' needs [simulate]; give the number of protons on target"
            raise SteeringError(msg)
        pot = float(simulated["data_pot"])
    lost = ctx.book.partial.get("select", {}).get("lost_fraction", 0.0)
    return Exposure(
        section.beam_energy,
        section.target_a,
        section.target_z,
        section.thickness,
        pot * (1.0 - lost) if lost else pot,
        section.pot_sigma,
    )
