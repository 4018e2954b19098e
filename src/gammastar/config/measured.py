"""Sections of the steering file on the measured half, from the mock data to the flow."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    TypeAdapter,
    ValidationError,
    WrapValidator,
    field_validator,
    model_validator,
)

from gammastar.config import fields
from gammastar.core.errors import InputFileError, PortabilityError, SteeringError, require
from gammastar.core.files import data_path, is_file, is_folder, shipped
from gammastar.core.resolve import UserCode, resolve
from gammastar.core.sources import RESERVED, spelling

if TYPE_CHECKING:
    from gammastar import read, select
    from gammastar.mock import Card
    from gammastar.read.published import MeasuredTable
    from gammastar.subtract.estimate import Method
    from gammastar.unfold import folding as unfolding


SAME_BEAM = 0.01

Label = Annotated[str, Field(max_length=200)]


class PublishedSpectrum(fields.Section):
    """A published mass spectrum that stands for [read] to [unfold].

    The keys from `content` to `edges` stand for what the table leaves open.
    """

    file: str
    """A HEPData record (its folder or ``submission.yaml``), YAML, CSV, or ROOT histograms beside the
    steering, or one of the shipped ``published/``."""
    table: Label | int = ""
    """Table by its name, or by its number from 1."""
    column: Label | int = ""
    """Column by its name, or by its number from 1."""
    quantity: Literal["counts", "per_interaction", "per_pot"]
    """What the numbers times `scale` count, in the full phase space: all that was seen ('counts'), per
    interaction, or per proton on target."""
    content: Literal["counts", "density"] | None = None
    """Whether they are entries of bins, or a density in the mass."""
    observable: Literal["", "N", "dN/dm", "m dN/dm", "dN/dlnm", "dN/dm2"] = ""
    """What the numbers are, where names of axis and column leave it open or mean something else; 'm dN/dm'
    is taken at the centre of each bin."""
    mass_unit: Annotated[str, Field(max_length=20)] = ""
    """Unit of the mass."""
    edges: fields.Edges | None = None
    """Edges of the bins, for points, in the unit of the table."""
    mass: fields.PositiveRange | None = None
    """Range of masses that is taken [GeV]."""
    scale: fields.Positive = 1.0
    """Factor on the numbers."""
    scale_sigma: Annotated[float, Field(ge=0)] = 0.0
    """Error of the factor, relative."""
    correlated: tuple[Label, ...] = ()
    """Errors that move all bins together."""
    uncorrelated: tuple[Label, ...] = ()
    """Errors of each bin alone; by default those that begin with stat, uncor, error or total."""
    error: fields.Positive | Literal["poisson"] | None = None
    """Error of a table without any: relative, or 'poisson'."""
    negative: Literal["refuse", "keep"] = "refuse"
    """Whether negative numbers are refused or kept."""
    kinematics: str | None = None
    """Card of ``cards/`` whose hadrons give q_T and energy at a mass, modelled and nowhere measured; without
    it the rate is known and nothing that needs kinematics."""


def table_path(name: str, base: Path) -> Path:
    """Return a file or record beside the steering, or a shipped one of ``published/``."""
    path = base / name
    if is_file(path) or is_folder(path):
        return path
    for place in (name, f"published/{name}", f"published/{name}.csv"):
        try:
            return data_path(place)
        except InputFileError:
            continue
    raise InputFileError(f"{name}: no such file or record in {base}, and none is shipped in published/")


def load_card_of(exposed: Any, base: Path) -> Card:
    """Return the card whose hadrons give the kinematics."""
    from gammastar.mock import load_card

    card = load_card(shipped(exposed.table.kinematics, base, "cards"))
    if abs(card.beam.energy / exposed.beam_energy - 1) > SAME_BEAM or card.lepton != exposed.lepton:
        raise PortabilityError(
            f"card {card.name!r} is of {card.beam.energy:g} GeV and {card.lepton!r} pairs, [spectrum] of "
            f"{exposed.beam_energy:g} GeV and {exposed.lepton!r} pairs"
        )
    return card


def load_published(section: PublishedSpectrum, base: Path, exposed: Any) -> MeasuredTable:
    """Return the spectrum per proton on target of a section, without its exposure."""
    from gammastar.read.published import Conventions, check_beam, hepdata, published_spectrum

    table = hepdata(table_path(section.file, base), section.table or None)
    column = section.column or None
    check_beam(table, exposed.beam_energy, column=column)
    per_pot = 1.0 if isinstance(exposed.pot, str) else 1.0 / exposed.pot
    factors = {"counts": per_pot, "per_interaction": -math.expm1(-exposed.thickness), "per_pot": 1.0}
    factor = factors[section.quantity]
    told = {name: getattr(section, name) for name in Conventions.__dataclass_fields__ if name != "scale"}
    conventions = Conventions(**told, scale=section.scale * factor)
    found = published_spectrum(table, column, conventions, quantity="per_pot")
    highest = float(found.spectrum.hist.axes[0].edges[-1])
    notes = check_beam(table, exposed.beam_energy, highest, column)
    return replace(found, notes=(*found.notes, *notes))


class Analysis(fields.Section):
    """Name, title and seed of the analysis, and whether its data are mock."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$", max_length=100)]
    """Name: letters, digits, _ and -. Results go to results/NAME."""
    title: fields.Title = ""
    """Title of the report page."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    """Seed of every random number of the run."""
    mock: bool = False
    """The data are simulated: every result says MOCK, and no limit is an observed one."""


class Simulate(fields.Section):
    """Mock data made at run time from a card: data-like events, and simulation under another prior."""

    card: str
    """Card of the experiment: a file, or the name of a shipped one."""
    leave_out: tuple[str, ...] = ()
    """Modes of the card that are not made."""
    n_pairs: Annotated[int, Field(gt=0, le=10**12)]
    """Number of pairs in the data-like file."""
    n_response: Annotated[int, Field(gt=0, le=10**12)]
    """Number of simulated photons for the response."""
    response_prior: str = "nominal"
    """Prior of the card from which the response is simulated."""
    pairing: Literal["same-event", "mixed"] = "same-event"
    """Whether combinatorial muons are of the same event, or mixed."""
    engine: Literal["toy", "pythia"] = "pythia"
    """What makes the data; Pythia needs the extra `simulate`. The response is always from the toy engine:
    with Pythia a closure test is not trivial."""
    format: Literal["ttree", "rntuple"] = "ttree"
    """Format of the ROOT files."""
    compression: Literal["zstd", "zlib", "lz4", "lzma", "none"] = "zstd"
    """Compression of the ROOT files."""


FEWEST = 10  # rows that are read at once: of fewer a run takes days


def _some(size: str) -> str:
    number = size.rstrip("kMGiB ")
    if float(number) * 1000.0 ** " kMG".index(size[len(number) :].strip()[0]) < 1e4:
        raise ValueError("must be at least 10 kB")
    return size


Memory = Annotated[str, Field(pattern=r"^[0-9]{1,6}(\.[0-9]{1,6})? ?[kMG]i?B$"), AfterValidator(_some)]


class RunsSection(fields.Section):
    """Runs of the data: which are good, and protons on target and prescale of each. Simulation has no runs.

    The schema names the branches `run` and, if there are any, `block`.
    """

    good: str = ""
    """Good runs: JSON as CMS writes it, or a text with runs and ranges as 4010-4025."""
    table: str = ""
    """CSV table with a row for each run (or each block of a run), or a tree, 'file.root:tree'."""
    run: Label = "run"
    """Column of the table with the run."""
    block: Label = ""
    """Column with the luminosity block or spill, if a row is one of them."""
    pot: Label = ""
    """Column with protons on target; `[spectrum] pot = "runs"` takes the sum over the runs that are kept."""
    prescale: Label = ""
    """Column with what the events of a run are multiplied with."""

    @model_validator(mode="after")
    def _complete(self) -> RunsSection:
        require(self.good or self.table, "give a list of good runs, or a table", ValueError)
        if bool(self.table) != bool(self.pot or self.prescale):
            raise ValueError("table, pot, prescale: a table needs a column pot or prescale, and they a table")
        return self


class Read(fields.Section):
    """Input ntuples, the simulation for the response, and the schema that maps both."""

    files: tuple[str, ...] = ()
    """Files of the data beside the steering, or URLs; * and ? stand for any letters."""
    response: tuple[str, ...] = ()
    """Files of the simulation with truth."""
    schema_file: str = Field(alias="schema")
    """What the branches mean: a TOML file, 'file.py:NAME', or the name of a shipped schema."""
    runs: RunsSection | None = None
    """Good runs, and protons on target and prescale of each."""
    step: Annotated[int, Field(ge=FEWEST, le=10**9)] | Memory = "32 MB"
    """How much is read at once: a number of rows, or a size in memory such as '32 MB'."""
    digest: Literal["sha256", "uuid"] = "sha256"
    """What the run notes of every file and compares before work: 'sha256' of all bytes, or 'uuid', the file's
    own UUID and its size, which reads little and does not see a damaged byte."""


Listed = Annotated[tuple[int | float | bool, ...], Field(max_length=100_000)]


class Condition(BaseModel):
    """What a column must hold; all that is given."""

    model_config = fields.Section.model_config

    all: Annotated[int, Field(ge=0, lt=2**64)] = 0
    """Bits that must all be set."""
    any: Annotated[int, Field(ge=0, lt=2**64)] = 0
    """Bits of which one must be set."""
    none: Annotated[int, Field(ge=0, lt=2**64)] = 0
    """Bits that must not be set."""
    values: Listed = ()
    """Values that are kept."""
    without: Listed = ()
    """Values that are not kept."""
    range: fields.Range | None = None
    """Range that is kept, low ≤ x < high."""


RANGE: TypeAdapter[tuple[float, float]] = TypeAdapter(fields.Range)


def _wanted(value: Any, _: Any) -> Any:
    """Take a table as a condition, anything else as a range: one error names what is wrong."""
    table = isinstance(value, dict | Condition)
    try:
        return Condition.model_validate(value) if table else RANGE.validate_python(value)
    except ValidationError as error:
        item = error.errors()[0]
        unknown = f"unknown key; the keys are {', '.join(Condition.model_fields)}"
        text = unknown if item["type"] == "extra_forbidden" else item["msg"].removeprefix("Value error, ")
        raise ValueError(": ".join([*map(str, item["loc"][:1]), text])) from error


Wanted = Annotated[fields.Range | Condition, WrapValidator(_wanted)]


class DataOnly(fields.Section):
    """Cuts that act on the data alone: what simulation does not have, such as runs and beam quality."""

    event: dict[str, Wanted] = Field(default_factory=dict)
    """Ranges and conditions of `run`, `block` and event columns of the schema."""
    event_functions: tuple[str, ...] = ()
    """Cuts of one's own on events, 'file.py:function'."""


