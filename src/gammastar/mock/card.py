"""The input card of the mock: TOML in which every number carries a tag and a source, or names a decay."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gammastar.core.constants import BRANCHING, EDITION, branching
from gammastar.core.errors import InputFileError, PhysicsError, SteeringError, require
from gammastar.core.files import from_toml, sources_of

# keys that a card need not have, with what stands for their absence, by section
OPTIONAL: dict[str, dict[str, Any]] = {
    "": {"lepton": "mu", "radiation": False} | dict.fromkeys(("charm", "pythia", "spectrometer")),
    "target": {"profile": "uniform", "pieces": None},
    "detector": {"sextants": 1, "coil": 0.0, "pt_min": 0.0},
    "mode": {"polarisation": None, "continuum": None},
}
TAGS = ("published", "derived", "placeholder")
# identification codes and choices, not measurements
LABELS = frozenset({"pdg", "process", "index", "bit", "prescale", "muons", "sextants"})
FRACTIONS = frozenset({"branching", "branching_photon"})  # a decay's name stands for its number in the table


class Part(BaseModel):
    """A part of a card: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)


class CharmHadron(Part):
    """A charmed hadron: share, cτ [m], BR to a lepton, recoil [GeV], in a `heavy_share` the heavy one."""

    pdg: int
    share: float = Field(ge=0, le=1)
    ctau: float = Field(gt=0)
    branching: float = Field(ge=0, le=1)
    recoil: float = Field(ge=0)
    heavy_recoil: float = Field(ge=0)
    heavy_share: float = Field(ge=0, le=1)


class Charm(Part):
    """Open charm: cross section per nucleon [b], A^`a_power`, kinematics of the hadrons.

    dN/dpt ∝ pt (1 + (pt/p0)²)^−n; dN/dy* ∝ (1 − (y*/y_max)²)^`y_power` inside the kinematic limit; azimuths
    of the two hadrons von Mises about back-to-back with concentration `back_to_back`.
    """

    process: int = Field(default=9, ge=0, le=127)
    enabled: bool = True
    cross_section: float = Field(gt=0)
    a_power: float = Field(gt=0)
    p0: float = Field(gt=0)
    n: float = Field(gt=2)
    y_power: float = Field(ge=0)
    back_to_back: float = Field(ge=0)
    pole_mass: float = Field(gt=1.9)
    hadrons: dict[str, CharmHadron]

    @model_validator(mode="after")
    def _some_hadron(self) -> Charm:
        if not sum(h.share * h.branching for h in self.hadrons.values()) > 0:
            raise ValueError("charm.hadrons: none decays to leptons (share × branching = 0)")
        return self


