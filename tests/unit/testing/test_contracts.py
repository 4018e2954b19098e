"""The contract tests accept what comes with the package and name each fault; the how-to pages run."""

from __future__ import annotations

import re
import runpy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from builders import ROOT

from gammastar import predict
from gammastar.core.constants import M_MU
from gammastar.core.files import data_path
from gammastar.core.records import Sample
from gammastar.core.resolve import resolve
from gammastar.core.sampling import Sampler
from gammastar.physics.detector import Magnet, Plane, Target, load_detector
from gammastar.physics.geometry import Box, Cone, Cylinder, Frustum, Geometry
from gammastar.physics.qed import RTable
from gammastar.physics.vectors import CHARGES
from gammastar.testing import ContractError, check_channel, check_geometry, check_model

HOWTO = ROOT / "docs" / "howto"
PAGES = ("detector", "model", "channel", "schema")


def faults(check, *args, **options) -> str:
    with pytest.raises(ContractError) as caught:
        check(*args, **options)
    return str(caught.value)


@pytest.mark.parametrize("page", PAGES)
def test_howto_pages_run(page, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```(toml|python)\n(.*?)```", (HOWTO / f"{page}.md").read_text(), re.DOTALL)
    for _, code in blocks:
        if name := re.match(r"# file: (\S+)\n", code):
            Path(name[1]).write_text(code, encoding="utf-8")
    script = tmp_path / "page.py"
    script.write_text("\n".join(code for language, code in blocks if language == "python"))
    assert f"check_{'geometry' if page == 'detector' else page}(" in script.read_text()
    runpy.run_path(str(script))
    printed = capsys.readouterr().out
    assert {"schema": "unit: the median momentum", "model": "sums to 0.8"}.get(page, "") in printed
    if page == "model":  # as the steering file names it
        check_model(resolve("mymodel.py:Leptophilic", tmp_path)())


def test_volumes_and_detectors_of_the_package_pass() -> None:
    for volume in (
        Cone(0.035, 0.12, 5.0, spherical=True),
        Cone(0.0, 0.3, 2.0, 8.0, apex=1.0),
        Frustum(33.5, 83.5, 0.645, 1.495, 2.145, 3.145),
        Box(10.0, 30.0, 1.25, 1.25, x=2.25, angle_x=0.06, angle_y=-0.02),
        Cylinder(np.inf, 5.0, 40.0),
        Cylinder(1.0, -2.0, 5.0),
    ):
        check_geometry(volume)
    for name in ("appendix_b", "na62_dump", "shadows_like", "ship_ecn3"):
        check_geometry(load_detector(data_path(f"detectors/{name}.toml")))


@dataclass(frozen=True)
class Broken(Geometry):
    """A slab from 5 to 9 m with one fault."""

    fault: str

    @property
    def is_bounded(self) -> bool:
        return True

    def _interval(self, origin, unit):
        return (5.0 - origin[:, 2]) / unit[:, 2], (9.0 - origin[:, 2]) / unit[:, 2]

    def chord(self, origin, direction):
        unit = direction / np.linalg.norm(direction, axis=1, keepdims=True)
        low, high = self._interval(origin, direction if self.fault == "length" else unit)
        if self.fault == "start":  # forgets where the line starts
            low, high = 5.0 / unit[:, 2], 9.0 / unit[:, 2]
        low = low if self.fault == "behind" else np.maximum(low, 0.0)
        high = np.full_like(high, np.inf) if self.fault == "open" else high
        low, high = (high, low) if self.fault == "order" else (low, high)
        chord = np.where(
            (low < high)[:, None] | (self.fault == "order"), np.stack([low, high], axis=1), np.nan
        )
        return {"shape": chord[:, 0], "miss": np.full_like(chord, np.nan)}.get(self.fault, chord)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("length", "length of the direction must not matter"),
        ("start", "changes with a start nearer to it"),
        ("behind", "a start inside must enter at 0"),
        ("open", "is_bounded is true, but a chord has no end"),
        ("order", "the entry must lie before the exit"),
        ("shape", r"shape (4000,) for 4000 lines"),
        ("miss", "none of 4000 lines from [0.0, 0.0, 0.0] m hits"),
    ],
)
def test_each_fault_of_a_volume_is_named(fault, message) -> None:
    check_geometry(Broken("none"))
    assert message in faults(check_geometry, Broken(fault))


def test_a_detector_whose_parts_stand_before_its_volume() -> None:
    """A volume of one's own does not say where it begins: lines tell, not its keys."""
    na62 = replace(load_detector(data_path("detectors/na62_dump.toml")), planes=(), magnet=None)
    mine = replace(na62, volume=Broken("none"), target=Target(63.55, 29, 19.6))
    check_geometry(mine)
    early = replace(mine, planes=(Plane("gigatracker", 4.0),))
    assert "plane 'gigatracker' at z = 4 m lies before the volume" in faults(check_geometry, early)
    assert "magnet at z = 3 m lies before" in faults(check_geometry, replace(mine, magnet=Magnet(3.0, 0.3)))
    late = replace(mine, target=Target(63.55, 29, 19.6, (0.0, 0.0, 300.0)))
    assert "none of 4000 lines" in faults(check_geometry, late)
    assert "derive it from" in faults(check_geometry, object())


def dark_photon() -> predict.DarkPhoton:
    return predict.DarkPhoton(RTable.read(data_path("measurements/r_ratio.csv")))


