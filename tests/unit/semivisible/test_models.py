"""Models, widths, lifetimes and cascades of dark sectors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from gammastar import semivisible
from gammastar.core.constants import ALPHA, CTAU_PER_GEV, GEV2_MB, M_E, M_MU
from gammastar.core.errors import PhysicsError
from gammastar.core.files import data_path
from gammastar.core.sampling import stream
from gammastar.physics.qed import RTable
from gammastar.semivisible import gm2, models, production
from gammastar.semivisible.cascade import decay
from gammastar.semivisible.decays import (
    NeutrinoMixing,
    Transition,
    angular,
    decay_table,
    spectrum,
    squared_amplitude,
    width,
)
from gammastar.semivisible.models import (
    DarkSector,
    branching,
    from_dirac,
    from_majorana,
    landau_pole,
    mediator_widths,
    takagi,
)

# Γ [GeV] for ε = 1e-3, α_D = 0.5: m_j, m_i, M, (G, D), pair.
WIDTHS = [
    (0.462, 0.33, 1.0, (1.0, 1.0), "e", 7.98659e-15),
    (0.462, 0.33, 1.0, (1.0, -1.0), "e", 2.33683e-14),
    (0.462, 0.33, 1.0, (0.5, 0.0), "e", 7.83872e-15),
    (1.386, 0.99, 3.0, (1.0, 1.0), "mu", 7.83444736e-15),
    (1.386, 0.99, 3.0, (1.0, -1.0), "mu", 4.18534605e-14),
    (0.22, 0.146, 1.25, (1.0, -1.0), "e", 4.73396463e-16),
]


def idm(mediator=1.0, alpha_d=0.5):
    return models.idm(mediator, ratio=1 / 3, splitting=0.4, alpha_d=alpha_d)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 4), st.booleans())
def test_takagi(seed, n, real):
    rng = np.random.default_rng(seed)
    m = rng.normal(size=(n, n)) + (0 if real else 1j * rng.normal(size=(n, n)))
    m = m + m.T
    masses, u = takagi(m)
    assert np.allclose(u.T @ m @ u, np.diag(masses), atol=1e-10)
    assert np.allclose(u.conj().T @ u, np.eye(n), atol=1e-10)
    assert (np.diff(masses) >= -1e-12).all()


def test_takagi_of_degenerate_and_massless_states():
    for m in ([[0, 1], [1, 0]], [[1, 1j], [1j, -1]], np.zeros((2, 2)), [[0, 0.1, 0], [0.1, 0, 1], [0, 1, 0]]):
        masses, u = takagi(m)
        assert np.allclose(u.T @ np.asarray(m) @ u, np.diag(masses), atol=1e-10)
        assert np.allclose(u.conj().T @ u, np.eye(len(masses)), atol=1e-10)
    with pytest.raises(PhysicsError, match="symmetric"):
        takagi([[0.0, 1.0], [2.0, 0.0]])


def test_pseudo_dirac_vertices():
    even = idm()
    assert np.allclose(np.abs(even.vector), [[0, 1], [1, 0]])
    assert np.allclose(even.axial, 0.0, atol=1e-12)
    uneven = models.pseudo_dirac(0.2, 0.0, 1.0, mediator=3.0, alpha_d=0.5)
    assert uneven.masses == pytest.approx([0.90499, 1.10499], abs=1e-5)
    assert abs(uneven.axial[0, 0]) == pytest.approx(0.0995, abs=1e-4)
    assert abs(uneven.vector[0, 1]) == pytest.approx(0.995, abs=1e-3)


def test_inverse_seesaw_selection_rule():
    sector = models.inverse_seesaw(0.05, 0.2, 0.2, 1.0, mediator=3.0, alpha_d=0.5)
    assert sector.masses == pytest.approx([0.0278, 1.0, 1.0778], abs=1e-4)
    total = np.abs(sector.vector) + np.abs(sector.axial)
    assert np.allclose(np.diag(total), 0.0, atol=1e-15)
    assert total[0, 2] == pytest.approx(0.0, abs=1e-15)
    assert abs(sector.axial[0, 1]) == pytest.approx(0.2653, abs=1e-4)
    assert abs(sector.vector[1, 2]) == pytest.approx(0.9642, abs=1e-4)
    broken = models.inverse_seesaw(0.05, 0.1, 0.2, 1.0, mediator=3.0, alpha_d=0.5)
    assert abs(broken.axial[0, 0]) == pytest.approx(0.029, abs=1e-3)
    assert abs(broken.vector[0, 1]) == pytest.approx(0.208, abs=1e-3)
    assert abs(broken.vector[1, 2]) == pytest.approx(0.976, abs=1e-3)


def test_phases_of_the_fields_do_not_matter():
    rng = np.random.default_rng(3)
    m = rng.normal(size=(3, 3))
    m, q = m + m.T, np.array([1.0, -1.0, 0.0])
    phase = np.exp(1j * rng.uniform(0, 2 * np.pi, 3))
    one = from_majorana("a", m, q, mediator=30.0, alpha_d=0.1)
    two = from_majorana("b", phase[:, None] * m * phase, q, mediator=30.0, alpha_d=0.1)
    assert np.allclose(one.strengths(), two.strengths(), atol=1e-10)
    assert np.allclose(mediator_widths(one)[1], mediator_widths(two)[1], rtol=1e-9)
    _, u = takagi(m)
    expected = np.real(np.diag(u.conj().T @ np.diag(q**2) @ u))
    assert np.allclose(one.strengths()[0].sum(axis=1), expected)


def test_i2dm_of_the_talk():
    sector = models.i2dm(1.25, ratio=0.33, splitting=0.4, theta=math.radians(4.5), alpha_d=0.5)
    assert np.allclose(np.abs(sector.vector), [[0.0062, 0.0782], [0.0782, 0.9938]], atol=1e-4)
    ratios = branching(sector)
    assert ratios[1, 1] == pytest.approx(0.98251, abs=1e-5)
    assert ratios[0, 1] == pytest.approx(0.01742, abs=1e-5)
    assert ratios[0, 0] == pytest.approx(6.3e-5, rel=1e-2)
    assert mediator_widths(sector)[1].sum() / 1.25 == pytest.approx(0.0914, abs=1e-4)
    assert decay_table(sector).ctau[1] / 1e-4 == pytest.approx(3.2e-2, rel=2e-2)


def test_a_dirac_seesaw_without_light_mass_is_axial():
    sector = models.dark_dirac_seesaw(0.0, 1.0, 0.1, mediator=3.0, alpha_d=0.5)
    assert abs(sector.vector[0, 1]) < 1e-12
    assert abs(sector.axial[0, 1]) > 0.09


def test_mediator_widths_in_their_limits():
    assert mediator_widths(idm())[1][0] == pytest.approx(0.12850, abs=1e-5)
    m, r = 0.2, 0.2
    one = from_majorana("x", [[m]], [1.0], mediator=1.0, alpha_d=0.3)
    assert mediator_widths(one)[1][0] == pytest.approx(0.3 / 6 * (1 - 4 * r**2) ** 1.5)
    dirac = models.dark_dirac_seesaw(0.1, 0.2, 0.0, mediator=1.0, alpha_d=0.3)
    assert mediator_widths(dirac)[1][0] == pytest.approx(0.3 / 3 * (1 + 2 * r**2) * np.sqrt(1 - 4 * r**2))
    scalar = models.scalar_idm(1.0, ratio=0.1, splitting=1e-9, alpha_d=0.5)
    assert mediator_widths(scalar)[1][0] == pytest.approx(0.5 / 12 * (1 - 4 * 0.01) ** 1.5)


def test_warnings_of_strong_couplings():
    assert landau_pole(0.5, 1.25, 1.0) == pytest.approx(1.25 * np.exp(3 * np.pi))
    assert any("broad" in text for text in idm().warnings)
    assert any("Landau" in text for text in idm(alpha_d=2.0).warnings)
    assert idm(alpha_d=0.01).warnings == ()


@pytest.mark.parametrize(("heavy", "light", "mediator", "strength", "pair", "expected"), WIDTHS)
def test_three_body_widths(heavy, light, mediator, strength, pair, expected):
    transition = Transition(heavy, light, mediator, *strength, pair)
    assert 0.5e-6 * width(transition) == pytest.approx(expected, rel=2e-6)


def test_small_splitting():
    transition = Transition(1.0, 0.99, 1000.0, 1.0, 1.0)
    limit = 4 * ALPHA * 0.01**5 / (15 * np.pi * 1000.0**4)
    assert width(transition) == pytest.approx(limit, rel=0.06)
    assert width(transition) < limit
    axial = Transition(1.0, 0.99, 1000.0, 1.0, -1.0)
    assert width(axial) / width(transition) == pytest.approx(3.0, rel=0.03)
    scalar = Transition(1.0, 0.99, 1000.0, 1.0, 1.0, "e", scalar=True)
    assert width(scalar) / width(transition) == pytest.approx(1.0, rel=0.03)


@settings(deadline=None, max_examples=30)
@given(st.floats(0.3, 2.0), st.floats(0.0, 0.9), st.floats(-1, 1), st.sampled_from(["e", "mu"]))
def test_angle_and_spectrum_agree(heavy, ratio, d, pair):
    t = Transition(heavy, ratio * heavy, 10.0, 1.0, d, pair)
    if not t.is_open:
        return
    s = np.linspace(*t.range, 12)[1:-1]
    a, b = angular(t, s)
    h = t.g * ((t.heavy**2 + t.light**2) / 2 - s + (t.heavy**2 - t.light**2) ** 2 / (2 * s))
    h -= 3 * t.heavy * t.light * t.d
    assert np.allclose(a - b / 3, s / 6 * (1 + 2 * t.particle**2 / s) * h, rtol=1e-12, atol=1e-14)
    assert (a - b > -1e-12).all()
    # Phase space times |M|² is the spectrum.
    lam = ((t.heavy - t.light) ** 2 - s) * ((t.heavy + t.light) ** 2 - s)
    beta = np.sqrt(1 - 4 * t.particle**2 / s)
    mean = quad(lambda c: squared_amplitude(t, s[4], c), -1, 1)[0] / 2
    flat = np.sqrt(lam[4]) * beta[4] / ((2 * np.pi) ** 3 * 64 * t.heavy**3) * 2
    assert spectrum(t, s)[4] == pytest.approx(flat * mean, rel=1e-9)


def test_closed_channels_and_bad_transitions():
    assert width(Transition(0.5, 0.4, 1.0, 1.0, 1.0, "mu")) == 0.0
    with pytest.raises(PhysicsError, match="on its shell"):
        Transition(3.0, 0.1, 1.0, 1.0, 1.0)
    with pytest.raises(PhysicsError, match="table of R"):
        width(Transition(3.0, 1.0, 6.0, 1.0, 1.0, "hadrons"))


def test_neutrino_decay_in_the_heavy_limit():
    m, big = 0.14, 1.25
    for nature, factor, expected in (("dirac", 48, 5.36981409e-16), ("majorana", 24, 1.0739628e-15)):
        g = NeutrinoMixing(0, 1.0, nature).strength
        ours = 0.5e-6 * width(Transition(m, 0.0, big, g, 0.0))
        assert ours == pytest.approx(expected, rel=1e-6)
        assert ours / (0.5e-6 * ALPHA * m**5 / (factor * np.pi * big**4)) == pytest.approx(1.0074, abs=1.2e-3)


def test_lifetimes_from_several_mixings():
    """Each state adds its own ν e e, by quadrature of the formula for a massless daughter."""
    sector = models.inverse_seesaw(0.0, 0.0902, 0.0902, 0.146, mediator=1.25, alpha_d=0.3)
    squared = {0: 3e-7, 1: 4e-2, 2: 1e-3}
    mixings = [NeutrinoMixing(state, value) for state, value in squared.items()]
    alone, mixed = decay_table(sector), decay_table(sector, neutrino=mixings)
    for state, value in squared.items():
        m = float(sector.masses[state])

        def density(s, m=m):
            beta = np.sqrt(1 - 4 * M_E**2 / s)
            shape = (m**2 - s) ** 2 * (m**2 + 2 * s) * beta * (1 + 2 * M_E**2 / s)
            return shape / (1.25**2 - s) ** 2

        area = quad(lambda x: density(np.exp(x)) * np.exp(x), np.log(4 * M_E**2), 2 * np.log(m))[0]
        gamma = ALPHA * 0.3 * value / (12 * np.pi * m**3) * area
        expected = 1.0 / (gamma + CTAU_PER_GEV / alone.ctau[state])
        # Muons are open to the third, of 220 MeV, and add little.
        assert mixed.ctau[state] / CTAU_PER_GEV == pytest.approx(expected, rel=1e-3)
    assert np.isinf(alone.ctau[0])
    one = decay_table(sector, neutrino=mixings[0])
    assert one.ctau[0] == mixed.ctau[0]
    assert one.ctau[1] == alone.ctau[1]
    with pytest.raises(PhysicsError, match="there are 3 states"):
        decay_table(sector, neutrino=[NeutrinoMixing(3, 1e-3)])
    with pytest.raises(PhysicsError, match="must be >= 0"):
        NeutrinoMixing(0, -1.0)


@pytest.fixture(scope="module")
def cascade():
    sector = models.inverse_seesaw(0.0, 0.0902, 0.0902, 0.146, mediator=1.25, alpha_d=0.3)
    table = decay_table(sector, neutrino=NeutrinoMixing(0, 3e-7))
    photons = np.tile([0.3, -0.2, 3.0, math.sqrt(1.25**2 + 0.13 + 9)], (20_000, 1))
    return decay(table, photons, np.random.default_rng(1), boost=0.5, polarised=True)


def test_cascade_conserves_momentum_and_masses(cascade):
    rest = cascade.parent - cascade.daughter - cascade.particle - cascade.antiparticle
    assert np.abs(rest).max() < 1e-13
    for p in (cascade.particle, cascade.antiparticle):
        square = p[..., 3] ** 2 - (p[..., :3] ** 2).sum(axis=-1)
        assert np.allclose(square, cascade.filled * M_E**2, atol=1e-13)
    primary = np.where(((cascade.source == -1) & cascade.filled)[..., None], cascade.parent, 0.0).sum(axis=1)
    assert np.allclose(primary[:, 3], primary[0, 3], rtol=1e-12)  # two ψ carry the dark photon's energy


def test_cascade_branching_and_lifetimes(cascade):
    assert cascade.table.ctau[1:] / 2.2e-2**2 == pytest.approx([9.2e-3, 5.5e-3], rel=1e-2)
    third = (cascade.state == 2).any(axis=1).mean()
    assert third == pytest.approx(0.756, abs=0.01)
    assert (cascade.state == 0).sum(axis=1).tolist() == [2] * len(cascade)  # every ψ ends in ψ₁ → ν ee


@pytest.mark.parametrize(("d", "expected"), [(1.0, 0.06525), (-1.0, 0.08635)])
def test_mean_pair_mass(d, expected):
    t = Transition(0.462, 0.33, 1.0, 1.0, d)
    mean = quad(lambda x: np.exp(1.5 * x) * spectrum(t, np.exp(x)), *np.log(t.range), limit=200)[0]
    assert mean / width(t) == pytest.approx(expected, abs=2e-5)
    m = np.array([[0.066, 0.396], [0.396, 0.066]]) if d > 0 else np.array([[0.462, 0], [0, 0.33]])
    sector = from_majorana("x", m, [1, -1], mediator=1.0, alpha_d=0.5)
    if d < 0:
        sector = models.dark_dirac_seesaw(-0.33 * 0.99, 0.462, 0.03, mediator=1.0, alpha_d=0.5)
    table = decay_table(sector)
    events = decay(table, np.tile([0.0, 0.0, 0.0, 1.0], (60_000, 1)), np.random.default_rng(2))
    pair = (events.particle + events.antiparticle)[events.filled]
    masses = np.sqrt(pair[:, 3] ** 2 - (pair[:, :3] ** 2).sum(axis=1))
    exact = Transition(float(sector.masses[1]), float(sector.masses[0]), 1.0, 1.0, d)
    wanted = quad(lambda x: np.exp(1.5 * x) * spectrum(exact, np.exp(x)), *np.log(exact.range), limit=200)[0]
    assert masses.mean() == pytest.approx(wanted / width(exact), abs=4 * masses.std() / len(masses) ** 0.5)


def test_hadrons_open_at_two_pions():
    table = RTable.read(data_path("measurements/r_ratio.csv"))
    light, heavy = idm(2.0), idm(2.6)
    assert 2 not in decay_table(light, r_table=table).kind
    assert 2 in decay_table(heavy, r_table=table).kind
    assert decay_table(heavy, r_table=table).ctau[1] < decay_table(heavy).ctau[1]
    events = decay(
        decay_table(heavy, r_table=table), np.tile([0.0, 0.0, 0.0, 2.6], (5000, 1)), np.random.default_rng(1)
    )
    assert (events.kind == 2).any()


def _gm2_kernel(z, m):
    return 2 * M_MU**2 * z * (1 - z) ** 2 / (M_MU**2 * (1 - z) ** 2 + m * m * z)


def test_gm2_in_its_limits():
    assert float(gm2.delta_a(0.0, 1e-3)) == pytest.approx(ALPHA * 1e-6 / (2 * np.pi), rel=1e-12)
    assert float(gm2.delta_a(100.0, 1e-2)) == pytest.approx(
        ALPHA * 1e-4 * M_MU**2 / (3 * np.pi * 1e4), rel=1e-3
    )
    assert float(gm2.delta_a(1.25, 2.2e-2)) == pytest.approx(2.505e-9, rel=1e-3)
    for m in (1e-3, 0.1, 1.0):
        exact = quad(_gm2_kernel, 0, 1, args=(m,))[0]
        assert float(gm2.delta_a(m, 1.0)) == pytest.approx(ALPHA / (2 * np.pi) * exact, rel=1e-8)


def test_gm2_presets():
    assert gm2.DEFAULT == "wp25"
    assert gm2.reference("wp20").band([1.25])[:, 0] == pytest.approx([1.60e-2, 2.67e-2], rel=3e-3)
    upper = gm2.reference().band([0.3, 1.0, 1.25, 3.0])
    assert (upper[0] == 0).all()
    assert upper[1] == pytest.approx([5.10e-3, 1.44e-2, 1.78e-2, 4.17e-2], rel=2e-3)
    with pytest.raises(PhysicsError, match="choose one of"):
        gm2.reference("wp30")


def test_monophoton_cross_section():
    for m, expected in ((0.1, 1.836), (1.25, 1.902), (5.0, 3.293)):
        assert 1e-6 * float(production.monophoton_cross_section(m, 10.564, 0.6)) == pytest.approx(
            expected, abs=1.5e-3
        )

    def density(c):  # by crossing, at M = 2 GeV and √s = 10 GeV, in fb
        k, factor = 4 * 4.0 * 100.0 / 96.0**2, 2 * np.pi * ALPHA**2 / 100.0 * 0.96
        return factor * GEV2_MB * 1e12 * (1 + c**2 + k) / (1 - c**2)

    total = quad(density, -0.8, 0.8)[0]
    assert float(production.monophoton_cross_section(2.0, 10.0, 0.8)) == pytest.approx(total, rel=1e-9)
    photon, dark = production.sample_photons(2.0, 10.0, 0.8, 100_000, np.random.default_rng(1))
    cosine = photon[:, 2] / photon[:, 3]
    mean = quad(lambda c: c * c * density(c), -0.8, 0.8)[0] / total
    assert (cosine**2).mean() == pytest.approx(mean, abs=3e-3)
    assert np.allclose(photon + dark, [0, 0, 0, 10.0])
    ratio = float(production.s_channel_cross_section(idm(1.25), 10.564).sum())
    assert ratio / float(production.monophoton_cross_section(1.25, 10.564, 0.6)) == pytest.approx(
        28.8, abs=0.1
    )


THREE = {  # hermitian by hand: V imaginary and antisymmetric, A real and symmetric, as Majorana states have
    "masses": [0.10, 0.25, 0.45],
    "vector": [[0, 0.3j, 0], [-0.3j, 0, 0.9j], [0, -0.9j, 0]],
    "axial": [[0.1, 0, 0.2], [0, 0.05, 0], [0.2, 0, 0.0]],
}


def three(order=(0, 1, 2), **changes):
    """Return the same physics with the states numbered otherwise."""
    index = np.ix_(order, order)
    given = {
        "name": "three",
        "mediator": 1.5,
        "alpha_d": 0.3,
        "masses": [THREE["masses"][k] for k in order],
        "vector": np.array(THREE["vector"])[index].tolist(),
        "axial": np.array(THREE["axial"])[index].tolist(),
        "field": "majorana",
    }
    return DarkSector(**(given | changes))


@pytest.mark.parametrize("order", [(2, 1, 0), (1, 2, 0), (2, 0, 1)])
def test_the_order_of_the_states_changes_no_physics(order):
    one, other = three(), three(order)
    card = semivisible.load_babar()
    values = []
    for sector in (one, other):
        pairs, widths = mediator_widths(sector)
        table = decay_table(sector)
        rng = stream(4, "order")
        events = semivisible.babar.cascades(table, card, 20_000, rng)
        missing = semivisible.babar.missing(events, card, np.array([3e-2]), rng).value
        values.append((sector.masses, pairs, widths, table.ctau, missing))
    for a, b in zip(*values, strict=True):
        assert np.allclose(a, b, rtol=1e-12)
    assert values[0][4] < 0.9  # the heavier states do decay


def test_widths_of_states_in_any_order_by_hand():
    """The width of A' → ψ_i ψ_j written out, for states given from heavy to light."""
    sector = three((2, 1, 0))
    (pair,) = [w for p, w in zip(*mediator_widths(sector), strict=True) if tuple(p) == (0, 1)]
    r, q = 0.10 / 1.5, 0.25 / 1.5
    lam = (1 - (r + q) ** 2) * (1 - (r - q) ** 2)
    shape = 0.3**2 * (1 - (r**2 + q**2) / 2 - (r**2 - q**2) ** 2 / 2 + 3 * r * q)  # a pure vector: D = G
    assert pair == pytest.approx(0.3 * 1.5 / 3 * math.sqrt(lam) * shape, rel=1e-12)


