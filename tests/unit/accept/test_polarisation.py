"""The spin state of the virtual photons reaches the leptons of the dark photon, about the right axis."""

from __future__ import annotations

import numpy as np
import pytest
import vector

from gammastar import accept
from gammastar.accept.plane import spin_ends
from gammastar.core.constants import M_E, M_MU, M_PROTON
from gammastar.core.constants import mass as mass_of
from gammastar.core.errors import PhysicsError
from gammastar.core.files import data_path
from gammastar.core.records import Exposure
from gammastar.mock.cocktail import dalitz_decay
from gammastar.physics.bremsstrahlung import preset
from gammastar.physics.detector import load_detector
from gammastar.physics.mesons import MesonTable
from gammastar.physics.polarisation import (
    FRAMES,
    SpinDensities,
    SpinState,
    axis_cosine,
    daughter,
    lambda_theta,
)
from gammastar.physics.qed import RTable
from gammastar.predict import Bremsstrahlung, DarkPhoton, PionDalitz, PseudoscalarDalitz, VectorMixing

BEAM = 400.0
EXPOSURE = Exposure(BEAM, 63.55, 29, 19.6, 1e17)
TABLE = MesonTable.read(data_path("measurements/mesons_400gev.toml"))


def _as_array(p4):
    return np.stack([np.asarray(c, dtype=float) for c in (p4.px, p4.py, p4.pz, p4.E)])


def _as_vector(p):
    return vector.array({"px": p[0], "py": p[1], "pz": p[2], "E": p[3]})


def _yields(mass: float, *spins: SpinState) -> accept.AcceptedYield:
    detector = load_detector(data_path("detectors/na62_dump.toml"))
    sample = Bremsstrahlung(preset("na62"), BEAM).produce(mass, n=20_000, rng=np.random.default_rng(1))
    model = DarkPhoton(RTable.read(data_path("measurements/r_ratio.csv")))
    law = accept.Measured(EXPOSURE, "per_interaction", spins=spins)
    return accept.yields(sample, mass, [1e-6], model, detector, measured=law, rng=np.random.default_rng(2))


def test_two_transverse_states_and_a_longitudinal_one_make_the_average() -> None:
    for frame in FRAMES:
        found = _yields(0.3, SpinState(), SpinState(0.0, frame), SpinState(1.0, frame))
        transverse, longitudinal = found.spins[:, 0]
        assert found.signal[0] == pytest.approx((2 * transverse + longitudinal) / 3, rel=1e-9)
        assert abs(longitudinal / transverse - 1) > 0.02
        alone = _yields(0.3, SpinState(0.0, frame))
        assert alone.signal[0] == pytest.approx(transverse, rel=1e-12)
        assert alone.spins is None


@pytest.mark.parametrize("frame", FRAMES)
def test_axes_are_those_of_explicit_boosts(frame) -> None:
    sample = VectorMixing(TABLE, BEAM).produce(0.6, n=500, rng=np.random.default_rng(3))
    photon = _as_array(sample.p4)
    lepton, _ = accept.lepton_pair(photon, 0.6, M_MU, np.random.default_rng(4))
    p = _as_vector(photon)
    pz = np.sqrt(BEAM**2 - M_PROTON**2)
    beam = vector.array({"px": [0.0], "py": [0.0], "pz": [pz], "E": [BEAM]})
    target = vector.array({"px": [0.0], "py": [0.0], "pz": [0.0], "E": [M_PROTON]})
    rest = [_as_array(q.boostCM_of_p4(p))[:3] for q in (_as_vector(lepton), beam + 0 * p, target + 0 * p)]
    direction, b, t = (x / np.linalg.norm(x, axis=0) for x in rest)
    axis = {"collins_soper": b - t, "helicity": -(rest[1] + rest[2]), "laboratory": -t}[frame]
    axis = axis / np.linalg.norm(axis, axis=0)
    found = axis_cosine(photon, 0.6, lepton, frame, BEAM)
    np.testing.assert_allclose(found, np.sum(direction * axis, axis=0), atol=1e-6)


@pytest.mark.parametrize(
    ("channel", "parent", "mass", "lepton"),
    [(PionDalitz, 111, 0.1, M_E), (PseudoscalarDalitz, 221, 0.3, M_MU), (PseudoscalarDalitz, 221, 0.3, M_E)],
)
def test_the_chain_from_the_meson_is_exact(channel, parent, mass, lepton) -> None:
    """Isotropic leptons with weights against the generator, which decays in one frame after the other."""
    n = 100_000
    sample = channel(TABLE, BEAM).produce(mass, n=n, rng=np.random.default_rng(5))
    own = np.abs(
        np.sqrt(sample.parent[:, 3] ** 2 - np.sum(sample.parent[:, :3] ** 2, axis=1)) - mass_of(parent)
    )
    photon = _as_array(sample.p4)[:, own < 1e-3]
    meson = sample.parent[own < 1e-3]
    leptons, _ = accept.lepton_pair(photon, mass, lepton, np.random.default_rng(6))
    weight = accept.angular_weights(
        photon, mass, leptons, lepton, (SpinState(0.0),), beam_energy=BEAM, meson=meson
    )[0]
    exact, plus = dalitz_decay(
        meson.T, mass_of(parent), np.full(len(meson), mass), 0.0, np.random.default_rng(7), lepton
    )

    def shares(photons, one):
        share, pt = one[3] / photons[3], np.hypot(one[0], one[1])
        return np.stack([(share - 0.5) ** 2, share > 0.75, share < 0.3, pt, pt > 0.1])

    ours, truth = shares(photon, leptons) * weight, shares(exact, plus)
    error = np.sqrt(ours.var(axis=1) + truth.var(axis=1)) / np.sqrt(len(meson))
    pulls = (ours.mean(axis=1) - truth.mean(axis=1)) / error
    assert np.abs(pulls).max() < 4
    assert weight.mean() == pytest.approx(1.0, abs=5e-3)


