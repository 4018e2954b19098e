"""Section ``[spectrum.table]``: a published table in place of a measured spectrum."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from gammastar.config.fields import Edges, Positive, PositiveRange, Section
from gammastar.core.errors import InputFileError, PortabilityError
from gammastar.core.files import data_path, is_file, is_folder, shipped

if TYPE_CHECKING:
    from gammastar.mock import Card
    from gammastar.read.published import MeasuredTable


SAME_BEAM = 0.01

Label = Annotated[str, Field(max_length=200)]


class PublishedSpectrum(Section):
    """A published mass spectrum that stands for [read] to [unfold].

    The keys from `content` to `edges` stand for what the table leaves open.
    """

    file: str
    """A HEPData record (its folder or ``submission.yaml``), YAML, CSV, YODA text, ROOT or UHI JSON beside the
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
    mass_unit: Annotated[str, Field(max_length=20)] = ""
    """Unit of the mass."""
    edges: Edges | None = None
    """Edges of the bins, for points, in the unit of the table."""
    mass: PositiveRange | None = None
    """Range of masses that is taken [GeV]."""
    scale: Positive = 1.0
    """Factor on the numbers."""
    scale_sigma: Annotated[float, Field(ge=0)] = 0.0
    """Error of the factor, relative."""
    correlated: tuple[Label, ...] = ()
    """Errors that move all bins together."""
    uncorrelated: tuple[Label, ...] = ()
    """Errors of each bin alone; by default those that begin with stat, uncor, error or total."""
    error: Positive | Literal["poisson"] | None = None
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
    factor = {
        "counts": 1.0 if exposed.pot == "simulation" else 1.0 / exposed.pot,
        "per_interaction": -math.expm1(-exposed.thickness),
        "per_pot": 1.0,
    }[section.quantity]
    told = {name: getattr(section, name) for name in Conventions.__dataclass_fields__ if name != "scale"}
    conventions = Conventions(**told, scale=section.scale * factor)
    found = published_spectrum(table, column, conventions, quantity="per_pot")
    highest = float(found.spectrum.hist.axes[0].edges[-1])
    notes = check_beam(table, exposed.beam_energy, highest, column)
    return replace(found, notes=(*found.notes, *notes))
