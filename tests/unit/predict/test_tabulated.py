"""Tables of FORESEE as a production channel; files made from formulas by numpy alone."""

from __future__ import annotations

import numpy as np
import pytest

from gammastar.core.errors import InputFileError, PhysicsError, SteeringError
from gammastar.predict import check_exclusive
from gammastar.predict.channel import unit_of
from gammastar.predict.models import TheoryOptions, theory_channel
from gammastar.predict.theory import ForeseeSpectra
from gammastar.testing import check_channel

THETA = np.arange(-4.975, 0, 0.05)
P = np.arange(0.025, 3, 0.05)


def spectrum(folder, mode, generator, mass, total):
    """Write one file of ``model/LLP_spectra``: three rows, as `convert_to_hist_list` saves them."""
    theta, p = (axis.ravel() for axis in np.meshgrid(THETA, P, indexing="ij"))
    weight = np.exp(-((theta + p + 0.5) ** 2) - 0.3 * (p - 1.5) ** 2)
    folder.mkdir(exist_ok=True)
    np.save(folder / f"0.4TeV_{mode}_{generator}_m_{mass}.npy", [theta, p, total * weight / weight.sum()])


@pytest.fixture
def spectra(tmp_path):
    for mass, factor in ((0.2, 1.0), (0.3, 0.5)):
        spectrum(tmp_path, "221", "EPOSLHC", mass, 4e9 * factor)
        spectrum(tmp_path, "221", "SIBYLL", mass, 6e9 * factor)
        spectrum(tmp_path, "Brem_QRA", "p.pt<1", mass, 1e9)
    spectrum(tmp_path, "111", "EPOSLHC", 0.2, 2e9)  # closed at 0.3 GeV, where FORESEE writes no file
    return tmp_path


def test_cross_sections_of_foresee_are_summed_and_averaged(spectra):
    channel = ForeseeSpectra.read(spectra)
    rate, cov = channel.rate([0.2, 0.25, 0.3, 0.5])
    np.testing.assert_allclose(rate, [8e9, 5.75e9, 3.5e9, 0.0], rtol=1e-12)
    half = np.array([1e9, 0.75e9, 0.5e9, 0.0])  # of the range of the two generators
    np.testing.assert_allclose(cov, np.outer(half, half), rtol=1e-9)
    assert channel.processes == {"pseudoscalar_dalitz", "pion_dalitz", "bremsstrahlung"}
    assert (channel.unit, ForeseeSpectra.read(spectra, sigma_inelastic=40.0).unit) == ("pb", "proton")
    per = ForeseeSpectra.read(spectra, sigma_inelastic=40.0).rate([0.2])[0]
    np.testing.assert_allclose(per, 8e9 / 40e9)
    check_channel(channel, masses=(0.2, 0.26, 0.3))


def test_angles_and_momenta_are_those_of_the_file(spectra):
    sample = ForeseeSpectra.read(spectra).produce(0.25, n=100_000, rng=np.random.default_rng(1))
    theta, p, weight = np.load(spectra / "0.4TeV_221_EPOSLHC_m_0.2.npy")
    for values, column in ((np.log10(sample.p4.theta), theta), (np.log10(sample.p4.p), p)):
        wanted = np.average(column, weights=weight)
        assert values.mean() == pytest.approx(wanted, abs=0.02)
    np.testing.assert_allclose(sample.p4.mass, 0.25, rtol=1e-2)


def test_a_mode_that_lacks_a_mass_is_an_error_not_a_zero(spectra):
    spectrum(spectra, "Brem_QRA", "p.pt<1", 0.4, 1e9)
    spectrum(spectra, "333", "EPOSLHC", 0.2, 1.0)
    spectrum(spectra, "333", "EPOSLHC", 0.4, 1.0)
    with pytest.raises(InputFileError, match=r"'333' has no spectrum at 0.3"):
        ForeseeSpectra.read(spectra)


def test_other_cells_and_single_masses_are_refused(tmp_path):
    spectrum(tmp_path, "221", "A", 0.2, 1.0)
    with pytest.raises(InputFileError, match="two masses"):
        ForeseeSpectra.read(tmp_path)
    np.save(tmp_path / "0.4TeV_221_A_m_0.3.npy", [[-3, -2.95], [1.0, 1.05], [1.0, 1.0]])
    with pytest.raises(InputFileError, match="other cells"):
        ForeseeSpectra.read(tmp_path)
    spectrum(tmp_path, "221", "A", 0.3, 1.0)
    channel = ForeseeSpectra.read(tmp_path)
    with pytest.raises(PhysicsError, match="outside the tables"):
        channel.produce(0.5, n=10, rng=np.random.default_rng(1))


def options(base, sigma=None):
    return TheoryOptions("qra_v2", None, lambda: base, base, sigma)


def test_channels_by_their_names(spectra):
    found = [theory_channel(f"foresee:{spectra.name}", options(spectra.parent), 400.0)]
    found += [theory_channel("bremsstrahlung", options(spectra.parent), 400.0)]
    assert [channel.group for channel in found] == ["foresee_spectra", "bremsstrahlung"]
    with pytest.raises(PhysicsError, match="both contain"):
        check_exclusive(found)
    with pytest.raises(PhysicsError, match="sigma_inelastic"):
        unit_of(found)
    with pytest.raises(SteeringError, match="foresee:FOLDER"):
        theory_channel("foressee", options(spectra), 400.0)
    with pytest.raises(InputFileError, match="two masses"):
        theory_channel("foresee:nowhere", options(spectra), 400.0)
