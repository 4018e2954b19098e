"""Sections of the steering file on the measured half, from the mock data to the flow."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from gammastar.config.fields import (
    Count,
    Edges,
    Fraction,
    Positive,
    Range,
    Section,
    Title,
    cells_problem,
)
from gammastar.config.published import PublishedSpectrum
from gammastar.core.errors import SteeringError
from gammastar.core.resolve import UserCode, resolve
from gammastar.core.sources import RESERVED, spelling

if TYPE_CHECKING:
    from gammastar import read, select

__all__ = [
    "Analysis",
    "Charm",
    "CorrectionSection",
    "FlowSection",
    "Read",
    "Select",
    "Simulate",
    "SpectrumSection",
    "Subtract",
    "Unfold",
    "load_cuts",
    "load_schema",
]


class Analysis(Section):
    """Name, seed and nature of the data."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$", max_length=100)]
    title: Title = ""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    mock: bool = False


class Simulate(Section):
    """Mock data made at run time from a card: data-like events, and simulation under another prior.

    The data come from `engine`, the response always from the toy engine: with Pythia, which needs the extra
    ``simulate``, a closure test is not trivial. `leave_out` names modes of the card that are not made.
    `format` and `compression` are those of the ROOT files.
    """

    card: str
    leave_out: tuple[str, ...] = ()
    n_pairs: Annotated[int, Field(gt=0, le=10**12)]
    n_response: Annotated[int, Field(gt=0, le=10**12)]
    response_prior: str = "nominal"
    pairing: Literal["same-event", "mixed"] = "same-event"
    engine: Literal["toy", "pythia"] = "pythia"
    format: Literal["ttree", "rntuple"] = "ttree"
    compression: Literal["zstd", "zlib", "lz4", "lzma", "none"] = "zstd"


def _some(size: str) -> str:
    if not float(size.rstrip("kMGiB ")) > 0:
        msg = "must be more than nothing"
        raise ValueError(msg)
    return size


Memory = Annotated[str, Field(pattern=r"^[0-9]{1,6}(\.[0-9]{1,6})? ?[kMG]i?B$"), AfterValidator(_some)]


class Read(Section):
    """Input ntuples, the simulation for the response, and the schema that maps both.

    `digest`: what the run notes of every file and compares before work: "sha256" of all bytes, or "uuid", the
    file's own UUID and its size, which reads little and does not see a damaged byte.
    """

    files: tuple[str, ...] = ()
    response: tuple[str, ...] = ()
    schema_file: str = Field(alias="schema")
    step: Count | Memory = "32 MB"
    digest: Literal["sha256", "uuid"] = "sha256"


class Select(Section):
    """Range cuts, function cuts, pair-level ghost veto, and the axes of the reconstructed spectrum.

    More pairs or simulated photons than `max_in_memory` stay in files: histograms and response are filled
    from all of them part by part; classifier, OmniFold and flow learn from about so many, of events that
    their hash chooses. Of more leptons than that, mixed events take the same kind of sample.
    `vertex` names two lepton columns, x and y of the track at the z of the interaction, from the interaction:
    pairs then have the quantities ``vertex_z``, where the tracks meet, ``vertex_distance``, how close, and
    ``vertex_impact``, how far the pair passes by the interaction, in the unit of these columns.
    """

    lepton: dict[str, Range] = Field(default_factory=dict)
    pair: dict[str, Range] = Field(default_factory=dict)
    event_functions: tuple[str, ...] = ()
    pair_functions: tuple[str, ...] = ()
    vertex: Annotated[tuple[str, ...], Field(max_length=2)] = ()
    ghost_angle: Annotated[float, Field(ge=0)] = 0.0
    ghost_excess: Annotated[float, Field(ge=0)] = 0.0
    max_in_memory: Annotated[int, Field(ge=1000, le=10**12)] = 5_000_000
    mass: Edges
    pt: Edges = (0.0, 1e4)
    energy: Edges = (0.0, 1e5)

    @model_validator(mode="after")
    def _within_memory(self) -> Select:
        if len(self.vertex) == 1:
            msg = f"vertex = {list(self.vertex)}: name two lepton columns, x and y of the track"
            raise ValueError(msg)
        problem = cells_problem(self.mass, self.pt, self.energy)
        if problem:
            raise ValueError(problem)
        return self


