"""The bremsstrahlung kernel: published integrals, presets, sampling, and traps of other codes."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import dblquad

from gammastar import predict
from gammastar.core.constants import ALPHA, M_PROTON
from gammastar.core.errors import InputFileError, PhysicsError
from gammastar.physics import bremsstrahlung
from gammastar.physics.bremsstrahlung import PRESETS, band, cross_section_nsd, cross_section_total, preset
from gammastar.physics.hadrons import FORM_FACTORS, TabulatedFormFactor, form_factor

BEAM = 400.0
MASSES = np.array([0.1, 0.3, 0.5, 0.7, 0.782, 0.9, 1.1])
POINTLIKE = FORM_FACTORS["pointlike"]


@pytest.mark.parametrize(
    ("off_shell", "expected"),
    [
        (0.75, [8.71e-4, 2.22e-4, 5.83e-5, 2.21e-5, 1.59e-5, 1.04e-5, 5.56e-6]),
        (1.5, [3.857e-3, 2.496e-3, 1.328e-3, 7.215e-4, 5.742e-4, 4.225e-4, 2.637e-4]),
        (3.0, [8.25e-3, 6.77e-3, 5.13e-3, 3.79e-3, 3.33e-3, 2.77e-3, 2.04e-3]),
    ],
)
def test_integrals_of_the_dirac_part(off_shell: float, expected: list[float]) -> None:
    kernel = replace(preset("qra_v2"), form_factor=POINTLIKE, off_shell=off_shell)
    np.testing.assert_allclose(kernel.rate(MASSES, BEAM), expected, rtol=5e-3)


def test_integrals_of_the_other_conventions() -> None:
    with_form = [3.98e-3, 3.81e-3, 5.18e-3, 2.70e-2, 4.96, 1.285e-2, 2.40e-3]
    np.testing.assert_allclose(preset("qra_v2").rate(MASSES, BEAM), with_form, rtol=5e-3)
    v1 = replace(preset("qra_v1"), form_factor=POINTLIKE)
    expected = [5.77e-2, 5.49e-3, 1.65e-3, 7.09e-4, 5.32e-4, 3.68e-4, 2.14e-4]
    np.testing.assert_allclose(v1.rate(MASSES, BEAM), expected, rtol=5e-3)
    na62 = preset("na62").rate(np.array([0.05, 0.1, 0.3, 0.5, 0.6, 1.0]), BEAM)
    np.testing.assert_allclose(na62, [7.772e-3, 7.655e-3, 6.332e-3, 4.945e-3, 4.369e-3, 2.747e-3], rtol=1e-3)


def test_the_window_is_part_of_the_result() -> None:
    """Two windows in use differ by 1.7 at 0.1 GeV and by 3.2 at 1 GeV."""
    wide = replace(preset("fairship"), form_factor=POINTLIKE).rate(np.array([0.1, 1.0]), BEAM)
    np.testing.assert_allclose(wide, [1.310e-2, 8.82e-3], rtol=3e-3)
    np.testing.assert_allclose(
        wide / preset("na62").rate(np.array([0.1, 1.0]), BEAM), [1.71, 3.21], rtol=5e-3
    )
    for kernel in PRESETS.values():
        text = kernel.describe()
        assert f"{kernel.z_range[0]:g} < z < {kernel.z_range[1]:g}" in text
        assert f"pT < {kernel.pt_max:g} GeV" in text
        assert kernel.form_factor.name in text
        assert f"s' {kernel.s_prime}" in text


def test_rate_agrees_with_adaptive_quadrature() -> None:
    kernel = preset("qra_v2")
    by_hand, _ = dblquad(
        lambda pt2, z: float(kernel.differential(z, pt2, 0.4, BEAM)), 0.1, 0.9, 0.0, 9.0, epsrel=1e-4
    )
    assert kernel.rate(0.4, BEAM) == pytest.approx(by_hand, rel=1e-3)


def test_fww_in_closed_form_over_pt() -> None:
    z, m, top = 0.4, 0.3, 1.0
    a, mp2, m2 = bremsstrahlung.virtuality(z, 0.0, m), M_PROTON**2, m**2
    both = 1 + (1 - z) ** 2
    closed = both / z * np.log1p(top / a) - 2 * z * (1 - z) * (2 * mp2 + m2) * top / (a * (top + a))
    last = 2 * z**2 * mp2**2 + both * mp2 * m2 + (1 - z) * m2**2
    closed += 2 * z * (1 - z) * last * top * (top + 2 * a) / (2 * a**2 * (top + a) ** 2)
    grid = np.linspace(0, top, 20_001)
    ours = np.trapezoid(bremsstrahlung.fww_splitting(z, grid, m), grid) * 2 * np.pi / ALPHA
    assert ours == pytest.approx(closed, rel=1e-6)
    assert bremsstrahlung.fww_splitting(0.5, 0.09, 0.3) == pytest.approx(6.01654e-3, rel=1e-5)


def test_cross_sections_at_400_gev() -> None:
    s = 2 * M_PROTON * BEAM
    assert cross_section_total(s) == pytest.approx(39.861, abs=2e-3)
    assert cross_section_nsd(s + 2 * M_PROTON**2) == pytest.approx(30.64, abs=0.01)


def test_form_factor_numbers_and_normalisation() -> None:
    f1, f2 = form_factor("vmd")(np.array([0.0, 0.3, 0.5, 0.7, 0.782, 0.9, 1.1]))
    np.testing.assert_allclose(np.abs(f1), [0.992, 1.235, 1.976, 6.12, 92.9, 5.52, 3.02], rtol=1e-3)
    assert not f2.any()
    degenerate, _ = form_factor("vmd-degenerate")(np.array([0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]))
    np.testing.assert_allclose(np.abs(degenerate) ** 2, [1.03, 1.07, 1.23, 1.57, 2.30, 4.06, 9.72], rtol=5e-3)
    dipole, _ = form_factor("dipole")(np.array([0.5, 1.0]))
    np.testing.assert_allclose(np.abs(dipole) ** 2, [1.0, (1 / 0.71) ** -4])
    with pytest.raises(PhysicsError, match="not known"):
        form_factor("monopole")


def test_the_isovector_and_isoscalar_parts_add_with_their_phase() -> None:
    """Adding moduli overshoots: the parts of the rho and the omega differ in phase off the peak."""
    vmd = FORM_FACTORS["vmd"]
    parts = [
        replace(vmd, couplings=vmd.couplings[k], masses=vmd.masses[k], widths=vmd.widths[k])
        for k in (slice(0, 3), slice(3, 6))
    ]
    mass = np.linspace(0.3, 1.5, 241)
    moduli = sum(np.abs(part(mass)[0]) for part in parts)
    coherent = np.abs(vmd(mass)[0])
    assert (moduli >= coherent - 1e-12).all()
    ratio = (moduli / coherent) ** 2
    assert ratio[np.argmin(abs(mass - 0.75))] > 1.05
    assert ratio[-1] > 3


def test_other_definitions_of_s_prime_and_proton_mass_would_be_seen() -> None:
    """s' of (M + E)²(1 − z) for 2 m_p (E − E_A'), and m_p replaced by the mass of the dark photon."""
    m = 0.3
    z, pt2 = np.meshgrid(np.linspace(0.1, 0.9, 81), np.linspace(1e-4, 1, 200), indexing="ij")

    def integrate(f: np.ndarray) -> float:
        return float(np.trapezoid(np.trapezoid(f, pt2[0], axis=1), z[:, 0]))

    good = integrate(preset("na62").differential(z, pt2, m, BEAM))
    bad = integrate(
        bremsstrahlung.fww_splitting(z, pt2, m)
        * cross_section_total((m + BEAM) ** 2 * (1 - z))
        / cross_section_total(2 * M_PROTON * BEAM)
    )
    assert bad / good == pytest.approx(1.44, rel=0.02)
    h = pt2 + z**2 * m**2 + (1 - z) * m**2
    both = 1 + (1 - z) ** 2
    wrong = both / z - 2 * z * (1 - z) * (3 * m**2 / h - 2 * z**2 * m**4 / h**2)
    wrong = (wrong + 2 * z * (1 - z) * (both + 1 - z) * m**4 / h**2) / h
    right = bremsstrahlung.fww_splitting(z, pt2, m) * 2 * np.pi / ALPHA
    assert integrate(wrong) / integrate(right) == pytest.approx(1.45, rel=0.02)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_samples_carry_the_rate_and_the_shape(name: str) -> None:
    kernel, m, n = preset(name), 0.5, 100_000
    energy, pt, weight = kernel.sample(m, BEAM, n, np.random.default_rng(1))
    z = np.sqrt(energy**2 - pt**2 - m**2) / BEAM
    error = np.sqrt((weight**2).sum() - weight.sum() ** 2 / n)
    assert abs(weight.sum() - kernel.rate(m, BEAM)) < 4 * error
    # Mean z and pT by quadrature on a grid.
    nodes, w = np.polynomial.legendre.leggauss(60)
    low, high = kernel.z_range
    grid_z = 0.5 * (low + high) + 0.5 * (high - low) * nodes
    grid_pt = 0.5 * kernel.pt_max * (nodes + 1)
    density = kernel.differential(grid_z[:, None], grid_pt**2, m, BEAM) * 2 * grid_pt * np.outer(w, w)
    assert np.average(z, weights=weight) == pytest.approx(
        (density.sum(axis=1) @ grid_z) / density.sum(), rel=0.01
    )
    assert np.average(pt, weights=weight) == pytest.approx(
        (density.sum(axis=0) @ grid_pt) / density.sum(), rel=0.01
    )
    assert (energy < BEAM).all()
    assert (pt <= kernel.pt_max).all()


def test_band_of_lambda() -> None:
    low, high = band(preset("qra_v2"))
    assert (low.off_shell, high.off_shell) == (0.75, 3.0)
    rates = [kernel.rate(0.5, BEAM) for kernel in (low, preset("qra_v2"), high)]
    assert rates[0] < rates[1] < rates[2]
    with pytest.raises(PhysicsError, match="no off-shell"):
        band(preset("na62"))


def test_pauli_term_of_a_table(tmp_path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(
        "# point-like, with the anomalous moment\nmass_GeV,re_f1,im_f1,re_f2,im_f2\n"
        "0,1,0,1.793,0\n2,1,0,1.793,0\n"
    )
    table = TabulatedFormFactor.read(path)
    kernel = replace(preset("qra_v2"), form_factor=table)
    z, pt2, m = 0.4, 0.2, 0.5
    plain = replace(preset("qra_v2"), form_factor=POINTLIKE).differential(z, pt2, m, BEAM)
    shape = bremsstrahlung.dirac_splitting(z, pt2, m)
    full = (
        shape
        + 1.793**2 * bremsstrahlung.pauli_splitting(z, pt2, m)
        + 1.793 * bremsstrahlung.interference_splitting(z, pt2, m)
    )
    assert kernel.differential(z, pt2, m, BEAM) == pytest.approx(float(plain * full / shape), rel=1e-12)
    with pytest.raises(PhysicsError, match="tabulated from"):
        kernel.rate(2.5, BEAM)
    path.write_text(
        "# sqrt(t) F1p F2p\n 0.30 (1.28597521+0.00294020j) (2.68006848+0.19418609j)\n"
        " 0.77 (56.50808951+-24.35778978j)   (-2.85677971+21.43441272j)\n"
    )
    f1, f2 = TabulatedFormFactor.read(path)(np.array([0.3, 0.77]))
    np.testing.assert_allclose(np.abs(f1), [1.286, 61.5], rtol=1e-3)
    assert f2[1] == -2.85677971 + 21.43441272j
    assert f1[1].imag < 0
    path.write_text("0.3 (1+0j) (2+0j)\n0.4 (1+0j)\n")
    with pytest.raises(InputFileError, match="three columns"):
        TabulatedFormFactor.read(path)
    path.write_text("mass,f1\n1,1\n")
    with pytest.raises(InputFileError, match="columns"):
        TabulatedFormFactor.read(path)
    with pytest.raises(InputFileError, match="cannot be read"):
        TabulatedFormFactor.read(tmp_path / "none.csv")


def test_bad_input_is_named() -> None:
    with pytest.raises(PhysicsError, match="window"):
        replace(preset("na62"), z_range=(0.0, 0.9))
    with pytest.raises(PhysicsError, match="positive"):
        preset("na62").rate(-0.1, BEAM)
    with pytest.raises(PhysicsError, match="not known"):
        preset("bdnmc")
    with pytest.raises(PhysicsError, match="0 particles"):
        preset("na62").sample(0.1, BEAM, 0, np.random.default_rng(1))


def _off_shell(z, mass, p=3e3):
    """Return (M² − m_p²)/2 of a proton and A' that share a momentum, from four-vectors."""
    both = np.hypot(z * p, mass) + np.hypot((1 - z) * p, M_PROTON)
    return float((both**2 - p**2 - M_PROTON**2) / 2)


