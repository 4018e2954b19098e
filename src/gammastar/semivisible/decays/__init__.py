"""Decays of dark states: spectra through an off-shell dark photon, prompt decays, tables to draw from."""

from __future__ import annotations

from gammastar.semivisible.decays.spectra import (
    Transition,
    angular,
    dark_widths,
    spectrum,
    squared_amplitude,
    width,
)
from gammastar.semivisible.decays.table import (
    DecayTable,
    Mixings,
    NeutrinoMixing,
    decay_table,
    lifetimes,
    visible_widths,
)

__all__ = [
    "DecayTable",
    "Mixings",
    "NeutrinoMixing",
    "Transition",
    "angular",
    "dark_widths",
    "decay_table",
    "lifetimes",
    "spectrum",
    "squared_amplitude",
    "visible_widths",
    "width",
]