class Good(predict.Model):
    def ctau(self, mass, coupling):
        return dark_photon().ctau(mass, coupling)

    def branching(self, mass):
        return dark_photon().branching(mass)

    def rate_ratio(self, mass):
        return np.ones_like(mass)


class Silent(Good):
    rate_ratio = predict.Model.rate_ratio


class Negative(Good):
    def rate_ratio(self, mass):
        return np.asarray(mass) - 0.1


class One(Good):
    def rate_ratio(self, mass):  # noqa: ARG002
        return 1.0


class Normalised(Good):
    def rate_ratio(self, mass):
        return np.asarray(mass) / np.max(mass)


class Unnamed(Good):
    labels = ("m", "g")


class Quartic(Good):
    labels = predict.Labels(limits="recast")

    def ctau(self, mass, coupling):
        return super().ctau(mass, np.asarray(coupling) ** 2)


class Stable(Good):
    charge = 1e-3

    def ctau(self, mass, coupling):
        return np.full_like(super().ctau(mass, coupling), np.inf)

    def branching(self, mass):
        return {"ee": 0.0 * mass}


class Immortal(Good):
    def branching(self, mass):
        return dict.fromkeys(super().branching(mass), 0.0)


class Growing(Good):
    def ctau(self, mass, coupling):
        return 1e-24 / super().ctau(mass, coupling)


class Scalar(Good):
    def ctau(self, mass, coupling):
        return np.ravel(super().ctau(mass, coupling))[0]


class Open(Good):
    def branching(self, mass):
        return {"mumu": 0.5, "ee": 0.5 + 0 * mass}


class Changing(Good):
    def branching(self, mass):
        return {"ee": 1.0} if mass < 0.4 else {"mumu": 1.0}


class Lax(Good):
    def at(self, mass, coupling):
        return super().at(abs(mass), abs(coupling))


@pytest.mark.long
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Immortal, "branching: sums to 0 at 0.05 GeV, must be 1"),
        (Growing, "must not grow with the coupling"),
        (Scalar, r"ctau: shape () for couplings of shape (3,)"),
        (Open, "'mumu' is open at 0.05 GeV"),
        (Open, f"'mumu' is open at {2 * M_MU:g} GeV"),
        (Changing, "name the same final states at every mass"),
        (Lax, "a negative mass must raise"),
        (object, "derive it from gammastar.predict.Model"),
        (Silent, "rate_ratio(mass): say how many particles are made"),
        (Negative, "must be positive and finite"),
        (One, "rate_ratio: shape () for masses of shape (3,)"),
        (Normalised, "must not depend on the other masses"),
        (Unnamed, "must be a Labels"),
        (Quartic, "need ctau as 1/coupling²"),
    ],
)
def test_each_fault_of_a_model_is_named(model, message) -> None:
    assert message in faults(check_model, model())


def test_models_of_the_package_pass() -> None:
    check_model(dark_photon(), masses=(0.05, 0.2, 0.3, 0.9))
    check_model(Stable())
    for name in CHARGES:
        check_model(predict.VectorModel.named(name, dark_photon().r_table), masses=(0.05, 0.2, 0.6))


class Spectrum(Sampler):
    def sample(self, mass, rng):
        pt = rng.exponential(0.4, len(mass))
        return pt, np.sqrt(mass**2 + pt**2) + rng.exponential(20.0, len(mass))

    @property
    def mass_range(self):
        return 0.22, 1.1


def channel(kind=predict.VirtualPhoton):
    rates, cov = np.array([3e-3, 1e-3, 1e-4]), np.diag([1e-8, 1e-8, 1e-10])
    return kind(np.array([0.25, 0.45, 1.05]), rates, cov, Spectrum(), lambda m, pt, e: e < 50 + 0 * m * pt)


class Nameless(predict.VirtualPhoton):
    group, processes = "", ()


class Unnormalised(predict.VirtualPhoton):
    def produce(self, mass, *, n, rng):
        s = super().produce(mass, n=n, rng=rng)
        return Sample(s.p4, s.weight / mass, s.origin, s.in_domain)


class Global(predict.VirtualPhoton):
    def produce(self, mass, *, n, **_options):
        return super().produce(mass, n=n, rng=np.random.default_rng())


class Frozen(predict.VirtualPhoton):
    def produce(self, mass, *, n, **_options):
        return super().produce(mass, n=n, rng=np.random.default_rng(1))


class Heavier(predict.VirtualPhoton):
    def produce(self, mass, *, n, rng):
        s = super().produce(1.2 * mass, n=n, rng=rng)
        return Sample(s.p4, s.weight, s.origin, s.in_domain)


class Negative(predict.VirtualPhoton):
    def rate(self, mass):
        value, cov = super().rate(mass)
        return value, cov - 1e-6


def test_the_data_driven_channel_passes() -> None:
    check_channel(channel())


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Nameless, "group = '' must be a name"),
        (Nameless, "processes = () must be a frozenset"),
        (Unnormalised, "produce: weights sum to"),
        (Global, "the same random stream must give the same sample"),
        (Frozen, "another random stream must give another sample"),
        (Heavier, "off shell"),
        (Negative, "negative eigenvalue"),
    ],
)
def test_each_fault_of_a_channel_is_named(kind, message) -> None:
    assert message in faults(check_channel, channel(kind))


def test_energies_at_the_beam_are_named() -> None:
    assert "reach the beam, 50 GeV" in faults(check_channel, channel(), beam_energy=50.0)