@pytest.mark.parametrize(("mass", "beam"), [(5.0, 5.0), (28.0, 400.0), (1.5, 5.0), (9.8, 70.0)])
@pytest.mark.parametrize("name", ["qra_v2", "na62", "fairship"])
def test_what_cannot_be_made_is_refused(name, mass, beam):
    # p p → p p A' with everything at rest in the centre of mass
    root_s = np.sqrt((beam + M_PROTON) ** 2 - (beam**2 - M_PROTON**2))
    assert mass > root_s - 2 * M_PROTON
    kernel, said = preset(name), f"open below √s − 2 m_p = {root_s - 2 * M_PROTON:.3g} GeV"
    rng = np.random.default_rng(1)
    for ask in (
        lambda: kernel.rate(mass, beam),
        lambda: kernel.rate([0.1, mass], beam),
        lambda: kernel.sample(mass, beam, 5, rng),
        lambda: kernel.differential(0.5, 0.1, mass, beam),
        lambda: predict.Bremsstrahlung(kernel, beam).produce(mass, n=5, rng=rng),
    ):
        with pytest.raises(PhysicsError, match=re.escape(said)):
            ask()


@pytest.mark.parametrize(
    ("beam", "works", "fails"), [(400.0, 4.4, 4.6), (70.0, 1.8, 1.95), (120.0, 2.4, 2.5)]
)
def test_the_approximation_has_a_limit(beam, works, fails):
    """The target takes (M² − m_p²)/2E, which must stay below 0.25 GeV at both ends of the window."""
    kernel = preset("na62")
    for mass, good in ((works, True), (fails, False)):
        taken = max(_off_shell(z, mass) for z in kernel.z_range) / beam
        assert (taken < 0.25) is good
    assert kernel.rate(works, beam) > 0
    with pytest.raises(PhysicsError, match=rf"holds up to {kernel.largest_mass(beam):.3g} GeV"):
        kernel.rate(fails, beam)


def test_where_no_mass_is_good_the_window_may_be_narrowed():
    with pytest.raises(PhysicsError, match=r"holds for no mass .* narrow z_range"):
        preset("na62").rate(0.1, 8.9)
    narrow = replace(preset("na62"), z_range=(0.2, 0.7))
    assert narrow.rate(0.1, 8.9) > 0
    for beam in (0.5, float("nan"), -400.0):
        with pytest.raises(PhysicsError, match="beam energy"):
            preset("na62").rate(0.1, beam)


def test_known_searches_go_on():
    for beam, mass in ((400.0, 3.0), (70.0, 1.2), (14000.0**2 / (2 * M_PROTON), 5.0)):
        assert np.isfinite(preset("qra_v2").rate(mass, beam))
