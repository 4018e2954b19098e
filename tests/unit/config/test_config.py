"""The steering file names the wrong key."""

import pytest

from gammastar import config
from gammastar.core.errors import SteeringError
from gammastar.core.files import data_path
from gammastar.pipeline.checks import check_steering

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
