"""Dark photons per proton in the dump: proton bremsstrahlung and decays of light mesons, as samples."""

from __future__ import annotations

import csv
import functools
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import vector

from gammastar.core.constants import branching
from gammastar.core.constants import mass as mass_of
from gammastar.core.errors import SteeringError
from gammastar.core.files import data_path
from gammastar.core.records import FloatArray, Sample
from gammastar.physics.bremsstrahlung import preset
from gammastar.physics.mesons import Decay, dark_photon_branching
from gammastar.physics.polarisation import daughter
from gammastar.predict.theory import Bremsstrahlung

BEAM = 400.0  # GeV
PDG = {"pi0": 111, "pi_charged": 211, "eta": 221, "eta_prime": 331, "rho0": 113, "rho_charged": 213}
PDG |= {"omega": 223, "phi": 333}
HARDNESS = 1.2  # mesons are drawn as p^HARDNESS times their spectrum: hard ones make the accepted decays


def sample_of(p: FloatArray, weight: FloatArray) -> Sample:
    """Return four-momenta (4, n) and weights as a sample made at the target; nothing of it is measured."""
    p4 = vector.array({"px": p[0], "py": p[1], "pz": p[2], "E": p[3]})
    return Sample(p4, weight, np.zeros((len(weight), 3)), np.zeros(len(weight), dtype=np.bool_))


def bremsstrahlung(mass: float, n: int, rng: np.random.Generator, *, name: str = "na62") -> Sample:
    """Return dark photons per proton and ε² from proton bremsstrahlung."""
    return Bremsstrahlung(preset(name), BEAM, 1.0).produce(mass, n=n, rng=rng)


@dataclass(frozen=True)
class Mesons:
    """The card of meson decays with the table of spectra."""

    card: dict[str, Any]
    cells: dict[str, FloatArray]  # per species: p_low, p_high, pt_low, pt_high, number

    @classmethod
    @functools.cache
    def read(cls, multiplicity: str | None = None) -> Mesons:
        """Read card and spectra; `multiplicity` names a set of the card, "table" keeps the spectra."""
        card = tomllib.loads(data_path("cards/na62_mesons.toml").read_text())
        lines = data_path("measurements/na62_meson_spectra.csv").read_text().splitlines()
        rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
        names = ("p_low", "p_high", "pt_low", "pt_high", "number")
        cells = {
            species: np.array([[float(r[k]) for k in names] for r in rows if r["species"] == species])
            for species in dict.fromkeys(r["species"] for r in rows)
        }
        chosen = card["multiplicity"]["default"] if multiplicity is None else multiplicity
        if chosen != "table":
            if chosen not in card["multiplicity"]:
                msg = f"na62_mesons.toml: no set of multiplicities {chosen!r}"
                raise SteeringError(msg)
            wanted = card["multiplicity"][chosen]
            # the spectra leave out soft mesons, so the measured numbers scale the full ones
            cells = {
                species: np.column_stack([c[:, :4], c[:, 4] * wanted[species] / c[:, 4].sum()])
                for species, c in cells.items()
                if species in wanted
            }
        return cls(card, cells)

    def only(self, species: Sequence[str]) -> Mesons:
        """Return the card with some of its species."""
        return replace(self, cells={name: self.cells[name] for name in species})

    def modes(self, mass: float) -> list[tuple[str, float, float]]:
        """Return (species, mass of the partner, BR per ε²) of the open decays to a dark photon.

        Formulas of `gammastar.physics.mesons.dark_photon_branching`, without form factors.
        """
        ways = [
            Decay(species, "pseudoscalar_dalitz", branching(name))
            for species, name in self.card["two_photon"].items()
        ]
        for species, partners in self.card["radiative"].items():
            for light, name in partners.items():
                ways.append(Decay(species, "vector_dalitz", branching(name), daughter=PDG[light]))
        found = []
        for way in ways:
            parent = mass_of(PDG[way.parent])
            partner = 0.0 if way.daughter is None else mass_of(way.daughter)
            if way.parent in self.cells and mass + partner < parent:
                found.append((way.parent, partner, float(dark_photon_branching(way, parent, 0.0, mass))))
        return found

    def sample(self, mass: float, n: int, rng: np.random.Generator) -> Sample | None:
        """Return about n dark photons per proton and ε² from all open decays; None where there is none."""
        modes = self.modes(mass)
        share = np.array([br * (self.cells[s][:, 4] @ self.cells[s][:, 1] ** HARDNESS) for s, _, br in modes])
        if not modes:
            return None
        sizes = np.maximum((n * share / share.sum()).astype(int), 1)
        parts = [self._decays(mode, mass, size, rng) for mode, size in zip(modes, sizes, strict=True)]
        return sample_of(*(np.concatenate(column, axis=-1) for column in zip(*parts, strict=True)))

    def _decays(
        self, mode: tuple[str, float, float], mass: float, n: int, rng: np.random.Generator
    ) -> tuple[FloatArray, FloatArray]:
        species, partner, ratio = mode
        parent = mass_of(PDG[species])
        p_low, p_high, pt_low, pt_high, number = self.cells[species].T
        chance = number * p_high**HARDNESS
        chance /= chance.sum()
        cell = rng.choice(len(chance), size=n, p=chance)
        total = p_low[cell] * (p_high / p_low)[cell] ** rng.uniform(size=n)
        pt = np.sqrt(pt_low[cell] ** 2 + (pt_high**2 - pt_low**2)[cell] * rng.uniform(size=n))
        pt = np.minimum(pt, 0.999 * total)
        phi = rng.uniform(-np.pi, np.pi, n)
        p = np.stack([pt * np.cos(phi), pt * np.sin(phi), np.sqrt(total**2 - pt**2), np.hypot(total, parent)])
        angles = rng.uniform(-1, 1, n), rng.uniform(-np.pi, np.pi, n)
        dark = daughter(p, parent, mass, partner, *angles)
        return dark, ratio * (number / chance)[cell] / n