class ScaleFactorSection(fields.Section):
    """A correction of the efficiency of simulated pairs, from a file of correctionlib."""

    file: fields.Title
    """JSON of correctionlib, compressed or not."""
    correction: fields.Title
    """Its name in the file."""
    inputs: dict[str, str | int | float]
    """Of each of its inputs: a quantity of the leptons (`pt`, `eta`, `abs_eta`, `momentum`, `energy`,
    `theta`, `charge`, a lepton column) or of the pairs, or a value that is handed on."""
    of: Literal["lepton", "pair"] = "lepton"
    """What has the factor; a pair gets the product of those of its leptons."""
    varied: str = ""
    """Input that chooses the variation."""
    variations: dict[fields.Title, tuple[str, str]] = Field(default_factory=dict)
    """Name of each source of uncertainty, and the values of `varied` one standard deviation up and down."""

    @field_validator("variations")
    @classmethod
    def _own_names(cls, variations: dict[str, Any]) -> dict[str, Any]:
        taken = [name for name in variations if spelling(name) in {"", *map(spelling, RESERVED)}]
        require(not taken, f"{taken[:1]}: a built-in source has this name; choose another", ValueError)
        return variations


class Select(fields.Section):
    """Cuts on events, leptons and pairs, and the axes of the reconstructed spectrum.

    A cut is a range that is kept, `[low, high]` with low ≤ x < high, or a condition with `all`, `any` and
    `none` of bits, `values` and `without`, and `range`: `{ all = 0x8 }`, `{ values = [1, 2] }`.
    """

    event: dict[str, Wanted] = Field(default_factory=dict)
    """Ranges and conditions of event columns of the schema, in data and simulation."""
    lepton: dict[str, Wanted] = Field(default_factory=dict)
    """Ranges and conditions of momentum [GeV], energy, theta [rad], pt, eta, or a lepton column."""
    pair: dict[str, Wanted] = Field(default_factory=dict)
    """Ranges and conditions of mass [GeV], pt, energy, angle [rad], or a column of the pairs."""
    data: DataOnly | None = None
    """Cuts that act on the data alone."""
    event_functions: tuple[str, ...] = ()
    """Cuts of one's own on events, 'file.py:function'."""
    pair_functions: tuple[str, ...] = ()
    """Cuts of one's own on pairs, 'file.py:function'."""
    scale_factors: tuple[ScaleFactorSection, ...] = ()
    """Corrections of the efficiency of simulated pairs."""
    vertex: Annotated[tuple[str, ...], Field(max_length=2)] = ()
    """Two lepton columns, x and y of the track at the z of the interaction, from the interaction. Pairs then
    have the quantities `vertex_z`, where the tracks meet, `vertex_distance`, how close, and
    `vertex_impact`, how far the pair passes by the interaction, in the unit of these columns."""
    ghost_angle: Annotated[float, Field(ge=0)] = 0.0
    """Pairs with a smaller opening angle are one track found twice, and removed [rad]."""
    ghost_excess: Annotated[float, Field(ge=0)] = 0.0
    """Pairs with a smaller mass above threshold are one track found twice, and removed [GeV]."""
    max_in_memory: Annotated[int, Field(ge=1000, le=10**12)] = 5_000_000
    """More pairs or simulated photons than this stay in files: histograms and response are filled from all of
    them part by part; OmniFold and flow learn from about so many, of events that their hash
    chooses. Of more leptons than that, mixed events take the same kind of sample."""
    keep_pairs: bool = True
    """Keep and weight single pairs. If false one compiled pass fills the histograms straight from the events,
    several times faster and in memory that does not grow with them; [flow], [in_situ], OmniFold, open charm,
    the bootstrap of events and [predict] from the spectrum need the pairs."""
    mass: fields.MassEdges
    """Edges of the reconstructed mass [GeV]."""
    pt: fields.Momenta = (0.0, 1e4)
    """Edges of the reconstructed transverse momentum q_T [GeV]."""
    energy: fields.Momenta = (0.0, 1e5)
    """Edges of the reconstructed energy [GeV]."""

    @property
    def sources(self) -> list[str]:
        """Return the sources of uncertainty that the scale factors have."""
        return [name for one in self.scale_factors for name in one.variations]

    @model_validator(mode="after")
    def _within_memory(self) -> Select:
        if len(self.vertex) == 1:
            raise ValueError(f"vertex = {list(self.vertex)}: name two lepton columns, x and y of the track")
        problem = fields.cells_problem(self.mass, self.pt, self.energy)
        if problem:
            raise ValueError(problem)
        return self


