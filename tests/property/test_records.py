"""Records: what construction refuses for any shape and value, sums and orders that hold for any content."""

import json
import re

import numpy as np
import pytest
from builders import particles
from hist import Hist
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gammastar.core.errors import PhysicsError
from gammastar.core.pairs import MatchedPairs, Pairs
from gammastar.core.records import Exposure, PairHists, Response, Sample, Spectrum, filled, regular, variable
from gammastar.core.sources import KINDS, Source, Sources, spelling
from gammastar.store.manifest import read_spectrum, write_spectrum

NUMBERS = st.floats(-1e6, 1e6)
NAMES = st.text(alphabet="abcXYZ 12-_", min_size=1, max_size=12).filter(lambda name: bool(spelling(name)))
WRONG = st.sampled_from([np.nan, np.inf, -np.inf])
few = settings(max_examples=50)


@st.composite
def grids(draw):
    """Draw one or two axes of different kinds and their shape."""
    axes = [regular("mass", draw(st.integers(1, 5)), 0.2, 1.2)]
    if draw(st.booleans()):
        edges = sorted(draw(st.sets(st.floats(0, 5).map(lambda x: round(x, 3)), min_size=2, max_size=4)))
        axes.append(variable("pt", edges))
    return tuple(axes), tuple(len(axis) for axis in axes)


@st.composite
def spectra(draw):
    axes, shape = draw(grids())
    n = int(np.prod(shape))
    values = draw(arrays(np.float64, shape, elements=NUMBERS))
    root = draw(arrays(np.float64, (n, n), elements=st.floats(-10, 10)))
    cov = root @ root.T
    beam = Exposure(400.0, 207.2, 82, draw(st.floats(1e-3, 5)), draw(st.floats(1, 1e20)), 0.1)
    exposure = draw(st.sampled_from([None, beam]))
    domain = draw(arrays(np.bool_, shape))
    quantity = draw(st.sampled_from(["counts", "per_pot", "per_interaction"]))
    return Spectrum(filled(axes, values, np.diag(cov)), cov, quantity, exposure, domain)


@settings(max_examples=30)
@given(spectrum=spectra())
def test_a_spectrum_comes_back_from_its_file(tmp_path_factory, spectrum):
    path = tmp_path_factory.mktemp("spectrum") / "spectrum.json"
    write_spectrum(path, spectrum)
    opened = Hist(json.loads(path.read_text()))  # as anybody without this package
    np.testing.assert_array_equal(opened.values(), spectrum.values)
    assert [axis.name for axis in opened.axes] == [axis.name for axis in spectrum.hist.axes]
    found = read_spectrum(path)
    np.testing.assert_array_equal(found.values, spectrum.values)
    np.testing.assert_array_equal(found.cov, spectrum.cov)
    np.testing.assert_array_equal(found.domain, spectrum.domain)
    for one, other in zip(found.hist.axes, spectrum.hist.axes, strict=True):
        np.testing.assert_array_equal(one.edges, other.edges)
        assert (one.name, one.label) == (other.name, other.label)
    assert found.quantity == spectrum.quantity
    assert (found.exposure is None) == (spectrum.exposure is None)
    if found.exposure is not None:
        for name in ("beam_energy", "target_a", "target_z", "thickness", "pot", "pot_sigma"):
            assert getattr(found.exposure, name) == getattr(spectrum.exposure, name)


@settings(max_examples=30)
@given(spectrum=spectra(), wrong=WRONG, data=st.data())
def test_a_spectrum_refuses_shapes_and_numbers(spectrum, wrong, data):
    n, shape = len(spectrum.cov), spectrum.values.shape

    def made(hist=spectrum.hist, cov=spectrum.cov, domain=spectrum.domain):
        return Spectrum(hist, cov, spectrum.quantity, spectrum.exposure, domain)

    other = data.draw(st.tuples(st.integers(0, 9), st.integers(0, 9)).filter(lambda s: s != (n, n)))
    with pytest.raises(PhysicsError, match=re.escape(f"cov has shape {other}")):
        made(cov=np.zeros(other))
    with pytest.raises(PhysicsError, match="domain has shape"):
        made(domain=np.ones((*shape, 1), bool))
    cov = spectrum.cov.copy()
    cov[data.draw(st.integers(0, n - 1)), data.draw(st.integers(0, n - 1))] = wrong
    with pytest.raises(PhysicsError, match="cov holds values that are not finite"):
        made(cov=cov)
    values = spectrum.values.copy()
    values.flat[data.draw(st.integers(0, n - 1))] = wrong
    with pytest.raises(PhysicsError, match="hist holds values that are not finite"):
        made(hist=filled(tuple(spectrum.hist.axes), values, np.ones(n)))


