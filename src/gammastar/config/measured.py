"""The measured half: reading, selection, subtraction, unfolding, exposure."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gammastar.config.fields import Edges, Fraction, Positive, Range, Section

__all__ = [
    "Read",
    "Select",
    "SpectrumSection",
    "Subtract",
    "Unfold",
]


class Read(Section):
    """Input ntuples, the simulation for the response, and the schema that maps both."""

    files: tuple[str, ...] = ()
    response: tuple[str, ...] = ()
    schema_file: str = Field(alias="schema")
    step: (
        Annotated[int, Field(gt=0, strict=True)] | Annotated[str, Field(pattern=r"^\d+(\.\d+)? ?[kMG]i?B$")]
    ) = "32 MB"


class Select(Section):
    """Range cuts, function cuts, pair-level ghost veto, and the axes of the reconstructed spectrum."""

    lepton: dict[str, Range] = Field(default_factory=dict)
    pair: dict[str, Range] = Field(default_factory=dict)
    event_functions: tuple[str, ...] = ()
    pair_functions: tuple[str, ...] = ()
    ghost_angle: Annotated[float, Field(ge=0)] = 0.0
    ghost_excess: Annotated[float, Field(ge=0)] = 0.0
    mass: Edges
    pt: Edges = (0.0, 1e4)
    energy: Edges = (0.0, 1e5)


class Subtract(Section):
    """Same-sign background; `coarse` gives, by axis, the regions in which B5 takes its charge ratio."""

    method: Literal["B1", "B2", "B3", "B5"] = "B5"
    r_factor: Positive | Literal["simulation"] = 1.0
    r_factor_sigma: Annotated[float, Field(ge=0)] = 0.0
    coarse: dict[Literal["mass", "pt", "energy"], Edges] = Field(default_factory=dict)
    weights: Literal["posterior", "signed"] = "posterior"


class Unfold(Section):
    """Response and unfolding; the true axes are those of [select] unless given."""

    preset: Literal["true mass", "smeared mass, as the paper"] = "true mass"
    n_iterations: Annotated[int, Field(gt=0)] = 4
    n_replicas: Annotated[int, Field(ge=0)] = 50
    efficiency_floor: Annotated[float, Field(gt=0, lt=1)] = 0.01
    mass: Edges | None = None
    pt: Edges | None = None
    energy: Edges | None = None


class SpectrumSection(Section):
    """Exposure of the calibration run; `extrapolate` fills unmeasured cells with the simulation's shape."""

    beam_energy: Positive
    target_a: Positive
    target_z: Positive
    thickness: Positive
    pot: Positive | Literal["simulation"]
    pot_sigma: Fraction = 0.0
    lepton: Literal["e", "mu"] = "mu"
    extrapolate: bool = True