class Charm(fields.Section):
    """Open charm: simulated pairs fitted in mass and vertex offset, since like-sign pairs do not see it."""

    template: tuple[str, ...] | Literal["simulation"]
    """Files of simulated charm pairs; 'simulation' with [simulate]."""
    n_template: fields.Count = 20_000
    """Pairs of the template, if it is simulated."""
    offset: Annotated[tuple[str, ...], Field(min_length=1)]
    """One pair column, or two or more lepton columns whose distance between the leptons is taken."""
    edges: fields.Edges
    """Edges of the offset, in the unit of its column."""


class CorrectionSection(fields.Section):
    """Pairs not produced by a single virtual photon: simulated ones, or the decay η → μμ.

    Its size is a number of pairs, a fraction of the yield, or follows from the measured η Dalitz pairs.
    """

    name: Annotated[fields.Title, Field(min_length=1, max_length=100)]
    """Name of the correction and of its source of uncertainty."""
    kind: Literal["files", "eta to mu mu"] = "files"
    """Simulated pairs of `files`, or the built-in peak of η → μμ."""
    files: tuple[str, ...] = ()
    """Files of simulated pairs, of the schema of [read]."""
    pairs: Annotated[float, Field(ge=0)] | None = None
    """Size: number of pairs in the data."""
    fraction: fields.Fraction | None = None
    """Size: share of the subtracted yield."""
    sigma: Annotated[float, Field(ge=0)] | None = None
    """Error of the size, in its unit: pairs, or share of the yield."""
    n_dalitz: fields.Positive | None = None
    """Number of η Dalitz pairs measured in the data, for 'eta to mu mu'."""
    n_dalitz_sigma: Annotated[float, Field(ge=0)] = 0.0
    """Its error."""
    resolution: fields.Positive | None = None
    """Standard deviation of the mass at the η, for 'eta to mu mu' [GeV]."""
    efficiency_ratio: fields.Positive = 1.0
    """Efficiency of η → μμ over that of the Dalitz decay."""
    source: fields.Title = ""
    """Where the size comes from."""

    @field_validator("name")
    @classmethod
    def _own_name(cls, name: str) -> str:
        taken = {spelling(word): word for word in RESERVED}
        if spelling(name) in taken:
            builtin = taken[spelling(name)]
            msg = f"{name!r} is a source of uncertainty of its own ({builtin!r}); choose another name"
            raise ValueError(msg)
        require(spelling(name), f"{name!r} needs a letter or a digit", ValueError)
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
            raise ValueError("a correction from files needs files, sigma, and one of pairs and fraction")
        if self.n_dalitz is not None or self.resolution is not None:
            raise ValueError("n_dalitz and resolution belong to kind = 'eta to mu mu'")
        return self


