"""Scale factors of simulation, against tables looked up by hand."""

import awkward as ak
import numpy as np
import pytest
from builders import matched_pairs

from gammastar import select, unfold
from gammastar.core.errors import InputFileError, SteeringError
from gammastar.core.records import variable
from gammastar.select import scale_factors
from gammastar.unfold.systematics import response_variations

schema = pytest.importorskip("correctionlib.schemav2")
EDGES, FACTORS = [0.0, 5.0, 20.0, 1e4], [0.8, 0.95, 1.02]
UP, DOWN = [0.82, 0.96, 1.03], [0.77, 0.94, 1.01]


@pytest.fixture
def file(tmp_path):
    def binned(values):
        return {"nodetype": "binning", "input": "p", "edges": EDGES, "content": values, "flow": "error"}

    ways = {"nominal": FACTORS, "up": UP, "down": DOWN}
    content = [{"key": key, "value": binned(values)} for key, values in ways.items()]
    one = {
        "name": "identification",
        "version": 1,
        "inputs": [{"name": "way", "type": "string"}, {"name": "p", "type": "real"}],
        "output": {"name": "factor", "type": "real"},
        "data": {"nodetype": "category", "input": "way", "content": content},
    }
    path = tmp_path / "muons.json"
    path.write_text(schema.CorrectionSet(schema_version=2, corrections=[one]).model_dump_json())
    return path


def factor(file, **changes):
    asked = {"correction": "identification", "inputs": {"way": "nominal", "p": "momentum"}, "varied": "way"}
    asked |= {"variations": {"muon identification": ("up", "down")}}
    return select.ScaleFactor(file, **asked | changes)


def events(momenta):
    px = ak.Array(momenta) * 0.02
    lepton = ak.zip({"px": px, "py": 0.5 * px, "pz": ak.Array(momenta)})
    for name, value in (("mass", 0.10566), ("charge", 1.0)):
        lepton = ak.with_field(lepton, ak.ones_like(px) * value, name)
    first = ak.local_index(px) == 0
    lepton = ak.with_field(lepton, ak.where(first, 1.0, -1.0), "charge")
    n = len(momenta)
    return ak.zip({"weight": np.full(n, 2.0), "event": np.arange(n), "lepton": lepton}, depth_limit=1)


def test_a_pair_has_the_product_of_its_leptons(file):
    pairs, _ = select.pairs(events([[3.0, 30.0], [10.0, 40.0]]), select.Cuts(scale_factors=[factor(file)]))
    assert pairs.weight == pytest.approx([2 * 0.8 * 1.02, 2 * 0.95 * 1.02])
    assert pairs.columns["scale_factor"] == pytest.approx([0.8 * 1.02, 0.95 * 1.02])
    up = pairs.columns["scale_factor muon identification up"]
    assert up == pytest.approx([0.82 * 1.03 / 0.8 / 1.02, 0.96 * 1.03 / 0.95 / 1.02])


def test_factors_of_pairs_multiply_and_one_source_moves_both(file):
    both = [factor(file), factor(file, of="pair", inputs={"way": "nominal", "p": "energy"})]
    pairs, _ = select.pairs(events([[3.0, 4.0]]), select.Cuts(scale_factors=both))
    assert pairs.weight == pytest.approx([2 * 0.8**2 * 0.95])
    down = pairs.columns["scale_factor muon identification down"]
    assert down == pytest.approx([(0.77 / 0.8) ** 2 * 0.94 / 0.95])
    assert len(scale_factors.sources_of(both)) == 2


def test_the_efficiency_has_the_factor_and_the_generated_photons_stay():
    """By hand: of four photons of weight 1 two are seen, with factors 0.5 and 1.2."""
    true = np.tile([0.5, 0.3, 30.0], (4, 1))
    reco = true.copy()
    reco[2:] = np.nan
    column = "scale_factor trigger up"
    columns = {"scale_factor": np.array([0.5, 1.2, np.nan, np.nan])}
    columns |= {column: np.array([0.8, 1.5, np.nan, np.nan])}
    matched = matched_pairs(true, reco, columns=columns)
    found = next(scale_factors.corrected(iter([matched])))
    axes = (variable("mass", [0.2, 1.0]), variable("pt", [0.0, 2.0]), variable("energy", [0.0, 100.0]))
    response = unfold.response(found, axes, axes, n_replicas=0)
    assert response.prior == pytest.approx([4.0])
    assert response.efficiency == pytest.approx([(0.5 + 1.2) / 4])
    (moved,) = response_variations([found], response, scale_factors=[("trigger", column)])
    assert moved.response.efficiency == pytest.approx([(0.5 * 0.8 + 1.2 * 1.5) / 4])
    assert moved.response.prior == pytest.approx([4.0])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"correction": "tracking"}, "has no correction 'tracking', but identification"),
        ({"inputs": {"way": "nominal"}}, "missing ['p']"),
        ({"inputs": {"way": "nominal", "p": "momentum", "q": 1.0}}, "unknown ['q']"),
        ({"varied": ""}, "must name the input"),
        ({"varied": "systematic"}, "must name the input"),
        ({"variations": {}}, "only with some"),
    ],
)
def test_what_does_not_fit_the_file_is_told(file, changes, said):
    with pytest.raises(SteeringError) as error:
        factor(file, **changes)
    assert said in str(error.value)
    assert "muons.json" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "momenta"),
    [
        ({}, [[3.0, 2e4]]),
        ({"inputs": {"way": "other", "p": "momentum"}}, [[3.0, 30.0]]),
        ({"inputs": {"way": "nominal", "p": "momentun"}}, [[3.0, 30.0]]),
    ],
)
def test_what_the_file_cannot_answer_is_told(file, changes, momenta):
    with pytest.raises(InputFileError, match=r"muons\.json: correction 'identification' with inputs"):
        select.pairs(events(momenta), select.Cuts(scale_factors=[factor(file, **changes)]))


def test_a_file_that_changes_is_read_again(file):
    cuts = select.Cuts(scale_factors=[factor(file)])
    before = select.pairs(events([[3.0, 4.0]]), cuts)[0].weight
    file.write_text(file.read_text().replace("0.8,", "0.25,"))
    after = select.pairs(events([[3.0, 4.0]]), cuts)[0].weight
    assert (before, after) == (pytest.approx([2 * 0.8**2]), pytest.approx([2 * 0.25**2]))


def test_damaged_files_are_told(tmp_path):
    (tmp_path / "bad.json").write_text('{"corrections": [}')
    with pytest.raises(InputFileError, match=r"bad\.json: cannot be read"):
        factor(tmp_path / "bad.json")
    with pytest.raises(InputFileError, match=r"absent\.json"):
        factor(tmp_path / "absent.json")