def test_capitals_of_the_field_mean_the_same():
    small, large = three(), three(field="Majorana")
    assert large.field == "majorana"
    assert mediator_widths(large)[1] == pytest.approx(mediator_widths(small)[1], rel=1e-15)
    diagonal = {"vector": np.zeros((3, 3)), "axial": np.diag([1.0, 0, 0])}
    dirac, majorana = (three(field=f, **diagonal) for f in ("Dirac", "MAJORANA"))
    assert mediator_widths(dirac)[1] == pytest.approx(2 * mediator_widths(majorana)[1])  # identical particles


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"field": "weyl"}, "'weyl' is none of majorana, dirac, scalar"),
        ({"field": 3}, "field = 3"),
        ({"masses": [0.1, -0.2, 0.3]}, "-0.2 GeV of state 2"),
        ({"masses": [0.1, 0.2, float("nan")]}, "nan GeV of state 3"),
        ({"masses": ["light", "heavy", 1.0]}, "masses must be numbers"),
        ({"masses": []}, "must be a list"),
        ({"masses": 0.3}, "must be a list"),
        (
            {"vector": [[0, 1, 0], [0, 0, 0], [0, 0, 0]]},
            "vector couplings are not hermitian: 1+0j of states 1, 2",
        ),
        ({"axial": [[0, 1j, 0], [1j, 0, 0], [0, 0, 0]]}, "axial couplings are not hermitian"),
        ({"axial": [[0.1j, 0, 0], [0, 0, 0], [0, 0, 0]]}, "hermitian: 0\\+0.1j of states 1, 1"),
        ({"axial": [[0, 0, 0], [0, float("inf"), 0], [0, 0, 0]]}, "states 2, 2 is not finite"),
        ({"vector": np.diag([0, 0, 1.0])}, "no vector current, but 1\\+0j was given for states 3, 3"),
        ({"vector": [[0, 1], [1]]}, "rows of equal length"),
        ({"vector": [[0, 1], [1, 0]]}, "shape"),
        ({"field": "scalar", "vector": np.zeros((3, 3))}, "a scalar has no axial current"),
        ({"mediator": float("nan")}, "mediator"),
        ({"mediator": "heavy"}, "mediator"),
        ({"alpha_d": 0.0}, "alpha_d"),
        ({"squared_charges": -1.0}, "squared_charges"),
    ],
)
def test_what_no_sector_can_be_is_said(changes, said):
    with pytest.raises(PhysicsError, match=said.replace("1+0j of", "1\\+0j of")):
        three(**changes)