def test_transverse_in_the_rest_frame_of_the_meson_is_nearly_unpolarised_in_the_laboratory() -> None:
    """λ about the laboratory flight: a tenth at most where the photon is transverse about its own axis."""
    for channel, mass in ((PionDalitz, 0.1), (PseudoscalarDalitz, 0.3)):
        sample = channel(TABLE, BEAM).produce(mass, n=200_000, rng=np.random.default_rng(8))
        photon = _as_array(sample.p4)
        one, _ = accept.lepton_pair(photon, mass, M_E, np.random.default_rng(9))
        weight = accept.angular_weights(
            photon, mass, one, M_E, (SpinState(0.0),), beam_energy=BEAM, meson=sample.parent
        )[0]
        mean = np.average(axis_cosine(photon, mass, one, "laboratory", BEAM) ** 2, weights=weight)
        seen = (15 * mean - 5) / (3 - 5 * mean)  # <cos²> = (1/3 + λ/5)/(1 + λ/3)
        assert float(lambda_theta(0.0, mass, M_E)) > 0.99
        assert abs(seen) < 0.2


def test_mixing_and_bremsstrahlung_carry_no_parent() -> None:
    rng = np.random.default_rng(10)
    assert Bremsstrahlung(preset("na62"), BEAM).produce(0.3, n=10, rng=rng).parent is None
    assert VectorMixing(TABLE, BEAM).produce(0.7, n=10, rng=rng).parent is None


def test_a_photon_at_rest_in_its_meson_has_no_axis() -> None:
    meson = np.array([[0.0, 0.0, 10.0, np.hypot(10.0, 0.5)]])
    photon = meson.T * 1.0
    one = daughter(photon, 0.5, M_MU, M_MU, np.array([0.3]), np.array([1.0]))
    weight = accept.angular_weights(photon, 0.5, one, M_MU, (SpinState(),), beam_energy=BEAM, meson=meson)
    assert np.isfinite(weight).all()


@pytest.mark.parametrize("wrong", [{"longitudinal": -0.1}, {"longitudinal": 1.5}, {"frame": "rest"}])
def test_a_spin_state_that_is_none_is_refused(wrong) -> None:
    with pytest.raises(PhysicsError, match="spin state"):
        SpinState(**wrong)


def test_a_vector_faster_than_the_beam_has_an_axis() -> None:
    """180 GeV at 0.3 GeV fly faster than a proton of 400 GeV: along the beam no bisector exists."""
    energy, mass = 180.0, 0.3
    pt = np.array([0.0, 1e-12, 1e-9, 1e-4, 0.3])
    photon = np.stack([pt, 0 * pt, np.sqrt(energy**2 - mass**2 - pt**2), np.full(5, energy)])
    lepton, _ = accept.lepton_pair(photon, mass, M_MU, np.random.default_rng(1))
    cosine = axis_cosine(photon, mass, lepton, "collins_soper", 400.0)
    assert np.isfinite(cosine).all()
    assert np.abs(cosine).max() <= 1.0


def test_ends_of_a_measured_spin_are_one_standard_deviation_away() -> None:
    """A yield is linear in the moments: its error is that of Gaussian propagation."""
    root = np.array([[0.2, 0.0, 0.0], [0.1, 0.15, 0.0], [-0.05, 0.02, 0.1]])
    spin = SpinDensities(
        np.array([0.2, 1.0]), np.array([[0.3, -0.1, 0.05]]), (root @ root.T)[None], np.ones(1)
    )
    slope = np.array([[3.0, -1.0], [1.0, 2.0], [-2.0, 0.5]])  # of two couplings

    def signal(one):
        return 10.0 + one.moments[0] @ slope

    own, *others = accept.spin_states(0.0, None, "laboratory", spin)
    ends = spin_ends(signal(own), np.array([signal(one) for one in others]), paired=True)
    sigma = np.sqrt(np.diag(slope.T @ root @ root.T @ slope))
    np.testing.assert_allclose(ends, signal(own) + np.array([[-1.0], [1.0]]) * sigma, rtol=1e-12)
