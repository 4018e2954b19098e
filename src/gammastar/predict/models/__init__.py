"""Dark-sector models, one per file."""

from gammastar.predict.models.dark_photon import DarkPhoton
from gammastar.predict.models.vectors import VectorModel, rate_ratio, recoupled

__all__ = ["DarkPhoton", "VectorModel", "rate_ratio", "recoupled"]
