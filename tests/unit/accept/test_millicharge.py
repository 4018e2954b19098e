"""Detection of millicharged particles: recoils, coincidences, the power of Q, bad files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import vector
from scipy.integrate import quad

from gammastar import accept
from gammastar.core.constants import ALPHA, GEV2_MB, M_E, M_MU
from gammastar.core.errors import InputFileError, PhysicsError, PortabilityError, SteeringError
from gammastar.core.files import data_path
from gammastar.core.records import Exposure, Sample
from gammastar.physics.millicharge import (
    Hits,
    Recoil,
    Scintillator,
    largest_recoil,
    load_millicharge_detector,
    recoil_cross_section,
)

NAMES = ("mcp_bars", "mcp_tpc", "mcp_skipper")


def _detector(name: str):
    return load_millicharge_detector(data_path(f"detectors/{name}.toml"))


def _beam(n: int, energy: float, m_chi: float, spread: float = 0.0) -> Sample:
    rng = np.random.default_rng(1)
    e = energy * rng.uniform(0.5, 1.5, n)
    px, py = spread * rng.normal(size=(2, n))
    pz = np.sqrt(e**2 - m_chi**2 - px**2 - py**2)
    p4 = vector.array({"px": px, "py": py, "pz": pz, "E": e})
    return Sample(p4, np.full(n, 2e-5 / n), np.zeros((n, 3)), e < energy)


def test_recoils_against_the_knock_on_formula() -> None:
    m, e, low = M_MU, 3.0, 1e-3
    p2 = e**2 - m**2
    top = 2 * M_E * p2 / (m**2 + 2 * e * M_E + M_E**2)
    beta2 = p2 / e**2

    def density(t: float) -> float:
        return 2 * np.pi * ALPHA**2 / (M_E * beta2 * t**2) * (1 - beta2 * t / top + t**2 / (2 * e**2))

    expected = quad(density, low, top, epsrel=1e-10)[0] * GEV2_MB
    assert recoil_cross_section(e, m, low) == pytest.approx(expected, rel=1e-8)
    fast = 2 * np.pi * ALPHA**2 / (M_E * 1e-4) * GEV2_MB
    assert recoil_cross_section(1e4, 1e-3, 1e-4) == pytest.approx(fast, rel=1e-2)
    assert recoil_cross_section(0.2, 0.1999, 1e-3) == 0.0


def _by_boosts(energy: float, m: float) -> float:
    """Return the largest recoil from the head-on collision, by two boosts instead of the closed formula."""
    p = np.sqrt(energy**2 - m**2)
    beta = p / (energy + M_E)  # of the centre of mass
    gamma = 1 / np.sqrt(1 - beta**2)
    electron, momentum = gamma * M_E, -gamma * beta * M_E  # at rest, seen from the centre of mass
    return float(gamma * (electron + beta * -momentum) - M_E)  # turned round, seen from the laboratory


@pytest.mark.parametrize(("energy", "m"), [(3.0, M_MU), (0.3, 0.1), (50.0, 1e-3), (0.2, 0.15)])
def test_the_largest_recoil_is_that_of_a_head_on_collision(energy: float, m: float) -> None:
    largest = _by_boosts(energy, m)
    assert largest_recoil(energy, m) == pytest.approx(largest, rel=1e-9)
    recoil = [Recoil("recoil", 1e24, t, 1) for t in (0.999 * largest, 1.001 * largest)]
    below, above = (r.probability(np.array([energy]), m, np.array([0.1]))[0, 0] for r in recoil)
    assert below > 0
    assert above == 0.0


def test_recoils_in_a_window_add_up() -> None:
    """An upper threshold of the search, against the integral of the formula and against the whole."""
    m, e, low, high = 0.05, 2.0, 1e-3, 8e-3
    top = _by_boosts(e, m)
    beta2 = 1 - m**2 / e**2

    def density(t: float) -> float:
        return 2 * np.pi * ALPHA**2 / (M_E * beta2 * t**2) * (1 - beta2 * t / top + t**2 / (2 * e**2))

    window = recoil_cross_section(e, m, low, high)
    assert window == pytest.approx(quad(density, low, high, epsrel=1e-11)[0] * GEV2_MB, rel=1e-8)
    assert window + recoil_cross_section(e, m, high) == pytest.approx(
        recoil_cross_section(e, m, low), rel=1e-9
    )
    assert recoil_cross_section(e, m, low, 10 * top) == recoil_cross_section(e, m, low)
    mean = 1e24 * 1e-27 * float(window) * 0.3**2
    seen = Recoil("recoil", 1e24, low, 1, high).probability(np.array([e]), m, np.array([0.3]))
    assert seen[0, 0] == pytest.approx(-np.expm1(-mean), rel=1e-9)
    for bad in (low, 0.5 * low, float("nan"), float("inf")):
        with pytest.raises(PhysicsError, match="t_max"):
            Recoil("recoil", 1e24, low, 1, bad)
    with pytest.raises(PhysicsError, match="below its mass"):
        recoil_cross_section(0.01, 0.05, low)


@pytest.mark.parametrize("name", NAMES)
def test_signal_goes_as_its_declared_power_at_two_points(name: str) -> None:
    detector, m_chi = _detector(name), 0.05
    sample = _beam(2000, 50.0, m_chi)
    for charge in (1e-5, 1e-4):
        found = accept.millicharge_yields(sample, m_chi, [charge, 1.01 * charge], detector)
        exponent = np.diff(np.log(found.signal)) / np.diff(np.log(found.couplings))
        assert exponent[0] == pytest.approx(detector.exponent, rel=0.02)
    assert detector.exponent == {"mcp_bars": 10, "mcp_tpc": 6, "mcp_skipper": 4}[name]


def test_a_saturated_detector_counts_what_crosses_it() -> None:
    detector = _detector("mcp_bars")
    found = accept.millicharge_yields(_beam(1000, 50.0, 0.05), 0.05, [0.1], detector)
    assert found.signal[0] == pytest.approx(1e20 * 0.1**2 * 2e-5, rel=1e-12)
    assert 0 < found.in_domain_fraction[0] < 1


def test_coincidence_is_the_product_of_layers() -> None:
    energy, charge = np.array([10.0]), np.array([1e-3])
    one = Scintillator("scintillator", 1, 1e6).probability(energy, 0.1, charge)
    four = Scintillator("scintillator", 4, 1e6).probability(energy, 0.1, charge)
    assert one[0, 0] == pytest.approx(1 - np.exp(-1.0))
    assert four == pytest.approx(one**4)
    two = Scintillator("scintillator", 1, 1e6, threshold=2).probability(energy, 0.1, charge)
    assert two[0, 0] == pytest.approx(1 - 2 * np.exp(-1.0))
    hits = Hits("hits", 1e6, 2).probability(energy, 0.1, charge)
    assert hits == pytest.approx(two)


def test_two_recoils_are_poisson() -> None:
    recoil = Recoil("recoil", 3.4e25, 3e-4, 2)
    energy = np.array([20.0])
    mean = 3.4e25 * 1e-27 * recoil_cross_section(energy, 0.1, 3e-4)[0] * 0.01**2
    found = recoil.probability(energy, 0.1, np.array([0.01]))[0, 0]
    assert found == pytest.approx(1 - np.exp(-mean) * (1 + mean), rel=1e-6)


def test_front_selects_straight_lines() -> None:
    detector = _detector("mcp_bars")
    sample = _beam(200_000, 50.0, 0.05, spread=0.5)
    found = accept.millicharge_yields(sample, 0.05, [0.1], detector)
    x, y = 100 * sample.p4.px / sample.p4.pz, 100 * sample.p4.py / sample.p4.pz
    inside = (abs(x) < 0.5) & (abs(y) < 0.5)
    assert found.signal[0] == pytest.approx(1e18 * sample.weight[inside].sum(), rel=1e-9)
    assert found.mc_error[0] == pytest.approx(found.signal[0] / np.sqrt(inside.sum()), rel=0.2)
    off = replace(detector, front=replace(detector.front, x=3.0))
    assert accept.millicharge_yields(sample, 0.05, [0.1], off).signal[0] < found.signal[0]


def test_a_measured_spectrum_keeps_its_beam() -> None:
    detector, sample = _detector("mcp_bars"), _beam(100, 50.0, 0.05)
    measured = accept.Measured(Exposure(400.0, 207.2, 82, 0.01, 1e13), "per_interaction")
    thick = accept.millicharge_yields(sample, 0.05, [0.1], detector, measured=measured)
    own = accept.millicharge_yields(sample, 0.05, [0.1], detector)
    assert thick.signal[0] / own.signal[0] == pytest.approx(100.5, rel=1e-3)
    elsewhere = replace(detector, beam_energy=120.0)
    with pytest.raises(PortabilityError, match="120 GeV"):
        accept.millicharge_yields(sample, 0.05, [0.1], elsewhere, measured=measured)


@pytest.mark.parametrize("name", NAMES)
def test_shipped_detectors_are_marked_illustrative(name: str) -> None:
    detector = _detector(name)
    assert detector.illustrative
    assert "illustrative" in detector.name


def test_bad_input_is_named(tmp_path) -> None:
    path = tmp_path / "detector.toml"
    with pytest.raises(InputFileError, match=r"detector\.toml"):
        load_millicharge_detector(path)
    text = data_path("detectors/mcp_bars.toml").read_text()
    path.write_text(text.replace("layers = 4", "layers = 0"))
    with pytest.raises(SteeringError, match="layers"):
        load_millicharge_detector(path)
    path.write_text(text.replace('pot = "illustrative"\n', ""))
    with pytest.raises(SteeringError, match="no source for"):
        load_millicharge_detector(path)
    path.write_text(text.replace("half_x = 0.5", "half_z = 0.5"))
    with pytest.raises(SteeringError, match="front"):
        load_millicharge_detector(path)
    path.write_text(text.replace("z = 100.0 # m", "z = -1.0"))
    with pytest.raises(SteeringError, match="behind the target"):
        load_millicharge_detector(path)
    with pytest.raises(PhysicsError, match="charges"):
        accept.millicharge_yields(_beam(10, 50.0, 0.05), 0.05, [2.0], _detector("mcp_bars"))
    with pytest.raises(PhysicsError, match="t_min"):
        recoil_cross_section(1.0, 0.1, 0.0)
