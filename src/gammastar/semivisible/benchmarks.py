"""Cards of searches, published limits, benchmark points, the correction of dark bremsstrahlung: all data."""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from gammastar.core.errors import InputFileError, PhysicsError, SteeringError, require
from gammastar.core.files import (
    Pathlike,
    data_path,
    filled_in,
    from_toml,
    name_of,
    read_columns,
    sources_of,
    validated,
)
from gammastar.core.records import BoolArray, FloatArray
from gammastar.semivisible import models
from gammastar.semivisible.decays import NeutrinoMixing, lifetimes
from gammastar.semivisible.models import DarkSector
from gammastar.semivisible.production import Correction

logger = logging.getLogger(__name__)

SHIPPED = {  # points, a user's curve, and where straight lines between the points are within 7 % of the curve
    "babar": ("semivisible/babar_invisible.csv", "babar_1702.03327_epsilon_limit.csv", (0.1, 2.0)),
    "na64_2016_18": (
        "semivisible/na64_invisible_2016_18.csv",
        "na64_1906.00176_epsilon_limit.csv",
        (0.01, 0.9),
    ),
    "na64_2016_22": (
        "semivisible/na64_invisible_2016_22.csv",
        "na64_2022_9.37e11eot_epsilon_limit.csv",
        (0.01, 0.1),
    ),
}
K_ENERGIES = (20, 40, 50, 60, 80, 100, 150)  # GeV
MODELS = ("idm", "scalar_idm", "i2dm", "inverse_seesaw", "dark_dirac_seesaw", "pseudo_dirac")


def _columns(path: Path, names: tuple[str, ...]) -> FloatArray:
    """Return columns of positive numbers of a CSV file, shape (n, len(names))."""
    table = read_columns(path, names, extra=True)
    good = (np.isfinite(table) & (table > 0)).all()
    require(good, f"{path}: all values must be positive and finite", InputFileError)
    return table


@dataclass(frozen=True, slots=True, eq=False)
class Published:
    """A published upper limit on the kinetic mixing of an invisible dark photon."""

    # [GeV] and 90 % CL upper limit, shape (n,)
    mass: FloatArray
    epsilon: FloatArray
    full: bool  # False for the few points that are shipped
    # Masses [GeV] between which straight lines between shipped points are within 7 % of the published one.
    # BaBar's is jagged above 2 GeV: lines between the points are off by 0.44 to 1.45 there
    straight: tuple[float, float] = (np.inf, 0.0)

    def at(self, mass: npt.ArrayLike) -> FloatArray:
        """Return the limit, straight in the logarithms; nan outside the published range."""
        values = np.interp(np.log(mass), np.log(self.mass), np.log(self.epsilon), left=np.nan, right=np.nan)
        return np.asarray(np.exp(values), dtype=np.float64)

    def known(self, mass: npt.ArrayLike) -> BoolArray:
        """Return where `at` says what was published: in a full curve, else at points and straight parts."""
        m = np.asarray(mass, dtype=np.float64)
        inside = (m >= self.mass[0]) & (m <= self.mass[-1])
        point = np.isclose(m[..., None], self.mass, rtol=1e-9).any(axis=-1)
        between = (m >= self.straight[0]) & (m <= self.straight[1])
        return np.asarray(inside & (self.full | point | between))


def read_limit(path: Path, *, full: bool = True, straight: tuple[float, float] = (np.inf, 0.0)) -> Published:
    """Read a limit from a CSV file with the columns ``m_Aprime_GeV,epsilon_90CL``."""
    table = _columns(path, ("m_Aprime_GeV", "epsilon_90CL"))
    mass, first = np.unique(table[:, 0], return_index=True)
    return Published(mass, table[first, 1], full, straight)


def published(name: str, directory: Pathlike | None = None) -> Published:
    """Return a published limit: the full curve if the directory holds it, else the shipped points.

    `name`: "babar", "na64_2016_18" or "na64_2016_22"; full curves are not ours to ship.
    """
    require(name in SHIPPED, f"published limit {name!r}: choose one of {', '.join(SHIPPED)}")
    shipped, file, straight = SHIPPED[name]
    directory = None if directory is None else Path(directory)
    if directory is not None and (directory / file).is_file():
        return read_limit(directory / file)
    if directory is not None:
        logger.warning("%s holds no %s: the few shipped points are used", directory, file)
    return read_limit(data_path(shipped), full=False, straight=straight)