def _method_of(module: str) -> AfterValidator:
    """Return the check of a method: one of METHODS of a module, or a function of one's own."""

    def check(name: str) -> str:
        known = importlib.import_module(f"gammastar.{module}").METHODS
        if name not in known and re.fullmatch(r".+\.py:\w+", name) is None:
            names = ", ".join(map(repr, known))
            raise ValueError(f"must be one of {names}, or a function of one's own, 'file.py:function'")
        return name

    return AfterValidator(check)


OWN_TAKES = frozenset({"method", "weights", "charm", "corrections"})


class Subtract(fields.Section):
    """Like-sign background, open charm and named corrections."""

    method: Annotated[str, _method_of("subtract.estimate")] = "likelihood"
    """How the background follows from like-sign pairs: 'likelihood' 2R √(p m) of the expectations of ++ and
    −− pairs, smooth over the cells; 'regions' R (w N++ + N--/w), w of a coarse region; 'geometric mean' 2R
    √(N++ N--) per cell; 'sum' N++ + N--; 'mixed events' their shape, normalised to like-sign pairs; or one's
    own, 'file.py:function' (see `gammastar.subtract.estimate.own_subtraction`)."""
    r_factor: fields.Positive | Literal["simulation", "mixed"] = 1.0
    """R, how much easier unlike than like signs are seen: a number, from the 'simulation', or from 'mixed'
    events of the data."""
    r_factor_sigma: Annotated[float, Field(ge=0)] = 0.0
    """Error of R, if it is a number."""
    r_mult: fields.Positive = 1.0
    """Correlation of the multiplicities, which multiplies R of the acceptance; invisible to mixing."""
    r_mult_sigma: Annotated[float, Field(ge=0)] = 0.0
    """Error of r_mult."""
    r_coarse: dict[Literal["mass", "pt", "energy"], fields.Edges] = Field(default_factory=dict)
    """Edges by axis of the regions in which R is taken from mixed events; one region by default."""
    mixed_pairs: Annotated[int, Field(ge=1000, le=10**9)] = 300_000
    """Number of mixed pairs."""
    control: dict[Literal["mass", "pt", "energy"], fields.Range] = Field(default_factory=dict)
    """Range by axis of a region without signal, where +- over background should be one."""
    bootstrap: Annotated[int, Field(ge=0, le=100_000)] = 0
    """How many times the events are drawn for the covariance, which then knows that pairs of one event share
    leptons; 0: formula."""
    coarse: dict[Literal["mass", "pt", "energy"], fields.Edges] = Field(default_factory=dict)
    """Edges by axis of the regions of one charge ratio ('regions') or normalisation ('mixed events')."""
    weights: Literal["posterior", "signed"] = "posterior"
    """Weights of single pairs: 'posterior', the fitted share of signal in their cell, none negative; or
    'signed', like-sign pairs with negative weights."""
    charm: Charm | None = None
    """Open charm, fitted with a template."""
    corrections: tuple[CorrectionSection, ...] = ()
    """Pairs not produced by a single virtual photon, each with a name."""

    @property
    def own(self) -> bool:
        """Whether the method is a function of the user."""
        return ".py:" in self.method

    @property
    def way(self) -> Method:
        """What the method takes."""
        from gammastar.subtract.estimate import method_of

        return method_of(self.method)

    @model_validator(mode="after")
    def _compatible(self) -> Subtract:
        asked = self.model_fields_set
        mixed, way = self.r_factor == "mixed", self.way
        seen: dict[str, str] = {}
        for name in (correction.name for correction in self.corrections):
            if spelling(name) in seen:
                both = f"{seen[spelling(name)]!r} and {name!r}"
                raise ValueError(f"corrections: {both} need different names; one would overwrite the other")
            seen[spelling(name)] = name
        unused = sorted(asked - OWN_TAKES) if self.own else []
        rules = (
            (bool(unused), f"{', '.join(unused)}: a method of one's own has its own estimate and covariance"),
            (isinstance(self.r_factor, str) and self.r_factor_sigma > 0, "r_factor_sigma: R brings its own"),
            (self.r_factor == "simulation" and "r_mult" in asked, "r_mult: the simulation's R contains it"),
            (not way.takes_r and "r_factor" in asked, f"r_factor: {self.method!r} takes none"),
            (not way.takes_r and "r_mult" in asked, f"r_mult: {self.method!r} takes no R"),
            (
                way.gives_covariance and self.bootstrap > 0,
                f"bootstrap: {self.method!r} has its own covariance alone",
            ),
            (not way.takes_regions and "coarse" in asked, f"coarse: {self.method!r} has no regions"),
            (bool(self.r_coarse) and not mixed, "r_coarse: needs r_factor = 'mixed'"),
            ("mixed_pairs" in asked and not mixed and not way.mixes, "mixed_pairs: nothing is mixed"),
            (
                self.weights == "signed" and (self.charm is not None or bool(self.corrections)),
                "weights: 'signed' cannot hold charm or corrections, not in the data; use 'posterior'",
            ),
            (
                way.mixes and self.weights == "signed",
                f"weights: {self.method!r} has no signed weights of like-sign pairs; use 'posterior'",
            ),
        )
        for broken, text in rules:
            if broken:
                raise ValueError(text)
        return self


