"""Models: mass and coupling in, lifetime, branching ratios and rate out; they and theory channels by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from gammastar.core.constants import ALPHA, CTAU_PER_GEV, M_MU, M_PI_CHARGED
from gammastar.core.errors import PhysicsError, SteeringError, require
from gammastar.core.files import Pathlike, data_path
from gammastar.core.records import DarkState, FloatArray
from gammastar.core.resolve import UserCode, resolve
from gammastar.physics import bremsstrahlung, qed
from gammastar.physics.mesons import MesonTable
from gammastar.physics.vectors import CHARGES, Charges, Process, kinetic_mixing_loop, meson_parts
from gammastar.predict import theory
from gammastar.predict.channel import Channel

TABLES = "foresee:"

Limits = Literal["published", "recast", "none"]

_TEX = {"ε": r"\varepsilon"}  # where the plain letter looks otherwise
_FORBIDDEN = set("$\\{}^%#&~\n")


@dataclass(frozen=True, slots=True)
class Labels:
    """What a model is called on axes, in captions and in tables, and which published limits are its own.

    The defaults are those of a vector of which nothing else is known; no limit of a dark photon is drawn.

    Raises
    ------
    PhysicsError
        If a text is empty or holds signs that an axis cannot show, or `limits` is none of the three.
    """

    particles: str = "particles of the model"  # In words, e.g. "dark photons"
    # Symbols in plain Unicode; what follows an underscore is an index: "A′", "g_X"
    particle: str = "X"
    coupling: str = "g"
    coupling_name: str = "coupling"  # In words and ASCII, for tables, e.g. "kinetic mixing"
    unit: str = ""  # Of the coupling, e.g. "1/GeV"; empty for a number
    # Published limits on dark photons hold as they are; carried over by ratios of rate, branching ratio and
    # lifetime (cτ ∝ 1/g²); or not at all, so that no grey area is drawn
    limits: Limits = "none"
    plane: str = ""  # Files of one's own limits with this `plane` belong to the model

    def __post_init__(self) -> None:
        for name in ("particles", "particle", "coupling", "coupling_name", "unit", "plane"):
            text = getattr(self, name)
            if not isinstance(text, str) or _FORBIDDEN & set(text) or not (text or name in {"unit", "plane"}):
                msg = f"Labels: {name} = {text!r} must be plain text without any of $ \\ {{ }} ^ % # & ~"
                raise PhysicsError(msg)
        if self.limits not in get_args(Limits):
            raise PhysicsError(f"Labels: limits = {self.limits!r} is none of {', '.join(get_args(Limits))}")

    @property
    def mass_axis(self) -> str:
        """Label of a mass axis."""
        return f"$m_{{{self.particle.replace('_', '')}}}$ [GeV]"

    @property
    def coupling_symbol(self) -> str:
        """The coupling as mathematics, without dollar signs."""
        base, _, index = self.coupling.partition("_")
        return _TEX.get(base, base) + (f"_{{{index.replace('_', '')}}}" if index else "")

    @property
    def coupling_axis(self) -> str:
        """Label of an axis of couplings, with the unit if there is one."""
        return f"${self.coupling_symbol}$" + (f" [{self.unit}]" if self.unit else "")

    @property
    def plain_axes(self) -> tuple[str, str]:
        """Labels of the axes of mass and coupling as plain text."""
        unit = f" [{self.unit}]" if self.unit else ""
        return f"m({self.particle}) [GeV]", f"{self.coupling}{unit}"


class Model(ABC):
    """A model with one mass and one coupling; the rate goes as the square of the coupling.

    Attributes
    ----------
    charge : float
        Electric charge in units of e.
    labels : Labels
        Names, axes and the published limits that belong to the model; a model says its own.
    """

    charge: float = 0.0

    @property
    def labels(self) -> Labels:
        """What the model is called, and which published limits are its own: by default none."""
        return Labels(particles=f"particles of {type(self).__name__}")

    def rate_ratio(self, mass: npt.ArrayLike) -> FloatArray:
        """Return particles made per squared coupling over dark photons per ε², shape (n,).

        Production is measured, or computed, for dark photons: every other model says what a rate of these
        means for its own particles. One, for a model with kinetic mixing.
        """
        raise PhysicsError(
            f"{type(self).__name__}: define rate_ratio(self, mass), particles per squared coupling over dark "
            f"photons per ε², here {np.size(mass)} of them; np.ones_like(mass) for kinetic mixing"
        )

    @abstractmethod
    def ctau(self, mass: float, coupling: npt.ArrayLike) -> FloatArray:
        """Return the proper decay length [m] in the shape of the couplings, inf if stable."""

    @abstractmethod
    def branching(self, mass: float) -> Mapping[str, float]:
        """Return the branching ratios by final state; they sum to one, or are all zero if stable."""

    def width_error(self, mass: float) -> float:  # noqa: ARG002
        """Return the relative standard deviation of the total width at a mass [GeV], that of hadrons.

        Widths into leptons are taken as known. Zero, the default, says nothing about it.
        """
        return 0.0

    def at(self, mass: float, coupling: float) -> DarkState:
        """Return the particle at one point of the parameter space."""
        ctau = float(np.asarray(self.ctau(mass, coupling)))
        return DarkState(float(mass), float(coupling), ctau, self.charge, dict(self.branching(mass)))


@dataclass(frozen=True, slots=True)
class DarkPhoton(Model):
    """Dark photon with decays to e+e−, μ+μ− and hadrons; the coupling is ε."""

    r_table: qed.RTable  # R(m) for the hadronic width

    @property
    def labels(self) -> Labels:
        """A′ and ε; published limits hold as they are, but not for a class derived from this one."""
        plain = type(self) is DarkPhoton
        limits: Limits = "published" if plain else "none"
        plane = "dark_photon" if plain else ""
        return Labels("dark photons", "A′", "ε", "kinetic mixing", limits=limits, plane=plane)

    def rate_ratio(self, mass: npt.ArrayLike) -> FloatArray:
        """Return ones."""
        return np.ones_like(np.atleast_1d(np.asarray(mass, dtype=np.float64)))

    def ctau(self, mass: float, coupling: npt.ArrayLike) -> FloatArray:
        """Return cτ ∝ 1/ε² [m]; see `gammastar.physics.qed.dark_photon_ctau`."""
        return qed.dark_photon_ctau(mass, coupling, self.r_table)

    def branching(self, mass: float) -> dict[str, float]:
        """Return the branching ratios into "ee", "mumu" and "hadrons", zero at and below threshold."""
        return {name: float(value) for name, value in qed.dark_photon_branching(mass, self.r_table).items()}

    def width_error(self, mass: float) -> float:
        """Return the relative error of the total width, that of R."""
        widths = [qed.dark_photon_widths(mass, table) for table in (self.r_table, self.r_table.shifted(1.0))]
        plain, moved = (sum(float(part) for part in parts.values()) for parts in widths)
        return moved / plain - 1.0 if plain > 0 else 0.0


_STATES = ("ee", "mumu", "tautau", "neutrinos", "hadrons")


@dataclass(frozen=True, slots=True)
class VectorModel(Model):
    """A vector X with given charges and coupling g.

    Notes
    -----
    Hadronic widths: of a loop-mixed vector, R(m) Γ(μμ) of a dark photon with ε(m²). Of B − L and the
    protophobic vector, R split into what couples like ρ, ω and φ, each times its squared charge ratio (B − L:
    0, 4 and 1; protophobic: 1, 1 and 4), up to 1.03 GeV; heavier masses are refused. `hadronic_split`.
    """

    charges: Charges
    r_table: qed.RTable  # Of the electromagnetic current; used by loop-mixed vectors

    @classmethod
    def named(cls, name: str, r_table: qed.RTable) -> VectorModel:
        """Return "lmu_ltau", "b_minus_l" or "protophobic"."""
        require(name in CHARGES, f"vector model {name!r} is not known; there are {', '.join(CHARGES)}")
        return cls(CHARGES[name], r_table)

    @property
    def condition(self) -> str:
        """Condition under which measured virtual photons predict this vector."""
        return self.charges.condition

    @property
    def labels(self) -> Labels:
        """X and g; limits on dark photons are recast."""
        plane = next((name for name, known in CHARGES.items() if known == self.charges), self.charges.name)
        name = f"{self.charges.name} vectors"
        return Labels(name, coupling_name="coupling g", limits="recast", plane=plane)

    def rate_ratio(
        self, mass: npt.ArrayLike, shares: Mapping[Process, npt.ArrayLike] | None = None
    ) -> FloatArray:
        """Return X per g² over dark photons per ε²; see `rate_ratio` of this module for the shares."""
        return rate_ratio(self.charges, mass, shares or {})

    def widths(self, mass: float) -> dict[str, float]:
        """Return partial widths per g² [GeV] into ee, mumu, tautau, neutrinos and hadrons."""
        found = {name: float(value) for name, value in self.charges.lepton_widths(mass).items()}
        found["hadrons"] = self._hadrons(mass)
        return found

    def _hadrons(self, mass: float) -> float:
        if self.charges.loop_mixing:
            epsilon2 = float(np.abs(kinetic_mixing_loop(mass**2)) ** 2)
            return epsilon2 * float(self.r_table.at(mass) * qed.lepton_width(mass, M_MU))
        if mass <= 2 * M_PI_CHARGED:
            return 0.0
        massless = ALPHA * mass / 3
        measured = float(self.r_table.at(mass) * qed.lepton_width(mass, M_MU)) / massless
        parts = meson_parts(mass, measured)
        squared = {name: float(self.charges.production_ratio(name, mass)) for name in parts}
        return massless * sum(squared[name] * float(part) for name, part in parts.items())

    def ctau(self, mass: float, coupling: npt.ArrayLike) -> FloatArray:
        """Return cτ [m]; inf at zero coupling."""
        g = np.asarray(coupling, dtype=np.float64)
        require((np.isfinite(g) & (g >= 0)).all(), f"coupling {g!r} must be finite and not negative")
        with np.errstate(divide="ignore"):
            return np.asarray(CTAU_PER_GEV / (sum(self.widths(mass).values()) * g**2), dtype=np.float64)

    def branching(self, mass: float) -> dict[str, float]:
        """Return the branching ratios; zero at and below threshold."""
        widths = self.widths(mass)
        total = sum(widths.values())
        return {name: widths[name] / total if total > 0 else 0.0 for name in _STATES}

    def width_error(self, mass: float) -> float:
        """Return the relative error of the total width, that of R."""
        moved = VectorModel(self.charges, self.r_table.shifted(1.0))
        plain, other = (sum(model.widths(mass).values()) for model in (self, moved))
        return other / plain - 1.0 if plain > 0 else 0.0


def rate_ratio(charges: Charges, mass: npt.ArrayLike, shares: Mapping[Process, npt.ArrayLike]) -> FloatArray:
    """Return X per g² over dark photons per ε², summed over processes."""
    m = np.atleast_1d(np.asarray(mass, dtype=np.float64))
    if charges.loop_mixing:
        return charges.production_ratio("bremsstrahlung", m)
    require(shares, f"{charges.name}: {charges.condition}")
    columns = {name: np.broadcast_to(np.asarray(value, float), m.shape) for name, value in shares.items()}
    total = np.sum(list(columns.values()), axis=0)
    if not np.allclose(total, 1.0, atol=1e-6):
        sums = f"{total.min():g} … {total.max():g}"
        raise PhysicsError(f"{charges.name}: shares of the processes sum to {sums}, not to one")
    parts = [share * charges.production_ratio(name, m) for name, share in columns.items()]
    return np.asarray(np.sum(parts, axis=0), dtype=np.float64)


MESONS: dict[str, type[theory.MesonChannel]] = {
    "pion_dalitz": theory.PionDalitz,
    "pseudoscalar_dalitz": theory.PseudoscalarDalitz,
    "vector_dalitz": theory.VectorDalitz,
    "vector_mesons": theory.VectorMixing,
    "jpsi": theory.JPsi,
}


@cache
def r_table() -> qed.RTable:
    """Return the shipped table of R."""
    return qed.RTable.read(data_path("measurements/r_ratio.csv"))


def _of_user(kind: Any, key: str, name: str, where: Path | UserCode) -> Any:
    """Return the model or channel of ``file.py:attribute``, an instance or what makes one."""
    named = resolve(name, where)
    if not isinstance(named, kind) and callable(named):
        try:
            named = named()
        except TypeError as error:
            raise SteeringError(f"{key}: cannot be made without arguments ({error})") from error
    if not isinstance(named, kind):
        what = kind.__name__
        raise SteeringError(f"{key}: {type(named).__name__} is no {what.lower()}; derive from predict.{what}")
    return named


def make_model(name: str, where: Pathlike | UserCode) -> Model:
    """Return the model of a name or of ``file.py:attribute`` (a model or a function without arguments).

    Parameters
    ----------
    name : str
        Of a built-in model, or ``file.py:attribute``.
    where : path or UserCode
        Folder of the file.

    Raises
    ------
    SteeringError
        If there is none of that name, or if what was found is no model or does not say how many of its
        particles are made.
    """
    where = where if isinstance(where, UserCode) else Path(where)
    if name == "dark_photon":
        return DarkPhoton(r_table())
    if name in CHARGES:
        return VectorModel.named(name, r_table())
    if ":" not in name:
        known = ", ".join(("dark_photon", *CHARGES))
        raise SteeringError(f"predict.model = {name!r}: none of {known} nor of the form 'file.py:attribute'")
    model: Model = _of_user(Model, f"predict.model = {name!r}", name, where)
    if type(model).rate_ratio is Model.rate_ratio:
        raise SteeringError(
            f"predict.model = {name!r}: {type(model).__name__} does not say how many of its particles are "
            "made: define rate_ratio(self, mass), particles per squared coupling over dark photons per ε² "
            "(np.ones_like(mass) for kinetic mixing)"
        )
    labels: object = model.labels
    if not isinstance(labels, Labels):
        raise SteeringError(f"predict.model = {name!r}: labels = {labels!r} must be gammastar.predict.Labels")
    return model


@dataclass(frozen=True)
class TheoryOptions:
    """What theory channels need beside a beam."""

    bremsstrahlung: str  # Preset of the splitting function and form factor
    off_shell: float | None  # Its Λ [GeV], if another than the preset's
    # Returns the file of the table of mesons, or raises InputFileError; asked only by their channels
    mesons: Callable[[], Path]
    where: Path | UserCode  # Folder of the steering file, or the code that was frozen there
    # Inelastic cross section [mb], by which the cross sections of FORESEE's tables become rates per
    # interacting proton; None leaves them in pb
    sigma_inelastic: float | None = None

    @property
    def base(self) -> Path:
        """Folder of the steering file."""
        return self.where if isinstance(self.where, Path) else self.where.folder


def theory_channel(
    name: str,
    options: TheoryOptions,
    beam_energy: float,
    *,
    thickness: float = np.inf,
    mass_range: tuple[float, float] | None = None,
) -> Channel:
    """Return the theory channel of a name or of ``file.py:attribute``.

    Parameters
    ----------
    name : str
        "bremsstrahlung", "pion_dalitz", "pseudoscalar_dalitz", "vector_dalitz", "vector_mesons" or "jpsi";
        "foresee:FOLDER" for tables of this tool.
    beam_energy : float [GeV]
    thickness : float
        Of the target in interaction lengths; by default every proton interacts.
    mass_range : tuple of float, optional
        Of a channel of mesons [GeV].

    Raises
    ------
    SteeringError
        If there is none of that name.
    InputFileError
        If the table of mesons is missing: a channel never vanishes silently.
    """
    interaction = float(-np.expm1(-thickness))
    if name == "bremsstrahlung":
        kernel = bremsstrahlung.preset(options.bremsstrahlung)
        if options.off_shell is not None:
            title = f"{kernel.name}, Λ = {options.off_shell:g} GeV"
            kernel = replace(kernel, name=title, off_shell=options.off_shell)
        return theory.Bremsstrahlung(kernel, beam_energy, interaction)
    if name in MESONS:
        table = MesonTable.read(options.mesons(), sigma_inelastic=options.sigma_inelastic)
        bounds: dict[str, Any] = {} if mass_range is None else {"mass_range": mass_range}
        return MESONS[name](table, beam_energy, interaction, **bounds)
    if name.startswith(TABLES):
        folder = options.base / name.removeprefix(TABLES)
        return theory.ForeseeSpectra.read(folder, sigma_inelastic=options.sigma_inelastic)
    if ":" not in name:
        known = ", ".join(("bremsstrahlung", *MESONS, "foresee:FOLDER"))
        raise SteeringError(f"predict.channels: {name!r}: none of {known} nor 'file.py:attribute'")
    channel: Channel = _of_user(Channel, f"predict.channels: {name!r}", name, options.where)
    named = isinstance(getattr(channel, "group", None), str), getattr(channel, "processes", None)
    if not (named[0] and isinstance(named[1], frozenset) and named[1]):
        what = "group, a name, and processes, a frozenset of names"
        raise SteeringError(f"predict.channels: {name!r} needs {what}, lest a process counts twice")
    return channel
