"""Rates of dark states and the detectors that look for them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gammastar.config.fields import Positive, Range, Section

__all__ = [
    "Accept",
    "Predict",
]


class Predict(Section):
    """Masses and size of the samples; without `masses`, `n_masses` equidistant ones in the measured range."""

    model: str = "dark_photon"
    source: Literal["spectrum"] = "spectrum"
    sampler: Literal["flow", "histogram"] = "flow"
    masses: tuple[Positive, ...] = ()
    n_masses: Annotated[int, Field(ge=2)] = 40
    n_sample: Annotated[int, Field(gt=0)] = 20_000


class Accept(Section):
    """Detectors of the search: files or names of shipped ones; the first is the main one."""

    detectors: Annotated[tuple[str, ...], Field(min_length=1)]
    final_states: tuple[Literal["ee", "mumu"], ...] = ("ee", "mumu")
    target_scaling: Literal["per_interaction"] | None = None
    ctau: Range = (1e-2, 1e5)
    acceptance_masses: tuple[Positive, ...] = (0.3, 0.5, 0.77, 1.0)