def correction() -> Correction:
    """Return the shipped K = σ(WW)/σ(exact) on lead, at beam energies of 20 to 150 GeV."""
    path = data_path("semivisible/dark_brem_k.csv")
    table = _columns(path, ("m_Aprime_GeV", *(f"K_{energy}GeV" for energy in K_ENERGIES)))
    return Correction(table[:, 0], np.array(K_ENERGIES, dtype=np.float64), table[:, 1:], str(path.name))


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A named point of a model; masses may scale with the dark photon."""

    # `kind` is a builder of `gammastar.semivisible.models`
    name: str
    kind: str
    status: str
    source: str
    parameters: Mapping[str, Any]  # What the builder takes
    mediator: float | None = None  # Mass of the dark photon that belongs to it [GeV]
    scaled: tuple[str, ...] = ()  # Parameters that are in units of the mass of the dark photon instead of GeV
    neutrino: tuple[NeutrinoMixing, ...] = ()  # Mixings of its states with neutrinos
    plane: Mapping[str, Any] = field(default_factory=dict)  # What the file says of the plane that it wants

    def sector(self, mediator: float | None = None, **changes: Any) -> DarkSector:
        """Return the dark sector for a mass of the dark photon [GeV], with some parameters changed."""
        mass = self.mediator if mediator is None else mediator
        if mass is None:
            raise PhysicsError(f"benchmark {self.name}: give the mass of the dark photon")
        options: dict[str, Any] = {**self.parameters, **changes, "name": self.name}
        options |= {key: np.asarray(options[key]) * mass for key in self.scaled}
        build = getattr(models, self.kind)
        if self.kind in ("idm", "scalar_idm", "i2dm"):
            return build(mass, **options)  # type: ignore[no-any-return]
        return build(mediator=mass, **options)  # type: ignore[no-any-return]


@cache
def _registry() -> dict[str, Any]:
    return tomllib.loads(data_path("semivisible/benchmarks.toml").read_text())


def benchmark_names() -> tuple[str, ...]:
    """Return the names of the shipped benchmark points."""
    return tuple(_registry())


def load_benchmark(name: Pathlike) -> Benchmark:
    """Return a shipped benchmark point, or the model of a TOML file.

    Parameters
    ----------
    name : str or Path
        A name of `benchmark_names`, or a path that ends in ``.toml``.

    Raises
    ------
    PhysicsError
        If the name or its model is unknown.
    InputFileError
        If the file cannot be read or is not TOML.
    SteeringError
        If the file has unknown keys, lacks one, or describes what no dark sector can be.

    Notes
    -----
    A file holds ``alpha_d`` and one table: ``[matrix]`` (mass matrix and charges), ``[states]`` (masses and
    couplings) or ``[benchmark]`` (a builder and its parameters); and, if wanted, ``name``, ``source``,
    ``unit``, ``mediator``, ``[[neutrino]]`` and ``[plane]``.

    Examples
    --------
    >>> load_benchmark("iDM-040").sector(3.0).masses
    array([1. , 1.4])
    """
    if str(name).endswith(".toml"):
        return _own(Path(name))
    registry = _registry()
    if name not in registry or registry[str(name)]["kind"] not in MODELS:
        raise PhysicsError(f"benchmark {name!r}: choose one of {', '.join(registry)}, or a file MODEL.toml")
    row = registry[str(name)]
    about = row["kind"], row["status"], row["source"], row["parameters"], row.get("mediator")
    return Benchmark(str(name), *about)


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Matrix(_Table):
    """``[matrix]``: mass matrix [GeV] and charges of the fields."""

    field: Literal["majorana", "dirac"] = "majorana"
    mass: list[list[complex]]
    charges: list[float]


class _Coupling(_Table):
    states: tuple[int, int]
    vector: complex = 0.0
    axial: complex = 0.0


class _States(_Table):
    """``[states]``: masses [GeV] and couplings one by one; states count from one."""

    field: models.Field = "majorana"
    masses: list[float]
    couplings: list[_Coupling]
    squared_charges: float = 1.0


class _Named(_Table):
    """``[benchmark]``: a builder of `gammastar.semivisible.models` and its parameters."""

    kind: Literal[MODELS]  # type: ignore[valid-type]
    parameters: dict[str, Any]


class _Neutrino(_Table):
    state: int = Field(ge=1)
    squared: float
    nature: Literal["majorana", "dirac"] = "majorana"


class _Model(_Table):
    """A dark sector in a TOML file."""

    name: str = ""
    source: str = "given by its user"
    alpha_d: float
    unit: Literal["GeV", "mediator"] = "GeV"
    mediator: float | None = None
    neutrino: tuple[_Neutrino, ...] = ()
    plane: dict[str, Any] = Field(default_factory=dict)
    matrix: _Matrix | None = None
    states: _States | None = None
    benchmark: _Named | None = None

    @model_validator(mode="after")
    def _one_table(self) -> _Model:
        tables = [name for name in ("matrix", "states", "benchmark") if getattr(self, name) is not None]
        if len(tables) != 1:
            listed = ", ".join(tables) or "none"
            raise ValueError(f"give one of [matrix], [states] and [benchmark]; found {listed}")
        return self

    def built(self, name: str) -> Benchmark:
        """Return the point under a name."""
        kind, masses = "from_couplings", "masses"
        parameters: dict[str, Any] = {"alpha_d": self.alpha_d}
        if self.matrix is not None:
            kind, masses = f"from_{self.matrix.field}", "mass_matrix"
            parameters |= {"mass_matrix": self.matrix.mass, "charges": self.matrix.charges}
        elif self.states is not None:
            parameters |= dict(self.states)
            parameters["couplings"] = [(c.states, c.vector, c.axial) for c in self.states.couplings]
        elif self.benchmark is not None:
            kind, masses, parameters = self.benchmark.kind, "", self.benchmark.parameters | parameters
        scaled = (masses,) if masses and self.unit == "mediator" else ()
        mixings = tuple(NeutrinoMixing(m.state - 1, m.squared, m.nature) for m in self.neutrino)
        about = name, kind, "own", self.source
        return Benchmark(*about, parameters, self.mediator, scaled, mixings, self.plane)


def _own(path: Path) -> Benchmark:
    """Return the model of a file, after its dark sector was built once."""
    try:
        content = from_toml(path)
        name = name_of(content) or path.stem
    except (OSError, ValueError) as error:
        raise InputFileError(f"{path}: cannot be read as TOML ({error})") from error
    try:
        filled_in(content)
        model = validated(TypeAdapter(_Model), content, path).built(name)
        sector = model.sector(1.0 if model.mediator is None else model.mediator)
        lifetimes(sector, neutrino=model.neutrino)
    except (PhysicsError, SteeringError, TypeError, ValueError) as error:
        said = str(error)
        raise SteeringError(said if said.startswith(f"{path}:") else f"{path}: {said}") from error
    return model


class Card:
    """Numbers of a search with their sources; the record itself is a dataclass."""

    __slots__ = ()
    title: ClassVar[str]
    shipped: ClassVar[str]  # Card below the folder of the data
    sources: Mapping[str, str] | None

    @classmethod
    def load(cls, path: Pathlike | None = None) -> Self:
        """Return the record of a card, by default the shipped one; a table [band] has one source for all."""
        file = data_path(cls.shipped) if path is None else Path(path)
        try:
            card = from_toml(file)
            sources = sources_of(card)
        except (OSError, ValueError) as error:
            raise InputFileError(f"{file}: cannot be read as TOML ({error})") from error
        card.pop("sources", None)
        band = card.pop("band", {})
        without = ", ".join(sorted(set(card) - set(sources)))
        require(not without, f"{file}: no source is given for {without}", SteeringError)
        try:
            if band:
                sources["band"] = band.pop("source")
            numbers: dict[str, Any] = card | band | {"sources": sources}
            return cls(**numbers)
        except (TypeError, KeyError, ValueError) as error:
            raise SteeringError(f"{file}: {error}") from error

    @property
    def unverified(self) -> tuple[str, ...]:
        """Inputs that were not confirmed in their source."""
        notes = self.sources or {}
        return tuple(f"{self.title} {key}: {text}" for key, text in notes.items() if "published" not in text)


class ColliderCard(Card):
    """Card of a search at an asymmetric e+e− collider."""

    __slots__ = ()
    beam_minus: float
    beam_plus: float

    @property
    def sqrt_s(self) -> float:
        """Energy in the centre of mass [GeV]: 10.564 for 9.0 on 3.1 GeV of BaBar, not 10.58."""
        return 2.0 * float(np.sqrt(self.beam_minus * self.beam_plus))

    @property
    def boost(self) -> float:
        """βγ of the centre of mass along the electron beam."""
        return (self.beam_minus - self.beam_plus) / self.sqrt_s
