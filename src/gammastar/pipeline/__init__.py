"""The stages of a steering file in their order, with checkpoints and result files."""

from __future__ import annotations

from gammastar.pipeline.run_order import run

__all__ = ["run"]
