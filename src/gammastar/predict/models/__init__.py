"""Dark-sector models, one per file."""

from gammastar.predict.models.dark_photon import DarkPhoton

__all__ = ["DarkPhoton"]
