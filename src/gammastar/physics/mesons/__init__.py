"""Mesons: tables of their spectra and decays, and spectra in cells as FORESEE has them."""

from gammastar.physics.mesons.spectra import Cells, MesonSpectrum, read_cells, read_meson_spectra, write_cells
from gammastar.physics.mesons.tables import (
    Decay,
    Meson,
    MesonTable,
    Species,
    Unit,
    beam_frame,
    dark_photon_branching,
)

__all__ = [
    "Cells",
    "Decay",
    "Meson",
    "MesonSpectrum",
    "MesonTable",
    "Species",
    "Unit",
    "beam_frame",
    "dark_photon_branching",
    "read_cells",
    "read_meson_spectra",
    "write_cells",
]