class Continuum(Part):
    """A mass continuum dN/dm ∝ m^−`power` (1 − m/√s)^`end` between `low` and `high` [GeV] (Drell-Yan)."""

    low: float = Field(gt=0)
    high: float = Field(gt=0)
    power: float
    end: float = Field(ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> Continuum:
        require(self.low < self.high, f"low = {self.low!r} must lie below high = {self.high!r}", ValueError)
        return self


class Polarisation(Part):
    """Angular coefficients of dN/dΩ ∝ 1 + λθ cos²θ + λφ sin²θ cos 2φ + λθφ sin 2θ cos φ, and their frame."""

    theta: float = Field(default=0.0, ge=-1, le=1)
    phi: float = Field(default=0.0, ge=-1, le=1)
    theta_phi: float = Field(default=0.0, ge=-1, le=1)
    frame: Literal["helicity", "collins_soper", "laboratory"] = "collins_soper"

    @model_validator(mode="after")
    def _positive(self) -> Polarisation:
        if self.lowest < -1e-9:
            raise ValueError(f"the angular density becomes negative, {self.lowest:.3g}, for these values")
        return self

    @property
    def lowest(self) -> float:
        """Smallest value of the distribution: the least eigenvalue of a quadratic form on the sphere."""
        form = np.diag([1.0 + self.phi, 1.0 - self.phi, 1.0 + self.theta])
        form[0, 2] = form[2, 0] = self.theta_phi
        return float(np.linalg.eigvalsh(form)[0])

    @property
    def highest(self) -> float:
        """Largest value of the distribution, or a little above it."""
        return 1.0 + max(abs(self.theta), abs(self.phi)) + abs(self.theta_phi)


class PythiaCard(Part):
    """How the engine "pythia" is used.

    `system`: collisions of "pp" or "pPb" (Angantyr). `normalisation`: yields of the card, or those of the
    generator times `species`. `reuse`: decays of one meson on average; in pp a meson and its mirror image in
    the centre of mass count as two.
    """

    system: Literal["pp", "pPb"] = "pp"
    normalisation: Literal["card", "generator"] = "card"
    reuse: float = Field(default=6.0, gt=0)
    species: dict[str, float] = Field(default_factory=dict)
    settings: tuple[str, ...] = ()


class Piece(Part):
    """One of several targets: index in the ntuple, place [cm] and share of the interactions."""

    index: int
    z: float
    share: float = Field(gt=0)


class Trigger(Part):
    """A trigger: its bit, the factor of its prescale, and what it asks of the muons."""

    bit: int = Field(ge=0, le=31)
    prescale: int = Field(default=1, ge=1)
    muons: int = Field(default=2, ge=1)
    different_sextants: bool = False
    charge: Literal["any", "opposite", "like"] = "any"


class Spectrometer(Part):
    """Quantities that a selection cuts on: sextants, hits, χ² of track and match, offsets.

    Resolution of the offset [µm]: √(a² + (b/p)²). Muons of decays in flight have `kink` times wider offsets
    and χ². `tracks`: mean number of other tracks at the vertex. The share `offset_tail` of all muons has
    offsets `offset_tail_scale` times wider, with Student's t of 3 degrees of freedom for the Gaussian: large
    scatters and wrong hits, which no resolution describes.
    """

    planes: int = Field(ge=3)
    stations: int = Field(ge=2)
    hit_efficiency: float = Field(gt=0, le=1)
    offset_constant: float = Field(gt=0)
    offset_scattering: float = Field(ge=0)
    kink: float = Field(ge=1)
    offset_tail: float = Field(default=0.0, ge=0, lt=1)
    offset_tail_scale: float = Field(default=1.0, ge=1)
    tracks: float = Field(ge=0)
    pot_per_burst: float = Field(gt=0)
    triggers: dict[str, Trigger]


class Provenance(NamedTuple):
    """Where a number of the card comes from."""

    tag: str
    source: str


class Beam(Part):
    """Proton beam: energy [GeV]."""

    energy: float = Field(gt=1.0)


class Target(Part):
    """Target: atomic numbers, thickness in interaction lengths, inelastic cross section [b].

    `z_size` is its length [cm]; `profile` the depth of the interactions: uniform, or attenuated as a beam is
    in a thick target. `pieces`: several targets one behind the other.
    """

    name: str
    index: int
    a: float = Field(gt=0)
    z: float = Field(gt=0)
    thickness: float = Field(gt=0)
    sigma_inel: float = Field(gt=0)
    z_size: float = Field(ge=0)
    profile: Literal["uniform", "attenuated"] = "uniform"
    pieces: dict[str, Piece] | None = None

    @property
    def interactions(self) -> float:
        """Inelastic interactions per proton: the thickness if it is thin, 1 − exp(−thickness) otherwise."""
        return self.thickness if self.profile == "uniform" else -math.expm1(-self.thickness)


class RunCard(Part):
    """Default size of a data-like sample, and of a burst in recorded events."""

    n_pairs: int = Field(gt=0)
    events_per_burst: int = Field(gt=0)


class Meson(Part):
    """A meson species: yield per interaction and kinematics.

    dN/dpt ∝ pt (1 + (pt/p0)²)^−n; y* Gaussian of standard deviation `y_width`, inside the kinematic limit.
    """

    pdg: int
    multiplicity: float = Field(ge=0)
    a_factor: float = Field(gt=0)
    p0: float = Field(gt=0)
    n: float = Field(gt=2)
    y_width: float = Field(gt=0)


class Mode(Part):
    """A decay of a meson to a virtual photon, with its process code in the ntuple."""

    meson: str
    process: int = Field(ge=0, le=127)
    kind: Literal["pseudoscalar_dalitz", "vector_dalitz", "breit_wigner", "narrow", "rho", "continuum"]
    branching: float = Field(ge=0)
    enabled: bool = True
    form_factor: Literal["pointlike", "eta2", "omega2", "eta_prime2", "pi0_2"] = "pointlike"
    normalisation: Literal["branching", "form_factor"] = "branching"
    branching_photon: float | None = None
    temperature: float | None = None
    polarisation: Polarisation | None = None
    continuum: Continuum | None = None

    @model_validator(mode="after")
    def _complete(self) -> Mode:
        if self.kind == "rho" and self.temperature is None:
            raise ValueError("kind 'rho' needs the key 'temperature'")
        if (self.kind == "continuum") != (self.continuum is not None):
            raise ValueError("kind 'continuum' and the section 'continuum' belong together")
        if self.polarisation is not None and self.kind.endswith("dalitz"):
            raise ValueError(
                "polarisation: the photon of a Dalitz decay is transverse about its flight; leave the key out"
            )
        if self.normalisation == "form_factor" and self.branching_photon is None:
            raise ValueError("normalisation 'form_factor' needs the key 'branching_photon'")
        return self


class DetectorCard(Part):
    """Lepton acceptance [GeV, rad] and resolution (relative momentum, angle per plane [rad]).

    A muon closer than `coil` [rad] to the border of a magnet's sector is lost. `pt_min` [GeV].
    """

    e_min: float = Field(ge=0)
    theta_min: float = Field(ge=0)
    theta_max: float = Field(gt=0)
    sigma_p: float = Field(ge=0)
    sigma_theta: float = Field(ge=0)
    sextants: int = Field(default=1, ge=1)
    coil: float = Field(default=0.0, ge=0)
    pt_min: float = Field(default=0.0, ge=0)


class Efficiency(Part):
    """Trigger and reconstruction efficiency of a muon pair; see `mock.spectrometer.efficiency`."""

    plateau: float = Field(gt=0, le=1)
    soft_depth: float = Field(ge=0, lt=1)
    soft_scale: float = Field(gt=0)
    energy_half: float = Field(ge=0)
    energy_width: float = Field(gt=0)


class Hadron(Part):
    """A charged hadron that decays to μν: kinematics as `Meson`, share among charged hadrons."""

    pdg: int
    share: float = Field(ge=0, le=1)
    p0: float = Field(gt=0)
    n: float = Field(gt=2)
    y_width: float = Field(gt=0)
    branching: float = Field(ge=0, le=1)
    ctau: float = Field(gt=0)


class Background(Part):
    """Combinatorial background: charge-balanced clusters of charged hadrons that decay in flight."""

    fraction: float = Field(ge=0, lt=1)
    clusters: float = Field(gt=0)
    nbd_k: float = Field(gt=0)
    cluster_y_width: float = Field(gt=0)
    positive_excess: float = Field(ge=0)
    decay_length: float = Field(gt=0)
    third_muon_factor: float = Field(ge=0)
    hadrons: dict[str, Hadron]


class Prior(Part):
    """Factors that turn the card into another one, for simulation that differs from the data."""

    p0: float = Field(gt=0)
    y_width: float = Field(gt=0)
    yields: dict[str, float]


class Card(Part):
    """A complete description of a mock sample; `provenance` maps each number's key to tag and source."""

    name: str
    beam: Beam
    target: Target
    run: RunCard
    mesons: dict[str, Meson]
    modes: dict[str, Mode]
    detector: DetectorCard
    efficiency: Efficiency
    background: Background
    priors: dict[str, Prior]
    lepton: Literal["mu", "e"] = "mu"
    charm: Charm | None = None
    pythia: PythiaCard | None = None
    spectrometer: Spectrometer | None = None
    radiation: bool = False
    provenance: dict[str, Provenance] = Field(default_factory=dict, repr=False)

    @model_validator(mode="after")
    def _mesons_exist(self) -> Card:
        for key, mode in self.modes.items():
            if mode.meson not in self.mesons:
                raise ValueError(f"modes.{key}.meson = {mode.meson!r} is none of {sorted(self.mesons)}")
        require(any(mode.enabled for mode in self.modes.values()), "modes: none is enabled", ValueError)
        return self

    @property
    def has_charm(self) -> bool:
        """Whether data-like samples hold open charm."""
        return self.charm is not None and self.charm.enabled

    @property
    def digest(self) -> str:
        """SHA-256 of all values (without their sources); optional parts that are not used do not count."""
        values = self.model_dump(mode="json", exclude={"provenance"})
        parts = [("", values), ("target", values["target"]), ("detector", values["detector"])]
        for section, part in (*parts, *(("mode", mode) for mode in values["modes"].values())):
            for key, default in OPTIONAL[section].items():
                if part[key] == default:
                    del part[key]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def placeholders(self) -> list[str]:
        """Return what stands in for a source, with the keys that rest on it."""
        groups: dict[str, list[str]] = {}
        for key, origin in sorted(self.provenance.items()):
            if origin.tag == "placeholder":
                groups.setdefault(origin.source, []).append(key)
        return [f"{', '.join(keys)}: {source}" for source, keys in groups.items()]

    def with_prior(self, name: str) -> Card:
        """Return the card under another prior: scaled p₀ and rapidity widths, other yields of the modes."""
        if name == "nominal":
            return self
        if name not in self.priors:
            raise SteeringError(f"prior {name!r} is not in the card: {['nominal', *sorted(self.priors)]}")
        prior = self.priors[name]
        mesons = {}
        for key, meson in self.mesons.items():
            shape = {"p0": meson.p0 * prior.p0, "y_width": meson.y_width * prior.y_width}
            mesons[key] = meson.model_copy(update=shape)
        update = {"name": f"{self.name} ({name})", "mesons": mesons}
        return self.scaled(prior.yields).model_copy(update=update)

    def scaled(self, factors: Mapping[str, float]) -> Card:
        """Return the card with the yields of modes times factors."""
        modes = {}
        for key, mode in self.modes.items():
            factor, photon = factors.get(key, 1.0), mode.branching_photon
            branching = {"branching": mode.branching * factor}
            branching |= {} if photon is None else {"branching_photon": photon * factor}
            modes[key] = mode.model_copy(update=branching)
        return self.model_copy(update={"modes": modes})


def _untag(node: Any, key: str, sources: Mapping[str, str], found: dict[str, Provenance], path: Path) -> Any:
    """Replace each {value, tag, source} by its value; record its provenance under its dotted key."""
    if isinstance(node, dict):
        if "value" in node:
            if set(node) != {"value", "tag", "source"}:
                raise SteeringError(
                    f"{path}: {key} has the keys {sorted(node)}; a number has exactly value, tag, source"
                )
            if not isinstance(node["tag"], str) or node["tag"] not in TAGS:
                raise SteeringError(f"{path}: {key}.tag = {node['tag']!r} is not one of {list(TAGS)}")
            if not isinstance(node["source"], str) or node["source"] not in sources:
                raise SteeringError(f"{path}: {key}.source = {node['source']!r}: not in {sorted(sources)}")
            found[key] = Provenance(node["tag"], sources[node["source"]])
            return node["value"]
        inner = ((name, f"{key}.{name}" if key else name, value) for name, value in node.items())
        return {name: _untag(value, at, sources, found, path) for name, at, value in inner}
    name = key.rpartition(".")[2]
    if isinstance(node, str) and name in FRACTIONS:
        try:
            value = branching(node)
        except PhysicsError as error:
            raise SteeringError(f"{path}: {key}: {error}") from error
        found[key] = Provenance("published", f"{EDITION}, {BRANCHING[node].source}: {node}")
        return value
    if isinstance(node, int | float) and not isinstance(node, bool) and name not in LABELS:
        given = f"{path}: {key} = {node!r} has no source"
        raise SteeringError(f"{given}; write {{value = …, tag = …, source = …}}")
    return node


def load_card(path: str | Path, *, leave_out: Sequence[str] = ()) -> Card:
    """Read and check a card.

    Parameters
    ----------
    path : str or Path
        TOML file; every number is a table ``{ value, tag, source }`` with the tag "published", "derived"
        or "placeholder" and a key of the section ``[sources]``. A branching fraction may be the name of a
        decay in `core.constants.BRANCHING`.
    leave_out : sequence of str
        Modes that are not made.

    Raises
    ------
    InputFileError
        If the file is missing or not TOML.
    SteeringError
        If a key is unknown, missing, out of range, or a number has no source; the message names the key. Also
        for modes to leave out that the card does not have, or if none is left.
    """
    try:
        raw = from_toml(Path(path))
        sources = sources_of(raw)
    except OSError as error:
        raise InputFileError(f"card {path}: cannot be read ({error.strerror}); give a TOML file") from error
    except ValueError as error:
        raise InputFileError(f"card {path}: not valid TOML: {error}") from error
    raw.pop("sources", None)
    provenance: dict[str, Provenance] = {}
    values = _untag(raw, "", sources, provenance, Path(path))
    try:
        card = Card(**values, provenance=provenance)
    except (ValidationError, TypeError) as error:
        raise SteeringError(f"card {path}: {_describe(error)}") from error
    unknown = sorted(set(leave_out) - set(card.modes))
    if unknown or (leave_out and set(card.modes) <= set(leave_out)):
        what = f"no mode {', '.join(unknown)}" if unknown else "no mode would be left"
        raise SteeringError(f"card {path}: {what}; the modes are {', '.join(card.modes)}")
    less = {key: card.modes[key].model_copy(update={"enabled": False}) for key in leave_out}
    return card.model_copy(update={"modes": card.modes | less}) if less else card


def _describe(error: ValidationError | TypeError) -> str:
    if isinstance(error, TypeError):
        return f"{error}"
    parts = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        reason = "unknown key" if item["type"] == "extra_forbidden" else item["msg"]
        parts.append(f"{key}: {reason}" if key else reason)
    return "; ".join(parts)
