"""Channels of the steering file: A' from η and ω Dalitz decays with the form factors that NA60 measured.

``measured_dalitz.py:eta`` and ``measured_dalitz.py:omega``. The rate is PARTIAL: `MISSING` names what else
makes A' of these masses. Multiplicities are measured, powers of A assumed, spectra of the mesons modelled:
``card.toml``.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from form_factors import DECAYS, SOURCE, FormFactor2, PoleFit, dimuon_fraction, fit_pole

from gammastar.core import constants
from gammastar.core.records import FloatArray
from gammastar.physics.mesons import Decay, Meson, MesonTable
from gammastar.predict.theory import MesonChannel

CARD = Path(__file__).with_name("card.toml")
MISSING = (
    *("rho, omega and phi to a lepton pair (mixing)", "proton bremsstrahlung", "eta' Dalitz decays"),
    *("eta Dalitz decays above 0.48 GeV", "rho -> pi0 A', omega -> eta A', phi -> eta A', phi -> pi0 A'"),
    *("Drell-Yan", "secondary cascades in the target"),
)
KINDS = {"eta": ("pseudoscalar_dalitz", None), "omega": ("vector_dalitz", 111)}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class MeasuredDalitz(MesonChannel):
    """One Dalitz decay with a measured form factor; zero outside the measured masses.

    Attributes
    ----------
    measured : FormFactor2
    fit : PoleFit
        Its pole, the alternative to the points.
    relative : dict of str to float
        Errors common to all masses: multiplicity, power of A, branching fraction, normalisation.
    text : str
        Sources and what is missing.
    """

    measured: FormFactor2
    fit: PoleFit
    relative: dict[str, float]
    text: str

    @property
    def group(self) -> str:
        """The decay, and that it is a part."""
        return f"{self.measured.meson} Dalitz, measured form factor (partial)"

    @property
    def processes(self) -> frozenset[str]:
        """The process that it is a part of, so that nothing is counted twice."""
        return frozenset({KINDS[self.measured.meson][0]})

    @property
    def decays(self) -> tuple[Decay, ...]:
        """The one decay."""
        return self.table.decays

    def describe(self) -> str:
        """Return sources, and what is missing."""
        return self.text

    def by_decay(self, mass: npt.ArrayLike) -> FloatArray:
        """Return the rate per interacting proton and ε², shape (1, n): the point-like one times |F|²."""
        m = np.atleast_1d(np.asarray(mass, dtype=np.float64))
        rows = MesonChannel.by_decay(self, m)
        return np.where(rows > 0, rows * self.measured.at(m), 0.0)

    def errors(self, mass: npt.ArrayLike) -> dict[str, FloatArray]:
        """Return the covariance of the rate at n masses by source, each of shape (n, n).

        "points": errors of |F|², independent from point to point. "points or pole": the step from the points
        to the fitted pole. "normalisation": the step from Kroll-Wada times |F|² to the measured branching
        fraction to μ⁺μ⁻.
        """
        m = np.atleast_1d(np.asarray(mass, dtype=np.float64))
        rate = self.by_decay(m)[0]
        found = {name: np.outer(rate, rate) * sigma**2 for name, sigma in self.relative.items()}
        found["points"] = np.outer(rate, rate) * self.measured.relative_cov(m)
        step = (
            np.where(rate > 0, self.fit.at(np.where(rate > 0, m, 0.0)) / self.measured.at(m) - 1, 0.0) * rate
        )
        found["points or pole"] = np.outer(step, step)
        return found

    def rate(self, mass: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return the rate per interacting proton and ε² with the covariance of all sources."""
        return self.by_decay(mass)[0], np.sum(list(self.errors(mass).values()), axis=0)


def _text(meson: str, nucleus: str) -> str:
    tables = b"".join([CARD.read_bytes(), Path(__file__).with_name("form_factors.py").read_bytes()])
    tables += FormFactor2.read(meson).value.tobytes() + FormFactor2.read(meson).error.tobytes()
    return (
        f"PARTIAL: {meson} Dalitz decays alone, per proton interacting in {nucleus}. Form factor: {SOURCE}, "
        "point by point. Multiplicity: NA27, pp at 400 GeV. Power of A: assumed. Spectra of the mesons: "
        f"modelled (Pythia 8.317, card {hashlib.sha256(tables).hexdigest()[:8]}). "
        f"Missing: {'; '.join(MISSING)}"
    )


def channel(meson: str, nucleus: str = "copper") -> MeasuredDalitz:
    """Return the channel of "eta" or "omega" for 400 GeV protons on a nucleus of the card."""
    card: dict[str, Any] = tomllib.loads(CARD.read_text())
    row, target = card["mesons"][meson], card["nuclei"][nucleus]
    per_nucleus = target["a"] ** row["alpha"] * card["sigma_pp"] / target["sigma"]
    relative = {
        "multiplicity": row["multiplicity_error"] / row["multiplicity"],
        "power of A": row["alpha_error"] * float(np.log(target["a"])),
    }
    made = Meson(
        row["pdg"],
        row["multiplicity"],
        per_nucleus,
        float(np.hypot(*relative.values())),
        row["p0"],
        row["n"],
        row["y_width"],
    )
    measured = FormFactor2.read(meson)
    fit, photons, kind = fit_pole(measured), measured.photons, KINDS[meson]
    relative["branching fraction"] = photons.error / photons.value
    dimuon = constants.BRANCHING[DECAYS[meson][1]].value
    relative["normalisation"] = abs(dimuon / dimuon_fraction(measured, fit).value - 1)
    decay = Decay(meson, kind[0], photons.value, "pointlike", kind[1])
    table = MesonTable(CARD.name, {meson: made}, (decay,))
    return MeasuredDalitz(
        table,
        card["beam_energy"],
        mass_range=measured.mass_range,
        measured=measured,
        fit=fit,
        relative=relative,
        text=_text(meson, nucleus),
    )


def eta() -> MeasuredDalitz:
    """Return η → γA′ on copper."""
    return channel("eta")


def omega() -> MeasuredDalitz:
    """Return ω → π⁰A′ on copper."""
    return channel("omega")


def partial_rate(mass: npt.ArrayLike, nucleus: str = "copper") -> tuple[FloatArray, FloatArray]:
    """Return the PARTIAL rate per interacting proton and ε², and its error, shapes (n,): η and ω together.

    The powers of A of both mesons move together, all else apart.
    """
    m = np.atleast_1d(np.asarray(mass, dtype=np.float64))
    parts = [channel(meson, nucleus) for meson in KINDS]
    rates = [part.by_decay(m)[0] for part in parts]
    power = sum(rate * part.relative["power of A"] for rate, part in zip(rates, parts, strict=True))
    variance = np.square(power)
    for part in parts:
        variance += sum(np.diag(cov) for name, cov in part.errors(m).items() if name != "power of A")
    return np.sum(rates, axis=0), np.sqrt(variance)