class Charm(Section):
    """Open charm: simulated pairs fitted in mass and vertex offset, since like-sign pairs do not see it.

    `offset` is one pair column, or two or more lepton columns whose distance between the leptons is taken.
    """

    template: tuple[str, ...] | Literal["simulation"]
    n_template: Count = 20_000
    offset: Annotated[tuple[str, ...], Field(min_length=1)]
    edges: Edges


class CorrectionSection(Section):
    """Pairs that are no single virtual photon: simulated ones of `files`, or the built-in `kind`.

    The size is a number of pairs, a fraction of the yield, or follows from the measured η Dalitz pairs.
    """

    name: Annotated[Title, Field(min_length=1, max_length=100)]
    kind: Literal["files", "eta to mu mu"] = "files"
    files: tuple[str, ...] = ()
    pairs: Annotated[float, Field(ge=0)] | None = None
    fraction: Fraction | None = None
    sigma: Annotated[float, Field(ge=0)] | None = None
    n_dalitz: Positive | None = None
    n_dalitz_sigma: Annotated[float, Field(ge=0)] = 0.0
    resolution: Positive | None = None
    efficiency_ratio: Positive = 1.0
    source: Title = ""

    @field_validator("name")
    @classmethod
    def _own_name(cls, name: str) -> str:
        taken = {spelling(word): word for word in RESERVED}
        if spelling(name) in taken:
            builtin = taken[spelling(name)]
            msg = f"{name!r} is a source of uncertainty of its own ({builtin!r}); choose another name"
            raise ValueError(msg)
        if not spelling(name):
            msg = f"{name!r} needs a letter or a digit"
            raise ValueError(msg)
        return name

    @model_validator(mode="after")
    def _complete(self) -> CorrectionSection:
        if self.kind == "eta to mu mu":
            wrong = [k for k in ("files", "pairs", "fraction", "sigma") if getattr(self, k) not in ((), None)]
            if wrong or self.n_dalitz is None or self.resolution is None:
                msg = f"kind = 'eta to mu mu' takes n_dalitz and resolution, not {', '.join(wrong) or 'less'}"
                raise ValueError(msg)
            return self
        if not self.files or self.sigma is None or (self.pairs is None) == (self.fraction is None):
            msg = "a correction from files needs files, sigma, and one of pairs and fraction"
            raise ValueError(msg)
        if self.n_dalitz is not None or self.resolution is not None:
            msg = "n_dalitz and resolution belong to kind = 'eta to mu mu'"
            raise ValueError(msg)
        return self


