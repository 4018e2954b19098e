"""The flow of the virtual photon."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from gammastar.config.fields import Edges, Positive, Range, Section

__all__ = [
    "FlowSection",
]


def _spread(value: int) -> int:
    if value == 1:
        msg = "must be 0 (no ensemble) or at least 2: one member has no spread"
        raise ValueError(msg)
    return value


Count = Annotated[int, Field(gt=0)]


class FlowSection(Section):
    """Training of the flow, its check in windows of mass [GeV], and the axes of its histogram twin.

    Architecture and training that are not given (None) are those of the preset: ``flow.FlowOptions()``, or
    ``flow.FlowOptions.paper()`` of the data-driven paper. ``members`` bootstrap replicas give the band of the
    flow. A window of the sample with fewer than ``min_window_pairs`` effective pairs is refused.
    """

    mass: Edges | None = None
    pt: Edges | None = None
    energy: Edges | None = None
    preset: Literal["default", "paper"] = "default"
    bins: Annotated[int, Field(gt=1)] | None = None
    hidden: Count | None = None
    layers: Count | None = None
    epochs: Count | None = None
    epoch_size: Count | None = None
    batch: Count | None = None
    learning_rate: Positive | None = None
    mass_flattening: Annotated[float, Field(ge=0, le=1)] = 0.0
    min_window_pairs: Annotated[float, Field(ge=0)] = 0.0
    members: Annotated[int, Field(ge=0, le=100), AfterValidator(_spread)] = 0
    device: Literal["cpu", "cuda"] = "cpu"
    checkpoint_every: Count = 1
    n_draws: Annotated[int, Field(ge=10)] = 100
    window: Positive = 0.03
    check_range: Range = (0.25, 1.05)
