"""Likelihood, reach and report."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gammastar.config.fields import Positive, PositiveRange, Section
from gammastar.core.sources import Kind

__all__ = [
    "Infer",
    "Report",
]


class Infer(Section):
    """Likelihood and reach; background per detector file unless given here for the main one.

    `method`: "auto" takes exact limits below `asymptotic_from` events and asymptotic ones from there on.
    `nuisances`: uncertainties of the signal in limits, workspace and patches; "extrapolation" follows from
    how well the simulation describes the measured part, unless `extrapolation_sigma` gives ln κ of the
    signal outside the measured domain; "sample", the finite sample, is in every patch, and in the limits if
    it is named here. `discovery`: significances [σ] whose reach is written; `projections`: protons on target
    of further contours. `exports`: the likelihood of the point nearest to the limit as HS3 document or
    HistFactory XML. `submission`: tables and likelihood for HEPData. `refine`: at most so many further masses
    where the contour bends or ends.
    """

    cl: Annotated[float, Field(gt=0.5, lt=1)] = 0.90
    observed: Literal["masked", "asimov"] | tuple[Annotated[int, Field(ge=0)], ...] = "masked"
    background: Annotated[float, Field(ge=0, le=1e6)] | None = None
    background_sigma: Annotated[float, Field(ge=0)] = 0.0
    method: Literal["auto", "exact", "marginalised", "asymptotic"] = "auto"
    asymptotic_from: Positive = 20.0
    nuisances: tuple[Kind, ...] = ("pot",)
    extrapolation_sigma: Annotated[float, Field(ge=0, le=3)] | None = None
    coupling: PositiveRange = (1e-9, 1e-2)
    n_couplings: Annotated[int, Field(ge=10, le=10_000)] = 141
    min_effective: Positive = 10.0
    refine: Annotated[int, Field(ge=0, le=200)] = 0
    discovery: Annotated[tuple[Annotated[float, Field(gt=0, le=8)], ...], Field(max_length=20)] = (3.0, 5.0)
    projections: Annotated[tuple[Positive, ...], Field(max_length=20)] = ()
    max_patches: Annotated[int, Field(gt=0, le=1_000_000)] = 600
    exports: tuple[Literal["hs3", "xml"], ...] = ()
    submission: bool = True
    existing_limits: str | None = None
    hepdata: Annotated[str, Field(pattern=r"^ins[0-9]{7}$")] = "ins0000000"

    @model_validator(mode="after")
    def _complete(self) -> Infer:
        if self.background is None and self.background_sigma > 0:
            msg = "background_sigma belongs to background; without both those of the detector files count"
            raise ValueError(msg)
        return self


class Report(Section):
    """Masses at which the report shows the flow [GeV]."""

    flow_masses: Annotated[tuple[Positive, ...], Field(max_length=20)] = (0.3, 0.5, 0.77)