class Subtract(Section):
    """Like-sign background, open charm and named corrections.

    `coarse` gives, by axis, the regions in which B5 takes its charge ratio and B4 its normalisation;
    `r_coarse` those in which R is taken from mixed events. `r_mult` multiplies R of the acceptance. `control`
    is a region without signal, by axis, where +- over background should be one. `bootstrap` draws the events
    so many times for the covariance, which then knows that pairs of one event share leptons; 0: formula.
    `low_counts` = "poisson" takes the variance of cells with fewer than ten pairs from the profile of three
    Poisson numbers.
    """

    method: Literal["B1", "B2", "B3", "B4", "B5"] = "B5"
    low_counts: Literal["linear", "poisson"] = "linear"
    r_factor: Positive | Literal["simulation", "mixed"] = 1.0
    r_factor_sigma: Annotated[float, Field(ge=0)] = 0.0
    r_mult: Positive = 1.0
    r_mult_sigma: Annotated[float, Field(ge=0)] = 0.0
    r_coarse: dict[Literal["mass", "pt", "energy"], Edges] = Field(default_factory=dict)
    mixed_pairs: Annotated[int, Field(ge=1000, le=10**9)] = 300_000
    control: dict[Literal["mass", "pt", "energy"], Range] = Field(default_factory=dict)
    bootstrap: Annotated[int, Field(ge=0, le=100_000)] = 0
    coarse: dict[Literal["mass", "pt", "energy"], Edges] = Field(default_factory=dict)
    weights: Literal["posterior", "signed"] = "posterior"
    charm: Charm | None = None
    corrections: tuple[CorrectionSection, ...] = ()

    @model_validator(mode="after")
    def _compatible(self) -> Subtract:
        asked = self.model_fields_set
        mixed = self.r_factor == "mixed"
        seen: dict[str, str] = {}
        for name in (correction.name for correction in self.corrections):
            if spelling(name) in seen:
                msg = (
                    f"corrections: {seen[spelling(name)]!r} and {name!r} need different names; one would "
                    "overwrite the other"
                )
                raise ValueError(msg)
            seen[spelling(name)] = name
        rules = (
            (isinstance(self.r_factor, str) and self.r_factor_sigma > 0, "r_factor_sigma: R brings its own"),
            (self.r_factor == "simulation" and "r_mult" in asked, "r_mult: the simulation's R contains it"),
            (self.method in ("B1", "B2") and self.r_factor != 1, f"r_factor: {self.method} has none"),
            (self.method in ("B1", "B2") and bool(asked & {"r_mult"}), f"r_mult: {self.method} has no R"),
            (self.method == "B4" and bool(asked & {"r_factor"}), "r_factor: B4 takes the mixed shape"),
            (self.method == "B4" and bool(asked & {"r_mult"}), "r_mult: B4 is normalised to like-sign pairs"),
            (self.method == "B4" and self.bootstrap > 0, "bootstrap: B4 has the formula alone"),
            (
                self.method in ("B2", "B4") and self.low_counts == "poisson",
                "low_counts: the profile is of 2R√(N++ N--); use B1, B3 or B5",
            ),
            (bool(self.r_coarse) and not mixed, "r_coarse: needs r_factor = 'mixed'"),
            ("mixed_pairs" in asked and not mixed and self.method != "B4", "mixed_pairs: nothing is mixed"),
            (
                self.weights == "signed" and (self.charm is not None or bool(self.corrections)),
                "weights: 'signed' cannot hold charm or corrections, not in the data; use 'posterior'",
            ),
            (
                self.method == "B4" and self.weights == "signed",
                "weights: B4 has no signed weights of like-sign pairs; use 'posterior'",
            ),
        )
        for broken, text in rules:
            if broken:
                raise ValueError(text)
        return self


def _unfolding_method(name: str) -> str:
    from gammastar.unfold.methods import NAMES

    if name not in NAMES and re.fullmatch(r".+\.py:\w+", name) is None:
        known = ", ".join(map(repr, NAMES))
        msg = f"must be one of {known}, or a function of one's own, 'file.py:function'"
        raise ValueError(msg)
    return name


