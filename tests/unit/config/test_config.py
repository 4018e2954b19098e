"""The steering file names the wrong key, and keys that contradict each other."""

import pytest

from gammastar import config
from gammastar.config.checks import check_steering
from gammastar.core.errors import SteeringError
from gammastar.core.files import data_path

GOOD = {
    "analysis": {"name": "a"},
    "read": {"files": ["x.root"], "schema": "s.toml"},
    "select": {"mass": [0.2, 0.4, 0.6]},
}


def test_good_steering_is_frozen():
    steering = config.parse(GOOD)
    assert steering.flow is None
    with pytest.raises(Exception, match="frozen"):
        steering.analysis.seed = 3


@pytest.mark.parametrize(
    ("section", "key", "value", "match"),
    [
        ("select", "mas", 1, "select.mas"),
        ("select", "mass", [0.4, 0.2], "must increase"),
        ("select", "mass", {"bins": 3, "low": 0.2}, "select.mass"),
        ("subtract", "method", "B9", "subtract.method"),
        ("infer", "cl", 90, "infer.cl"),
        ("flow", "epochs", 0, "flow.epochs"),
        ("analysis", "name", "../x", "analysis.name"),
    ],
)
def test_wrong_key_is_named(section, key, value, match):
    content = {name: dict(table) for name, table in GOOD.items()}
    content.setdefault(section, {})[key] = value
    with pytest.raises(SteeringError, match=match):
        config.parse(content)


def test_missing_predecessor_is_named():
    with pytest.raises(SteeringError, match=r"\[unfold\] needs the section \[subtract\]"):
        config.parse({**GOOD, "unfold": {}})


def test_not_toml(tmp_path):
    path = tmp_path / "s.toml"
    path.write_text("a = = 1")
    with pytest.raises(SteeringError, match="is not TOML"):
        config.load(path)
    with pytest.raises(SteeringError, match="cannot be read"):
        config.load(tmp_path / "absent.toml")


def test_bins_are_spelled_out():
    content = {**GOOD, "select": {"mass": {"bins": 4, "low": 0.2, "high": 1.0}}}
    assert config.parse(content).select.mass == (0.2, 0.4, 0.6, 0.8, 1.0)


def test_check_reads_the_card(tmp_path):
    text = data_path("cards/na60_mock.toml").read_text()
    (tmp_path / "mine.toml").write_text(f'colour = "blue"\n{text}')
    steering = config.parse(
        {**GOOD, "simulate": {"card": "mine.toml", "engine": "toy", "n_pairs": 10, "n_response": 10}}
    )
    found = [str(finding) for finding in check_steering(steering, tmp_path)]
    assert any("mine.toml: colour: unknown key" in line and "simulate.card" in line for line in found)


@pytest.mark.parametrize(
    ("section", "keys", "named"),
    [
        ("subtract", {"method": "sum", "r_factor": 1.1}, "r_factor"),
        ("subtract", {"method": "mixed events", "r_factor": 1.1}, "r_factor"),
        ("subtract", {"r_factor": "mixed", "r_factor_sigma": 0.1}, "r_factor_sigma"),
        ("subtract", {"r_factor": "simulation", "r_mult": 1.1}, "r_mult"),
        ("subtract", {"r_coarse": {"mass": [0.2, 1.0]}}, "r_coarse"),
        ("subtract", {"mixed_pairs": 5000}, "mixed_pairs"),
        ("subtract", {"method": "mixed events", "weights": "signed"}, "weights"),
        ("subtract", {"method": "mixed events", "bootstrap": 100}, "bootstrap"),
        ("subtract", {"corrections": [{"name": "x", "files": ["a"], "sigma": 1}]}, "pairs and fraction"),
        ("subtract", {"corrections": [{"name": "x", "kind": "eta to mu mu", "pairs": 3}]}, "n_dalitz"),
        ("unfold", {"method": "tikhonov", "n_iterations": 4}, "n_iterations"),
        ("unfold", {"tau": 0.1}, "tau"),
        ("unfold", {"preset": "smeared mass, as the paper", "method": "tikhonov"}, "method"),
        ("unfold", {"method": "omnifold", "n_replicas": 0}, "n_replicas"),
        ("unfold", {"preset": "smeared mass, as the paper", "mass": [0.2, 1.0]}, "mass"),
        ("unfold", {"method": "least squares", "scan": [1]}, "scan"),
        ("unfold", {"tolerance": 0.1}, "tolerance"),
        ("unfold", {"debias": True, "n_replicas": 1}, "debias"),
        ("unfold", {"debias": True, "method": "tikhonov"}, "debias"),
        ("systematics", {"polarization": 0.1}, "polarization"),
    ],
)
def test_contradictory_keys_are_refused(section, keys, named):
    content = {
        "analysis": {"name": "x"},
        "read": {"schema": "s.toml"},
        "select": {"mass": [0.2, 1.1]},
        "subtract": {},
        section: keys,
    }
    with pytest.raises(SteeringError, match=named):
        config.parse(content)
