"""The sections of the steering file: frozen pydantic models, unknown keys refused."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

__all__ = [
    "Accept",
    "Analysis",
    "FlowSection",
    "Infer",
    "Predict",
    "Read",
    "Report",
    "Section",
    "Select",
    "Simulate",
    "SpectrumSection",
    "Subtract",
    "Unfold",
]


def _rising(value: tuple[float, float]) -> tuple[float, float]:
    if not value[0] < value[1]:
        msg = "must be [low, high] with low < high"
        raise ValueError(msg)
    return value


Range = Annotated[tuple[float, float], AfterValidator(_rising)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A frozen table that refuses unknown keys and numbers that are not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _edges(value: object) -> object:
    """Spell out ``{ bins = 36, low = 0.2, high = 1.1 }``; check that edges increase."""
    if isinstance(value, dict):
        if set(value) != {"bins", "low", "high"} or not isinstance(value["bins"], int) or value["bins"] < 1:
            msg = "must be a list of edges or { bins = …, low = …, high = … }"
            raise ValueError(msg)
        step = (value["high"] - value["low"]) / value["bins"]
        value = [round(value["low"] + i * step, 12) for i in range(value["bins"] + 1)]
    if isinstance(value, list | tuple) and any(high <= low for low, high in pairwise(value)):
        msg = "edges must increase"
        raise ValueError(msg)
    return value


Edges = Annotated[tuple[float, ...], Field(min_length=2), BeforeValidator(_edges)]


class Analysis(Section):
    """Name, seed and nature of the data."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
    title: str = ""
    seed: Annotated[int, Field(ge=0)] = 1
    mock: bool = False


class Simulate(Section):
    """Mock data made at run time from a card: data-like events, and simulation under another prior."""

    card: str
    n_pairs: Annotated[int, Field(gt=0)]
    n_response: Annotated[int, Field(gt=0)]
    response_prior: str = "nominal"
    pairing: Literal["same-event", "mixed"] = "same-event"
    engine: Literal["toy", "pythia"] = "toy"


class Read(Section):
    """Input ntuples, the simulation for the response, and the schema that maps both."""

    files: tuple[str, ...] = ()
    response: tuple[str, ...] = ()
    schema_file: str = Field(alias="schema")
    step: str = "100 MB"


class Select(Section):
    """Range cuts, function cuts, pair-level ghost veto, and the axes of the reconstructed spectrum."""

    lepton: dict[str, Range] = {}
    pair: dict[str, Range] = {}
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
    coarse: dict[Literal["mass", "pt", "energy"], Edges] = {}
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