@few
@given(name=st.sampled_from(["beam_energy", "target_a", "target_z", "thickness", "pot"]),
       value=st.one_of(WRONG, st.floats(max_value=0.0)))  # fmt: skip
def test_an_exposure_is_positive(name, value):
    known = {"beam_energy": 400.0, "target_a": 207.2, "target_z": 82.0, "thickness": 0.01, "pot": 1e13}
    assert Exposure(**known).pot_sigma == 0
    with pytest.raises(PhysicsError, match=f"Exposure.{name}"):
        Exposure(**(known | {name: value}))


@few
@given(grid=grids(), low=st.floats(0.0, 0.19), place=st.integers(0, 2))
def test_histograms_of_pairs_share_their_axes(grid, low, place):
    axes, shape = grid
    zero = np.zeros(shape)
    three = [filled(axes, zero, zero) for _ in range(3)]
    assert PairHists(*three).os.axes == three[0].axes
    three[place] = filled((regular("mass", shape[0], low, 1.2), *axes[1:]), zero, zero)
    with pytest.raises(PhysicsError, match="must share their axes"):
        PairHists(*three)


@few
@given(
    n_reco=st.integers(1, 5),
    n_true=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
    size=st.floats(1e-4, 0.5),
)
def test_a_response_is_a_probability(n_reco, n_true, seed, size):
    rng = np.random.default_rng(seed)
    migration = rng.dirichlet(np.ones(n_reco), n_true).T * rng.uniform(0, 1, n_true)
    reco, true = (regular("mass", n_reco, 0, 1),), (regular("mass", n_true, 0, 1),)

    def made(migration=migration, efficiency=None, replicas=0, priors=0):
        efficiency = migration.sum(axis=0) if efficiency is None else efficiency
        shape = (replicas, *migration.shape)
        prior = np.ones(n_true)
        return Response(
            migration,
            efficiency,
            np.zeros(n_reco),
            reco,
            true,
            prior,
            np.zeros(shape),
            np.ones((priors, n_true)),
        )

    np.testing.assert_allclose(made(replicas=3, priors=3).efficiency, migration.sum(axis=0))
    with pytest.raises(PhysicsError, match="must sum to `efficiency`"):
        made(efficiency=migration.sum(axis=0) + size)
    with pytest.raises(PhysicsError, match="efficiency exceeds one"):
        made(migration + (1 + size) / n_reco)
    with pytest.raises(PhysicsError, match="prior_replicas has shape"):
        made(replicas=3, priors=2)
    with pytest.raises(PhysicsError, match="migration has shape"):
        made(np.vstack([migration, migration]))


@few
@given(
    n=st.integers(0, 6),
    other=st.integers(0, 6),
    what=st.sampled_from(["origin", "in_domain", "p4", "parent"]),
)
def test_a_sample_has_one_length(n, other, what):
    ok, wrong = (particles(np.zeros(k), np.zeros(k), np.ones(k), 0.3) for k in (n, other))
    assert len(ok.weight) == len(ok.p4) == n
    assume(n != other)
    arrays_of = {"p4": ok.p4, "weight": ok.weight, "origin": ok.origin, "in_domain": ok.in_domain}
    replaced = np.zeros((other, 4)) if what == "parent" else getattr(wrong, what)
    with pytest.raises(PhysicsError, match="Sample"):
        Sample(**(arrays_of | {what: replaced}))


@st.composite
def sources(draw, n=3):
    shift = draw(arrays(np.float64, n, elements=st.floats(-1e3, 1e3)))
    return Source.shifted(draw(NAMES), draw(st.sampled_from(KINDS)), shift)


