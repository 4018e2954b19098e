"""Every key of [subtract] and [unfold] in small runs on MOCK pairs with open charm."""

from types import SimpleNamespace

import numpy as np
import pytest
from builders import csv_rows

from gammastar import config
from gammastar.core.errors import SteeringError
from gammastar.core.pairs import MatchedPairs
from gammastar.core.sampling import event_seeds
from gammastar.pipeline.cache import open_cache
from gammastar.pipeline.context import Context, RunState
from gammastar.pipeline.run import run
from gammastar.pipeline.stages import flow
from gammastar.report.measured import uncertainties
from gammastar.store.manifest import read_json
from gammastar.store.pairs import Truth, read_pairs
from gammastar.subtract.charm import ETA_DIMUON_RATIO

HEAD = """
[analysis]
name = "keys"
seed = 1
mock = true
[read]
files = ["data.root"]
response = ["mc.root"]
schema = "schema.toml"
[select]
mass = { bins = 12, low = 0.2125, high = 1.1125 }
pt = [0.0, 6.0]
energy = [0.2, 14.0, 400.0]
"""
TAIL = """
[spectrum]
beam_energy = 400.0
target_a = 207.2
target_z = 82.0
thickness = 0.01
pot = 1e10
"""
PLAIN = "[subtract]\nmethod = 'regions'\nr_factor = 1.173\nr_factor_sigma = 0.05\n"
MIXED = "[subtract]\nmethod = 'regions'\nr_factor = 'mixed'\nweights = 'signed'\nmixed_pairs = 20_000\n"
ITERATIVE = "[unfold]\nmethod = 'iterative'\nn_replicas = 5\nscan = []\n"
SIGNED = PLAIN + 'weights = "signed"\n'  # no classifier where nobody looks at its weights
CHARM = """
[subtract.charm]
template = ["charm.root"]
offset = ["dx", "dy"]
edges = [0, 60, 120, 180, 260, 400, 2000]
"""
ETA = """
[[subtract.corrections]]
name = "eta to mu mu"
kind = "eta to mu mu"
n_dalitz = 600
n_dalitz_sigma = 60
resolution = 0.03
[[subtract.corrections]]
name = "Bethe-Heitler"
files = ["charm.root"]
fraction = 0.02
sigma = 0.01
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory, mock_schema, with_charm):
    """Write the files once; return a function that runs a steering on them."""
    base = tmp_path_factory.mktemp("keys")
    metas = with_charm(base)
    (base / "schema.toml").write_text(mock_schema)

    def go(
        subtracting=SIGNED,
        unfolding="[unfold]\nmethod = 'iterative'\nn_replicas = 5\nscan = []\n",
        output="run",
    ):
        steering = base / "steering.toml"
        steering.write_text(HEAD + subtracting + unfolding + TAIL)
        folder = run(steering, output=base / output, resume=True)
        stages = {
            name: dict(np.load(folder / "stages" / f"{name}.npz"))
            for name in ("select", "subtract", "unfold")
        }
        return SimpleNamespace(folder=folder, **stages)

    go.metas = metas
    return go


@pytest.fixture(scope="module")
def nominal(made):
    return made(unfolding="[unfold]\nmethod = 'iterative'\nn_replicas = 5\n")


@pytest.fixture(scope="module")
def charmed(made):
    """The run that removes open charm, with posterior weights and systematic errors, in its own folder."""
    sources = "polarisation = 0.3\nradiation = 0.5\nmomentum_scale = 0.01\nmomentum_resolution = 0.1\n"
    sources += "efficiency = 0.02\nbackground = true\ncharm = true\n"
    return made(
        PLAIN + CHARM,
        f"[unfold]\nmethod = 'iterative'\nn_replicas = 5\n[systematics]\n{sources}",
        output="charmed",
    )


def total(arrays):
    return arrays["values"].sum(), np.sqrt(arrays["cov"].sum())


def test_mixed_events_give_r_of_the_acceptance_times_r_mult(made, nominal):
    mixed = made(MIXED + "control = { mass = [0.3, 0.6] }\n")
    r, sigma = mixed.subtract["r_factor"]
    assert abs(r - 1) < 4 * sigma + 0.02  # the multiplicity part, 1.17, is invisible to mixing
    assert np.isfinite(mixed.subtract["control"]).all()
    both = made(
        MIXED + "r_mult = 1.173\nr_mult_sigma = 0.1\nr_coarse = { mass = [0.2125, 0.6625, 1.1125] }\n"
    )
    assert both.subtract["r_factor"][0] == pytest.approx(1.173 * r, rel=0.1)
    assert both.subtract["r_factor"][1] > 0.1
    assert total(both.subtract)[1] > total(nominal.subtract)[1]
    given = made("[subtract]\nmethod = 'regions'\nweights = 'signed'\nr_factor = 1.02\nr_mult = 1.15\n")
    np.testing.assert_allclose(given.subtract["like_sign"], nominal.subtract["like_sign"])


def test_the_bootstrap_of_events_replaces_the_formula(made, nominal):
    found = made(SIGNED + "bootstrap = 200\n")
    np.testing.assert_allclose(found.subtract["values"], nominal.subtract["values"])
    ours, formula = np.diag(found.subtract["cov"]), np.diag(nominal.subtract["cov"])
    assert np.median(ours / formula) == pytest.approx(1, abs=0.25)
    with pytest.raises(SteeringError, match=r"subtract.bootstrap: 5: .* at least \d+ replicas"):
        made(PLAIN + "bootstrap = 5\n")


def test_the_mixed_shape_takes_the_normalisation_of_like_sign_pairs(made):
    mixed = made("[subtract]\nmethod = 'mixed events'\nmixed_pairs = 20_000\n")
    plain = made("[subtract]\nweights = 'signed'\nr_factor = 1.0\n")
    found, expected = mixed.subtract["like_sign"].sum(), plain.subtract["like_sign"].sum()
    assert found == pytest.approx(expected, rel=0.1)
    assert mixed.subtract["posterior"].sum() == pytest.approx(mixed.subtract["values"].sum(), rel=1e-6)
    assert np.diag(mixed.subtract["cov"]).min() > 0


def test_charm_of_the_mock_is_found_and_removed(made, nominal, charmed):
    found = charmed
    value, sigma, chi2, ndf = found.subtract["charm_fit"]
    inside = np.load(found.folder / "stages" / "subtract.npz")["removed"][0, 0] / value
    # recorded charm of all masses, cut down to the axes as the template is
    template = made.metas["charm"]["sum_weights"]["charm"]
    assert template > 3000
    expected = made.metas["data"]["sum_weights"]["charm"] * 0.66  # a third lies above 1.1 GeV
    assert abs(value - expected) < 3 * sigma + 0.1 * expected
    assert inside == pytest.approx(1, abs=0.05)
    assert sigma < 0.5 * value
    assert chi2 / ndf < 1.6
    before, after = total(nominal.subtract)[0], total(found.subtract)[0]
    assert after == pytest.approx(before - found.subtract["removed"][0, 0])
    assert found.subtract["posterior"].sum() == pytest.approx(after, rel=1e-6)
    assert csv_rows(found.folder / "corrections.csv")[0]["source"] == "open charm"


def test_corrections_are_named_sized_and_propagated(made, nominal):
    found = made(
        PLAIN + ETA,
        f"{ITERATIVE}[systematics]\ncorrections = true\nbackground = true\n",
    )
    amount = found.subtract["removed"][:, 0]
    ratio, error = ETA_DIMUON_RATIO
    assert amount[0] == pytest.approx(600 * ratio, rel=1e-3)
    assert found.subtract["removed"][0, 1] == pytest.approx(
        600 * ratio * np.hypot(error / ratio, 0.1), rel=1e-3
    )
    assert amount[1] == pytest.approx(0.02 * total(nominal.subtract)[0], rel=1e-6)
    assert [str(n) for n in found.unfold["source_names"]] == ["background", "eta to mu mu", "Bethe-Heitler"]
    shift = found.unfold["source_sizes"][2, 0]
    assert -0.03 < shift < 0


def test_methods_agree_with_each_other(made, nominal):
    value, sigma = total(nominal.unfold)
    for keys in (
        "method = 'tikhonov'",
        "method = 'tikhonov'\ntau = 1e-4\npenalty = 'difference'",
        "method = 'tikhonov'\ntau = 'least correlated'",
        "method = 'least squares'\nmass = { bins = 6, low = 0.2125, high = 1.1125 }",
        "method = 'iterative'\nn_iterations = 6",
        "method = 'likelihood'",
    ):
        found = made(unfolding=f"[unfold]\nn_replicas = 5\nscan = []\n{keys}\n")
        other, error = total(found.unfold)
        assert abs(other - value) < 3 * np.hypot(sigma, error), keys
        assert found.unfold["strength"] >= 0


def test_debiased_spectrum_has_the_same_errors_and_says_so(made, nominal):
    found = made(unfolding="[unfold]\nmethod = 'iterative'\nn_replicas = 5\nscan = []\ndebias = true\n")
    diagonal = np.eye(len(found.unfold["cov"]), dtype=bool)  # its least value depends on the result
    np.testing.assert_array_equal(found.unfold["cov"][~diagonal], nominal.unfold["cov"][~diagonal])
    np.testing.assert_allclose(found.unfold["cov"][diagonal], nominal.unfold["cov"][diagonal], rtol=0.2)
    moved = (found.unfold["values"] - nominal.unfold["values"]).ravel()
    inside = nominal.unfold["domain"].ravel()
    assert moved[inside].any()
    assert not moved[~inside].any()
    assert np.abs(moved.sum()) < total(nominal.unfold)[1]
    said = read_json(found.folder / "manifest.json")["methods"]["unfolded spectrum"]
    assert "bias from the finite simulation subtracted" in said


def test_omnifold_hands_its_weights_to_the_flow(made):
    """Sums over cells of 1 % efficiency and more: below 7 GeV, half of the true pairs, it extrapolates."""
    sources = "[systematics]\nbackground = true\npolarisation = 0.3\nefficiency = 0.02\n"
    measured = "energy = [0.2, 7.0, 30.0, 400.0]\nn_iterations = 2\nn_replicas = 5\n"
    found = made(unfolding=f"[unfold]\nmethod = 'omnifold'\n{measured}tolerance = 1e-9\n{sources}")
    binned = made(unfolding=f"[unfold]\nmethod = 'iterative'\n{measured}scan = []\n{sources}").unfold
    weight = found.unfold["omnifold_weight"]
    assert found.unfold["domain"].any(axis=(0, 1)).tolist() == [False, True, True]
    # common data and simulation: the difference scatters by less than the sum in quadrature
    (value, sigma), (other, error) = total(found.unfold), total(binned)
    assert abs(value - other) < 3 * np.hypot(sigma, error)
    assert sigma < 0.2 * value
    assert (weight >= 0).all()
    assert len(found.unfold["omnifold_change"]) == 2
    shifts, sizes = found.unfold["source_shifts"], found.unfold["source_sizes"]
    np.testing.assert_allclose(
        found.unfold["cov"] - found.unfold["statistical_cov"],
        shifts.T @ shifts,
        atol=1e-6 * found.unfold["cov"].max(),
    )
    np.testing.assert_array_equal(binned["source_names"], found.unfold["source_names"])
    inside = (found.unfold["values"].ravel() > 0) & (binned["values"].ravel() > 0)
    relative = [a["source_shifts"][:, inside] / a["values"].ravel()[inside] for a in (found.unfold, binned)]
    np.testing.assert_allclose(*relative, rtol=1e-9)
    assert sizes[2, 0] == pytest.approx(-0.02, rel=0.01)
    (table,) = uncertainties(found.unfold)
    assert table.columns["sum of the spectrum [%]"][3] == "-2.0"
    assert table.columns["source"][0] == "data and simulation statistics"
    arrays = dict(np.load(found.folder / "stages" / "match.npz"))
    matched = MatchedPairs(*(arrays[f] for f in ("true", "reco", "weight", "event", "fakes", "fake_weight")))
    beyond = matched.reco[:, 0] > 1.1125  # cut away in the data: no reason for a weight of zero
    assert beyond.sum() > 10
    assert weight[beyond].sum() / matched.weight[beyond].sum() > 0.3 * weight.sum() / matched.weight.sum()
    steering = config.load(found.folder.parent / "steering.toml")
    cache = open_cache(found.folder, resume=True, seed=1, mock=True)
    ctx = Context(steering, found.folder.parent, found.folder, cache, lambda *_: None)
    state = RunState(pairs=(), truth=Truth(matched), subtraction={}, unfolding={"omnifold_weight": weight})
    training = flow.training(ctx, state)
    inside = training.domain.in_domain(*matched.true.T) & (matched.true[:, 2] < 400)
    assert training.weight[training.measured].sum() == pytest.approx(weight[inside].sum(), rel=1e-9)


def test_systematic_sources_make_up_the_covariance(made, charmed):
    found = charmed.unfold
    names = [str(n) for n in found["source_names"]]
    assert names == [
        "background",
        "open charm",
        "polarisation of virtual photons",
        "final-state radiation",
        "momentum scale",
        "momentum resolution",
        "efficiency",
    ]
    shifts = found["source_shifts"]
    np.testing.assert_allclose(
        found["cov"] - found["statistical_cov"], shifts.T @ shifts, atol=1e-6 * found["cov"].max()
    )
    sizes = dict(zip(names, found["source_sizes"], strict=True))
    assert sizes["efficiency"][0] == pytest.approx(-0.02, rel=0.01)
    assert 0.02 < sizes["polarisation of virtual photons"][1] < 0.4
    assert 0.002 < sizes["final-state radiation"][1] < 0.2
    assert 0.002 < sizes["momentum scale"][1] < 0.2
    assert 0.0002 < sizes["momentum resolution"][1] < 0.1
    assert sizes["open charm"][0] < 0
    assert (found["statistics"] > 0).all()
    assert found["scan"].shape == (6, 4)
    smeared = made(
        unfolding="[unfold]\npreset = 'smeared mass, as the paper'\nmethod = 'iterative'\n"
        "n_replicas = 5\nscan = [1, 4]\n"
        "[systematics]\npolarisation = 0.3\n"
    )
    assert len(csv_rows(smeared.folder / "regularisation.csv")) == 2
    assert csv_rows(smeared.folder / "systematics.csv")[0]["source"] == "polarisation of virtual photons"


def test_pairs_with_weights_and_seeds_are_in_the_results(charmed):
    found = charmed
    chunks = list(read_pairs(found.folder / "pairs"))
    pairs = [chunk.pairs for chunk in chunks]
    assert sum(map(len, pairs)) == len(found.select["mass"])
    assert {"dx_1", "dy_2"} <= set(pairs[0].columns)
    np.testing.assert_array_equal(np.concatenate([c.signed for c in chunks]), found.subtract["weight"])
    np.testing.assert_array_equal(np.concatenate([c.posterior for c in chunks]), found.subtract["posterior"])
    np.testing.assert_array_equal(chunks[0].seed, event_seeds(pairs[0].event, dataset="keys"))


@pytest.mark.parametrize(
    ("subtracting", "unfolding", "named"),
    [
        (PLAIN + "r_mult = 1.1\n", "[unfold]\n[systematics]\ncharm = true\n", "systematics"),
        (PLAIN + CHARM.replace('"dx", "dy"', '"offset"'), "[unfold]\n", "charm.offset"),
        (PLAIN + CHARM.replace('["charm.root"]', '"simulation"'), "[unfold]\n", "charm.template"),
        ("[subtract]\nr_factor = 'simulation'\n", "[unfold]\n", "simulate"),
        ("[subtract]\ncontrol = { mass = [2.0, 3.0] }\n", "[unfold]\n", "control"),
    ],
)
def test_what_a_run_cannot_do_is_named(made, subtracting, unfolding, named):
    with pytest.raises(SteeringError, match=named):
        made(subtracting, unfolding)