class Unfold(fields.Section):
    """Response and unfolding."""

    preset: Literal["true mass", "smeared mass, as the paper"] = "true mass"
    """What is unfolded: cells of the true mass, or smeared masses as in the paper."""
    method: Annotated[str, _method_of("unfold.methods")] = "likelihood"
    """'likelihood' of the counts, with true contents as smooth as the data ask for; 'iterative', 'tikhonov',
    'least squares', 'omnifold', or one's own, 'file.py:function' (see
    `gammastar.unfold.methods.own_method`)."""
    n_iterations: Annotated[int, Field(gt=0, le=100_000)] = 4
    """Number of iterations."""
    tau: Annotated[float, Field(ge=0)] | Literal["l-curve", "least correlated"] = "l-curve"
    """Strength of 'tikhonov': a number, or how it is chosen."""
    penalty: Literal["curvature", "difference", "size"] = "curvature"
    """What 'tikhonov' keeps small, of the result over the spectrum of the simulation."""
    tolerance: Annotated[float, Field(ge=0)] = 0.0
    """'omnifold' stops when its weights change by less than this, on average and relative."""
    n_replicas: Annotated[int, Field(ge=0, le=100_000)] = 50
    """Bootstraps of the simulation, for its part of the covariance; 0: it counts as known exactly."""
    debias: bool = False
    """Subtract from the iterative result the bias of the finite simulation, as its bootstraps show it."""
    efficiency_floor: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Cells of lower efficiency are not measured."""
    scan: Annotated[tuple[fields.Positive, ...], Field(max_length=100)] | None = None
    """Strengths that are tried on the mass spectrum and shown; a set of them by default, [] for none."""
    mass: fields.MassEdges | None = None
    """Edges of the true mass; those of [select] by default [GeV]."""
    pt: fields.Momenta | None = None
    """Edges of the true transverse momentum; those of [select] by default [GeV]."""
    energy: fields.Momenta | None = None
    """Edges of the true energy; those of [select] by default [GeV]."""

    @property
    def way(self) -> unfolding.Method:
        """What the method knows."""
        from gammastar.unfold.methods import method_of

        return method_of(self.method)

    @model_validator(mode="after")
    def _compatible(self) -> Unfold:
        asked, way = self.model_fields_set, self.way
        plain = self.preset == "true mass"
        special = {"n_iterations", "tau", "penalty", "tolerance"} & asked
        special |= ({"debias"} if self.debias else set()) | ({"scan"} if self.scan else set())
        unknown = sorted(special - way.takes)
        own_axes = bool(asked & {"mass", "pt", "energy"})
        rules = (
            (
                not way.allows_smeared and not plain,
                f"method: preset {self.preset!r} takes 'likelihood' or 'iterative'",
            ),
            (bool(unknown), f"{', '.join(unknown)}: method {self.method!r} does not know this"),
            (
                way.pairs and self.n_replicas < 2,
                "n_replicas: OmniFold takes its covariance from at least 2 replicas",
            ),
            (self.debias and self.n_replicas < 2, "debias: the bias is taken from at least 2 n_replicas"),
            (self.preset.startswith("smeared") and own_axes, "mass, pt, energy: 'smeared' keeps [select]'s"),
        )
        for broken, text in rules:
            if broken:
                raise ValueError(text)
        return self


class SpectrumSection(fields.Section):
    """Beam, target and protons of the calibration run: what makes a spectrum one per proton."""

    beam_energy: fields.Positive
    """Energy of the proton beam [GeV]."""
    target_a: fields.Positive
    """Mass number of the target."""
    target_z: fields.Positive
    """Atomic number of the target."""
    thickness: fields.Positive
    """Thickness of the target [nuclear interaction lengths]."""
    pot: fields.Positive | Literal["simulation", "runs"]
    """Protons on target that made the data; 'simulation' takes those of [simulate], 'runs' sums [read.runs]
    over the runs that are kept."""
    lepton: Literal["e", "mu"] = "mu"
    """Flavour of the measured pairs."""
    extrapolate: bool = True
    """Fill cells where nothing was measured with the shape of the simulation; they are drawn apart."""
    forward_power: Annotated[float, Field(gt=0, le=20)] = 4.0
    """n of the extrapolated density beyond the measured x_R, at least 0.3: dN/dy ∝ (1 - x_R)^n in the place
    of the simulated fall, which need not vanish at the kinematic limit."""
    table: PublishedSpectrum | None = None
    """A published mass spectrum in the place of [read] to [unfold]."""

    @model_validator(mode="after")
    def _nucleus(self) -> SpectrumSection:
        if self.target_z > self.target_a:
            raise ValueError(f"target_z = {self.target_z:g} is more than target_a = {self.target_a:g}")
        return self


MOST_WINDOWS = 1000  # each is a search for neighbours
MOST_CELLS = 10_000_000  # of a histogram without covariance


def _spread(value: int) -> int:
    require(value != 1, "must be 0 (no ensemble) or at least 2: one member has no spread", ValueError)
    return value


class FlowSection(fields.Section):
    """Training of the flow p(q_T, E | m), its check in windows of mass, axes of the histogram sampler.

    An empty section is the default.
    """

    mass: fields.MassEdges | None = None
    """Edges of the mass of the histogram sampler and the map of training weights; those of the spectrum by
    default [GeV]."""
    pt: fields.Momenta | None = None
    """Edges of the transverse momentum of the histogram sampler and the map [GeV]."""
    energy: fields.Momenta | None = None
    """Edges of the energy of the histogram sampler and the map [GeV]."""
    angles: fields.MassEdges | None = None
    """Edges of regions of mass in which the spin density is fitted to the decay angles of the pairs, in the
    frame 'laboratory'; [accept] then takes it for photons whose parent nobody knows [GeV]."""
    bins: Annotated[int, Field(gt=1, le=1000)] | None = None
    """Bins of the splines; see `flow.FlowOptions`."""
    hidden: Annotated[int, Field(gt=0, le=10_000)] | None = None
    """Width of the hidden layers; see `flow.FlowOptions`."""
    layers: Annotated[int, Field(gt=0, le=100)] | None = None
    """Number of hidden layers; see `flow.FlowOptions`."""
    epochs: Annotated[int, Field(gt=0, le=1_000_000)] | None = None
    """Number of epochs; see `flow.FlowOptions`."""
    epoch_size: fields.Count | None = None
    """Pairs of an epoch; see `flow.FlowOptions`."""
    batch: fields.Count | None = None
    """Pairs of a step; see `flow.FlowOptions`."""
    learning_rate: fields.Positive | None = None
    """Largest learning rate; see `flow.FlowOptions`."""
    mass_flattening: Annotated[float, Field(ge=0, le=1)] = 0.0
    """0 to 1: weights sparse masses up in the training; the density is unchanged by it."""
    min_window_pairs: Annotated[float, Field(ge=0)] = 0.0
    """A sample with fewer effective pairs in a window of mass is refused."""
    members: Annotated[int, Field(ge=0, le=100), AfterValidator(_spread)] = 0
    """Flows on bootstrap replicas of the events, for the band: 0 (no band) or at least 2; 8 is a good number.
    """
    device: Literal["cpu", "cuda", "auto"] = "cpu"
    """Where the training runs: 'auto' takes a CUDA device if there is one; 'cuda' is an error where there is
    none. A device rounds otherwise than a processor, so that the flow is another of equal quality."""
    n_draws: Annotated[int, Field(ge=10, le=100_000)] = 100
    """Draws from the flow with which each window of the check is compared."""
    window: fields.Positive = 0.03
    """Width of the windows of mass of the check [GeV]."""
    check_range: Annotated[fields.Range, fields.LIGHT] = (0.25, 1.05)
    """Masses between which the flow is checked [GeV]."""

    @model_validator(mode="after")
    def _within_memory(self) -> FlowSection:
        problem = fields.cells_problem(self.mass, self.pt, self.energy, most=MOST_CELLS)
        windows = (self.check_range[1] - self.check_range[0]) / self.window
        if windows > MOST_WINDOWS:
            problem = f"window: {windows:.3g} of {self.window:g} GeV in check_range; at most {MOST_WINDOWS}"
        if problem:
            raise ValueError(problem)
        return self


def load_schema(section: Read, where: Path | UserCode) -> read.Schema:
    """Return the schema of a file, of ``file.py:attribute``, or a shipped one by its name."""
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


def run_files(section: Read, base: Path) -> tuple[Path, ...]:
    """Return the files that [read.runs] names."""
    runs = section.runs
    if runs is None:
        return ()
    return tuple(base / name for name in (runs.good, _table_of_runs(runs)[0]) if name)


def _table_of_runs(runs: RunsSection) -> tuple[str, str]:
    """Return file and tree of the table of runs."""
    file, _, tree = runs.table.partition(".root:")
    return (f"{file}.root", tree) if tree else (runs.table, "")


def load_runs(section: Read, base: Path) -> select.Runs | None:
    """Return the runs of a section with their protons and prescales."""
    from gammastar import select
    from gammastar.read.runs import good_runs, run_table

    asked = section.runs
    if asked is None:
        return None
    runs = select.Runs(good_runs(base / asked.good) if asked.good else None)
    if not asked.table:
        return runs
    file, tree = _table_of_runs(asked)
    kinds = ("run", "block", "pot", "prescale")
    columns = {name: getattr(asked, name) for name in kinds if getattr(asked, name)}
    table = run_table(base / file, list(columns.values()), tree)
    try:
        return runs.with_table(**{name: table[column] for name, column in columns.items()})
    except SteeringError as error:
        raise SteeringError(f"{base / file}: {error}") from error


def load_scale_factors(section: Select, base: Path) -> list[select.ScaleFactor]:
    """Return the corrections of simulated pairs."""
    from gammastar import select

    entries = [(one.file, one.model_dump(exclude={"file"})) for one in section.scale_factors]
    return [select.ScaleFactor(base / file, **entry) for file, entry in entries]


def load_cuts(
    section: Select, where: Path | UserCode, *, data: bool = False, runs: Any = None
) -> select.Cuts:
    """Return the cuts of a section with functions of frozen code; `section.data` and `runs` act on data."""
    from gammastar import select

    only = (section.data if data else None) or DataOnly()

    def made(table: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
        found = {}
        for name, value in wanted.items():
            try:
                asked = value.model_dump(exclude_unset=True) if isinstance(value, Condition) else None
                found[name] = value if asked is None else select.Condition(**asked)
            except SteeringError as error:
                raise SteeringError(f"select.{table}.{name}: {error}") from error
        return found

    base = where if isinstance(where, Path) else where.folder
    ghost = None
    if section.ghost_angle > 0 or section.ghost_excess > 0:
        ghost = select.GhostVeto(section.ghost_angle, section.ghost_excess)
    return select.Cuts(
        event=made("event", section.event) | made("data.event", only.event),
        lepton=made("lepton", section.lepton),
        pair=made("pair", section.pair),
        runs=runs if data else None,
        ghost=ghost,
        event_functions=tuple(
            resolve(name, where) for name in (*section.event_functions, *only.event_functions)
        ),
        pair_functions=tuple(resolve(name, where) for name in section.pair_functions),
        vertex=section.vertex,
        scale_factors=() if data else load_scale_factors(section, base),
    )
