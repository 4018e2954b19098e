"""gammastar: from measured dilepton pairs to dark-sector reach."""

from __future__ import annotations

from importlib.metadata import version

__all__ = ["__version__"]
__version__ = version("gammastar")