@pytest.mark.long
@few
@given(
    parts=st.lists(sources(), max_size=6, unique_by=lambda part: spelling(part.name)), factor=st.floats(-9, 9)
)
def test_sources_add_up_and_none_is_lost(parts, factor):
    all_of = Sources(tuple(parts))
    assert all_of.names == tuple(part.name for part in parts)
    assert all(all_of.named(part.name) is part for part in parts)
    groups = [all_of.of([kind]) for kind in KINDS]
    assert sorted(name for group in groups for name in group.names) == sorted(all_of.names)
    total = all_of.total()
    if not parts:
        assert total.shape == (0, 0)
        return
    np.testing.assert_allclose(total, sum(part.cov for part in parts))
    np.testing.assert_allclose(total, sum(g.total() for g in groups if g.parts), rtol=1e-12, atol=1e-9)
    np.testing.assert_array_equal(total, total.T)
    assert np.linalg.eigvalsh(total).min() >= -1e-9 * max(np.trace(total), 1e-300)
    scaled = all_of.scaled(factor)
    assert scaled.names == all_of.names
    size = factor**2 * max(float(np.abs(part.cov).max()) for part in parts)  # summands may cancel
    np.testing.assert_allclose(scaled.total(), factor**2 * total, rtol=1e-12, atol=1e-14 * size + 1e-300)


@few
@given(part=sources(), space=st.sampled_from(["", " ", "-", "_"]), upper=st.booleans(), other=sources())
def test_two_sources_of_one_name_are_refused(part, space, upper, other):
    name = space + (part.name.upper() if upper else part.name) + space
    twin = Source(name, other.kind, other.cov)
    with pytest.raises(PhysicsError, match="needs a name of its own"):
        Sources((part, twin))
    with pytest.raises(PhysicsError, match="needs a name of its own"):
        Sources((part,)) + Sources((twin,))


@few
@given(part=sources(), n=st.integers(1, 5), wrong=WRONG)
def test_a_source_is_square_finite_and_of_the_same_masses(part, n, wrong):
    if n != len(part.cov):
        with pytest.raises(PhysicsError, match="different shapes"):
            Sources((part, Source("another one", part.kind, np.eye(n))))
        with pytest.raises(PhysicsError, match="must be square and finite"):
            Source(part.name, part.kind, np.zeros((n, len(part.cov))))
    with pytest.raises(PhysicsError, match="must be square and finite"):
        Source(part.name, part.kind, np.full((n, n), wrong))


@few
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 30), cut=st.integers(0, 30))
def test_pairs_put_together_are_the_pairs_that_were_parted(seed, n, cut):
    rng = np.random.default_rng(seed)
    charge = rng.choice(np.array([-2, 0, 2], np.int8), n)
    pairs = Pairs(
        *rng.uniform(0, 1, (3, n)), charge, rng.uniform(0, 1, n), np.arange(n), {"angle": rng.random(n)}
    )
    assert pairs.os.sum() + pairs.pp.sum() + pairs.mm.sum() == n
    again = Pairs.concatenate([pairs.select(np.arange(n) < cut), pairs.select(np.arange(n) >= cut)])
    true, reco = rng.uniform(0, 1, (n, 3)), np.where(rng.random((n, 1)) < 0.5, np.nan, 1.0) * np.ones(3)
    matched = MatchedPairs(true, reco, np.ones(n), np.arange(n), np.ones((2, 3)), np.ones(2))
    halves = [matched.select(np.arange(n) < cut), matched.select(np.arange(n) >= cut)]
    both = MatchedPairs.concatenate(halves)
    np.testing.assert_array_equal(again.columns["angle"], pairs.columns["angle"])
    for name in ("mass", "pt", "energy", "charge", "weight", "event"):
        np.testing.assert_array_equal(getattr(again, name), getattr(pairs, name))
    for name in ("true", "reco", "weight", "event"):
        np.testing.assert_array_equal(getattr(both, name), getattr(matched, name))
    assert len(both.fakes) == 4  # fakes belong to a part as a whole
    if n:
        partly = reco.copy()
        partly[rng.integers(n)] = (1.0, np.nan, 1.0)
        with pytest.raises(PhysicsError, match="only partly nan"):
            MatchedPairs(true, partly, np.ones(n), np.arange(n), np.ones((0, 3)), np.ones(0))
        charge[rng.integers(n)] = rng.choice([-1, 1, 3])
        with pytest.raises(PhysicsError, match="charge must be"):
            Pairs(pairs.mass, pairs.pt, pairs.energy, charge, pairs.weight, pairs.event)
