"""The flow of the virtual photon."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gammastar.config.fields import Edges, Positive, Range, Section

__all__ = [
    "FlowSection",
]


class FlowSection(Section):
    """Training of the flow, its check in windows of mass [GeV], and the axes of its histogram twin."""

    mass: Edges | None = None
    pt: Edges | None = None
    energy: Edges | None = None
    bins: Annotated[int, Field(gt=1)] = 16
    hidden: Annotated[int, Field(gt=0)] = 64
    layers: Annotated[int, Field(gt=0)] = 2
    epochs: Annotated[int, Field(gt=0)] = 20
    epoch_size: Annotated[int, Field(gt=0)] = 80_000
    batch: Annotated[int, Field(gt=0)] = 1024
    learning_rate: Positive = 3e-3
    mass_flattening: Annotated[float, Field(ge=0, le=1)] = 0.0
    n_draws: Annotated[int, Field(ge=10)] = 100
    window: Positive = 0.03
    check_range: Range = (0.25, 1.05)
