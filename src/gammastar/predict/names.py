"""Models and theory channels by the names that a steering file gives them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from gammastar.core.errors import SteeringError
from gammastar.core.files import Pathlike, data_path
from gammastar.core.resolve import UserCode, resolve
from gammastar.physics import bremsstrahlung
from gammastar.physics.mesons import MesonTable
from gammastar.physics.qed import RTable
from gammastar.physics.vectors import CHARGES
from gammastar.predict.channel import Channel
from gammastar.predict.channels import tabulated, theory
from gammastar.predict.models import DarkPhoton, Labels, Model, VectorModel

MESONS: dict[str, type[theory.MesonChannel]] = {
    "pion_dalitz": theory.PionDalitz,
    "pseudoscalar_dalitz": theory.PseudoscalarDalitz,
    "vector_dalitz": theory.VectorDalitz,
    "vector_mesons": theory.VectorMixing,
    "jpsi": theory.JPsi,
}


@cache
def r_table() -> RTable:
    """Return the shipped table of R."""
    return RTable.read(data_path("measurements/r_ratio.csv"))


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
        "foresee:FOLDER" or "eventcalc:FOLDER/NAME" for tables of these tools.
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
    brought = tabulated.tabulated_channel(name, options.base, options.sigma_inelastic)
    if brought is not None:
        return brought
    if ":" not in name:
        known = ", ".join(("bremsstrahlung", *MESONS, "foresee:FOLDER", "eventcalc:FOLDER/NAME"))
        raise SteeringError(f"predict.channels: {name!r}: none of {known} nor 'file.py:attribute'")
    channel: Channel = _of_user(Channel, f"predict.channels: {name!r}", name, options.where)
    named = isinstance(getattr(channel, "group", None), str), getattr(channel, "processes", None)
    if not (named[0] and isinstance(named[1], frozenset) and named[1]):
        raise SteeringError(
            f"predict.channels: {name!r} needs group, a name, and processes, a frozenset of names: they keep "
            "channels from counting a process twice"
        )
    return channel
