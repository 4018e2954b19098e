"""Likelihood, reach and report."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gammastar.config.fields import Positive, Range, Section

__all__ = [
    "Infer",
    "Report",
]


class Infer(Section):
    """Likelihood and reach; background per detector file unless given here for the main one."""

    cl: Annotated[float, Field(gt=0.5, lt=1)] = 0.90
    observed: Literal["masked", "asimov"] | tuple[Annotated[int, Field(ge=0)], ...] = "masked"
    background: Annotated[float, Field(ge=0)] | None = None
    background_sigma: Annotated[float, Field(ge=0)] = 0.0
    coupling: Range = (1e-9, 1e-2)
    n_couplings: Annotated[int, Field(ge=10)] = 141
    min_effective: Positive = 10.0
    max_patches: Annotated[int, Field(gt=0)] = 600
    existing_limits: str | None = None
    hepdata: Annotated[str, Field(pattern=r"^ins[0-9]{7}$")] = "ins0000000"


class Report(Section):
    """Masses at which the report shows the flow [GeV]."""

    flow_masses: tuple[Positive, ...] = (0.3, 0.5, 0.77)
