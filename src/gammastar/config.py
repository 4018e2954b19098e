"""The steering file: TOML, frozen pydantic models, unknown keys refused.

Sections are named as the stages and all are optional; a stage runs when its section is there. Reading a
steering file never touches the data that it names.
"""

from __future__ import annotations

import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gammastar.core.errors import SteeringError

__all__ = ["STAGES", "Steering", "load", "parse"]

STAGES = (
    "simulate",
    "read",
    "select",
    "subtract",
    "unfold",
    "spectrum",
    "flow",
    "predict",
    "accept",
    "infer",
    "report",
)

Edges = Annotated[tuple[float, ...], Field(min_length=2)]
Range = tuple[float, float]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _increasing(name: str, edges: tuple[float, ...]) -> None:
    if any(high <= low for low, high in pairwise(edges)):
        msg = f"{name} must increase"
        raise ValueError(msg)


class Analysis(_Section):
    """Name, seed and nature of the data."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
    title: str = ""
    seed: Annotated[int, Field(ge=0)] = 1
    mock: bool = False


class Simulate(_Section):
    """Mock data made at run time from a card."""

    card: str
    n_pairs: Annotated[int, Field(gt=0)]
    n_response: Annotated[int, Field(gt=0)]


class Read(_Section):
    """Input ntuples and the schema that maps them."""

    files: tuple[str, ...] = ()
    response: tuple[str, ...] = ()
    schema_file: str = Field(alias="schema")
    step: str = "100 MB"


class Select(_Section):
    """Range cuts, function cuts and the pair-level ghost veto."""

    lepton: dict[str, Range] = {}
    pair: dict[str, Range] = {}
    functions: tuple[str, ...] = ()
    min_angle: Annotated[float, Field(ge=0)] = 0.0
    mass: Edges
    pt: Edges = (0.0, 100.0)
    energy: Edges = (0.0, 1e4)

    @model_validator(mode="after")
    def _check(self) -> Select:
        for name in ("mass", "pt", "energy"):
            _increasing(name, getattr(self, name))
        return self


class Subtract(_Section):
    """Same-sign background."""

    method: Literal["B1", "B2", "B3", "B5"] = "B5"
    r_factor: Positive | Literal["simulation"] = 1.0
    r_factor_sigma: Annotated[float, Field(ge=0)] = 0.0
    coarse: Annotated[int, Field(gt=0)] = 10


class Unfold(_Section):
    """Response and unfolding."""

    preset: Literal["true mass", "smeared mass, as the paper"] = "true mass"
    n_iterations: Annotated[int, Field(gt=0)] = 4
    n_replicas: Annotated[int, Field(ge=0)] = 100
    efficiency_floor: Annotated[float, Field(gt=0, lt=1)] = 0.01


class SpectrumSection(_Section):
    """Exposure of the calibration run."""

    beam_energy: Positive
    target_a: Positive
    target_z: Positive
    thickness: Positive
    pot: Positive
    pot_sigma: Fraction = 0.0
    live: Annotated[float, Field(gt=0, le=1)] = 1.0
    lepton: Literal["e", "mu"] = "mu"
    extrapolate: bool = True


class FlowSection(_Section):
    """Training of the flow."""

    n_epochs: Annotated[int, Field(gt=0)] = 30
    batch_size: Annotated[int, Field(gt=0)] = 1024
    hidden: Annotated[int, Field(gt=0)] = 48
    n_bins: Annotated[int, Field(gt=1)] = 12
    n_draws: Annotated[int, Field(ge=10)] = 100
    window: Positive = 0.03


class Predict(_Section):
    """Masses and size of the samples."""

    model: Literal["dark_photon"] = "dark_photon"
    source: Literal["spectrum"] = "spectrum"
    sampler: Literal["flow", "histogram"] = "flow"
    masses: tuple[Positive, ...] = ()
    n_masses: Annotated[int, Field(ge=2)] = 40
    n_sample: Annotated[int, Field(gt=0)] = 20000


class Accept(_Section):
    """Detectors of the search."""

    detectors: Annotated[tuple[str, ...], Field(min_length=1)]
    target_scaling: Literal["per_interaction"] = "per_interaction"
    final_states: tuple[Literal["ee", "mumu"], ...] = ("ee", "mumu")


class Infer(_Section):
    """Likelihood and reach."""

    cl: Annotated[float, Field(gt=0.5, lt=1)] = 0.90
    observed: Literal["masked", "asimov"] | tuple[int, ...] = "masked"
    background: Annotated[float, Field(ge=0)] | None = None
    background_sigma: Annotated[float, Field(ge=0)] = 0.0
    coupling: Range = (1e-9, 1e-2)
    hepdata: Annotated[str, Field(pattern=r"^ins[0-9]{7}$")] = "ins0000000"


class Report(_Section):
    """Cosmetics."""

    formats: tuple[Literal["png", "pdf"], ...] = ("png", "pdf")
    flow_masses: tuple[Positive, ...] = (0.3, 0.5, 0.77)


class Steering(_Section):
    """A whole analysis; every section but ``[analysis]`` is optional."""

    analysis: Analysis
    simulate: Simulate | None = None
    read: Read | None = None
    select: Select | None = None
    subtract: Subtract | None = None
    unfold: Unfold | None = None
    spectrum: SpectrumSection | None = None
    flow: FlowSection | None = None
    predict: Predict | None = None
    accept: Accept | None = None
    infer: Infer | None = None
    report: Report | None = None

    @model_validator(mode="after")
    def _needs(self) -> Steering:
        needs = {
            "select": "read",
            "subtract": "select",
            "unfold": "subtract",
            "spectrum": "unfold",
            "flow": "spectrum",
            "predict": "spectrum",
            "accept": "predict",
            "infer": "accept",
        }
        for stage, before in needs.items():
            if getattr(self, stage) is not None and getattr(self, before) is None:
                msg = f"[{stage}] needs the section [{before}]"
                raise ValueError(msg)
        return self


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "steering"
        lines.append(f"{key}: {item['msg']} (value: {item['input']!r})"[:300])
    return "\n".join(lines)


def parse(content: dict[str, Any], source: str = "steering") -> Steering:
    """Validate the content of a steering file.

    Raises
    ------
    SteeringError
        Naming every wrong key, its value and the reason.
    """
    try:
        return Steering.model_validate(content)
    except ValidationError as error:
        msg = f"{source}:\n{_explain(error)}"
        raise SteeringError(msg) from error


def load(path: Path) -> Steering:
    """Read and validate a steering file.

    Raises
    ------
    SteeringError
        If the file is missing, is not TOML, or holds an unknown or wrong key.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror})"
        raise SteeringError(msg) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"{path}: is not TOML ({error})"
        raise SteeringError(msg) from error
    return parse(content, str(path))
