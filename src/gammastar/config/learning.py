"""The flow of the virtual photon."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from gammastar.config.fields import Count, Edges, Positive, Range, Section, cells_problem

MOST_CELLS = 10_000_000  # of a histogram without covariance

__all__ = [
    "FlowSection",
]


def _spread(value: int) -> int:
    if value == 1:
        msg = "must be 0 (no ensemble) or at least 2: one member has no spread"
        raise ValueError(msg)
    return value


class FlowSection(Section):
    """Training of the flow, its check in windows of mass [GeV], and the axes of its histogram twin.

    Architecture and training that are not given (None) are those of the preset: ``flow.FlowOptions()``, or
    ``flow.FlowOptions.paper()`` of the data-driven paper. ``members`` bootstrap replicas give the band of the
    flow. A window of the sample with fewer than ``min_window_pairs`` effective pairs is refused. ``angles``:
    edges of regions of mass in which the spin density is fitted to the decay angles of the pairs, frame
    "laboratory"; [accept] then takes it for photons whose parent nobody knows.
    """

    mass: Edges | None = None
    pt: Edges | None = None
    energy: Edges | None = None
    angles: Edges | None = None
    preset: Literal["default", "paper"] = "default"
    bins: Annotated[int, Field(gt=1, le=1000)] | None = None
    hidden: Annotated[int, Field(gt=0, le=10_000)] | None = None
    layers: Annotated[int, Field(gt=0, le=100)] | None = None
    epochs: Annotated[int, Field(gt=0, le=1_000_000)] | None = None
    epoch_size: Count | None = None
    batch: Count | None = None
    learning_rate: Positive | None = None
    mass_flattening: Annotated[float, Field(ge=0, le=1)] = 0.0
    min_window_pairs: Annotated[float, Field(ge=0)] = 0.0
    members: Annotated[int, Field(ge=0, le=100), AfterValidator(_spread)] = 0
    device: Literal["cpu", "cuda"] = "cpu"
    checkpoint_every: Count = 1
    n_draws: Annotated[int, Field(ge=10, le=100_000)] = 100
    window: Positive = 0.03
    check_range: Range = (0.25, 1.05)

    @model_validator(mode="after")
    def _within_memory(self) -> FlowSection:
        problem = cells_problem(self.mass, self.pt, self.energy, most=MOST_CELLS)
        if problem:
            raise ValueError(problem)
        return self