def test_a_mass_matrix_of_dirac_fields_is_looked_at():
    for matrix, said in (([[1.0, 2.0]], "square"), ([[1.0, np.nan], [0.0, 1.0]], "not finite")):
        with pytest.raises(PhysicsError, match=said):
            from_dirac("bad", matrix, [0.0, 1.0], mediator=1.0, alpha_d=0.1)


@given(
    light=st.floats(0.01, 0.3),
    first=st.floats(1.05, 5.0),
    second=st.floats(1.01, 4.0),
    positive=st.booleans(),
)
def test_inverse_seesaw_of_given_masses(light, first, second, positive):
    """Masses come back, and the mixing is what two eigenvalues of a 2 × 2 matrix say."""
    masses = light, light * first, light * first * second
    sector = models.symmetric_seesaw(*masses, mediator=10.0, alpha_d=0.5, positive=positive)
    assert sector.masses == pytest.approx(masses, rel=1e-6)
    sign = -1.0 if positive else 1.0
    mixing = (masses[2] - masses[1]) / (masses[2] + sign * masses[0])
    vertex = (sector.vector, sector.axial)[0 if positive else 1]
    g = sector.strengths()[0]
    assert abs(vertex[0, 1]) ** 2 == pytest.approx(mixing, rel=1e-5, abs=1e-9)
    assert g[0, 1] + g[1, 2] == pytest.approx(1.0, abs=1e-9)
    assert g[0, 2] == pytest.approx(0.0, abs=1e-9)


def test_inverse_seesaw_refuses_masses_that_do_not_increase():
    with pytest.raises(PhysicsError, match="must be positive and increase"):
        models.symmetric_seesaw(0.2, 0.1, 0.3, mediator=1.0, alpha_d=0.5)