class Unfold(Section):
    """Response and unfolding; the true axes are those of [select] unless given.

    `method` is "iterative", "tikhonov", "least squares", "omnifold" or "file.py:function" (see
    `gammastar.unfold.methods.own_method`). `n_iterations` = "stable" stops when iterations move the result
    by less than 0.1 σ. `scan` lists the strengths that are tried on the mass spectrum and shown; a set of
    them by default, [] for none. `debias` subtracts from the iterative result the bias of the finite
    simulation, as its bootstraps show it.
    """

    preset: Literal["true mass", "smeared mass, as the paper", "line shape"] = "true mass"
    method: Annotated[str, AfterValidator(_unfolding_method)] = "iterative"
    n_iterations: Annotated[int, Field(gt=0, le=100_000)] | Literal["stable"] = 4
    tau: Annotated[float, Field(ge=0)] | Literal["l-curve", "least correlated"] = "l-curve"
    penalty: Literal["curvature", "difference", "size"] = "curvature"
    stop: Annotated[float, Field(ge=0)] = 0.0
    n_replicas: Annotated[int, Field(ge=0, le=100_000)] = 50
    debias: bool = False
    efficiency_floor: Annotated[float, Field(gt=0, lt=1)] = 0.01
    scan: Annotated[tuple[Positive, ...], Field(max_length=100)] | None = None
    mass: Edges | None = None
    pt: Edges | None = None
    energy: Edges | None = None

    @model_validator(mode="after")
    def _compatible(self) -> Unfold:
        asked = self.model_fields_set
        plain = self.preset == "true mass"
        own_axes = bool(asked & {"mass", "pt", "energy"})
        rules = (
            (self.method != "iterative" and not plain, f"method: preset {self.preset!r} is iterative"),
            (self.method != "tikhonov" and bool(asked & {"tau", "penalty"}), "tau, penalty: for 'tikhonov'"),
            (self.method != "omnifold" and "stop" in asked, "stop: for method = 'omnifold'"),
            (
                self.method not in ("iterative", "omnifold") and "n_iterations" in asked,
                f"n_iterations: method {self.method!r} does not iterate",
            ),
            (
                self.method == "omnifold" and self.n_iterations == "stable",
                "n_iterations: 'stable' is for method = 'iterative'; OmniFold has `stop`",
            ),
            (
                self.method == "omnifold" and self.n_replicas < 2,
                "n_replicas: OmniFold takes its covariance from at least 2 replicas",
            ),
            (
                self.debias and (self.method != "iterative" or self.n_replicas < 2),
                "debias: for method = 'iterative' with at least 2 n_replicas",
            ),
            (self.preset.startswith("smeared") and own_axes, "mass, pt, energy: 'smeared' keeps [select]'s"),
            (
                self.method not in ("iterative", "tikhonov") and bool(self.scan),
                f"scan: method {self.method!r} has no strength to scan",
            ),
        )
        for broken, text in rules:
            if broken:
                raise ValueError(text)
        return self


class SpectrumSection(Section):
    """Exposure of the calibration run; `extrapolate` fills unmeasured cells with the simulation's shape.

    `table`: a published mass spectrum in place of the stages before (see `PublishedSpectrum`).
    """

    beam_energy: Positive
    target_a: Positive
    target_z: Positive
    thickness: Positive
    pot: Positive | Literal["simulation"]
    lepton: Literal["e", "mu"] = "mu"
    extrapolate: bool = True
    table: PublishedSpectrum | None = None

    @model_validator(mode="after")
    def _nucleus(self) -> SpectrumSection:
        if self.target_z > self.target_a:
            msg = f"target_z = {self.target_z:g} is more than target_a = {self.target_a:g}"
            raise ValueError(msg)
        return self


MOST_CELLS = 10_000_000  # of a histogram without covariance


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


def load_schema(section: Read, where: Path | UserCode) -> read.Schema:
    """Return the schema of a file, of ``file.py:attribute``, or a shipped one by its name.

    Raises
    ------
    SteeringError
        If there is none, or it is wrong; the message names it.
    """
    from gammastar import read

    name = section.schema_file
    base = where if isinstance(where, Path) else where.folder
    if name.endswith(".toml"):
        return read.load_schema(base / name)
    if ".py" not in name:
        return read.builtin(name)
    try:
        schema = resolve(name, where)
        return schema if isinstance(schema, read.Schema) else read.Schema.from_mapping(schema)
    except SteeringError as error:
        text = str(error)
        raise SteeringError(text if name in text else f"schema {name}: {text}") from error


def load_cuts(section: Select, where: Path | UserCode) -> select.Cuts:
    """Return the cuts of a section; functions come from frozen code, on workers as well."""
    from gammastar import select

    ghost = None
    if section.ghost_angle > 0 or section.ghost_excess > 0:
        ghost = select.GhostVeto(section.ghost_angle, section.ghost_excess)
    return select.Cuts(
        lepton=section.lepton,
        pair=section.pair,
        ghost=ghost,
        event_functions=tuple(resolve(name, where) for name in section.event_functions),
        pair_functions=tuple(resolve(name, where) for name in section.pair_functions),
        vertex=section.vertex,
    )
