"""The report of a run: what it shows of the flow is what `check` says."""

from types import SimpleNamespace

import numpy as np
import pytest
from builders import ROOT

from gammastar import config
from gammastar.config.checks import check_steering
from gammastar.pipeline.stages import report

SMALL = ROOT / "analysis" / "na60_dimuon" / "small.toml"


@pytest.mark.parametrize(
    "masses", [[0.3, 0.77], [5.0], [0.2, 0.3], [1e-3, 0.5, 1.09], [0.2151, 1.0], [0.77, 0.3], []]
)
def test_masses_are_shown_where_check_has_no_warning(tmp_path, monkeypatch, masses):
    text = SMALL.read_text().replace("flow_masses = [0.3, 0.77]", f"flow_masses = {masses}")
    (tmp_path / "steering.toml").write_text(text)
    steering = config.load(tmp_path / "steering.toml")
    checked = check_steering(steering, SMALL.parent, open_files=False)
    assert [finding for finding in checked if finding.level == "error"] == []
    told = [finding.message for finding in checked if finding.where == "report.flow_masses"]
    edges = steering.unfold.mass or steering.select.mass
    mass = np.linspace(edges[0], edges[-1], 4000)
    training = SimpleNamespace(mass=mass, pt=mass, energy=mass, reference=np.ones_like(mass))
    flow = SimpleNamespace(mass_range=(edges[0], edges[-1]), sample=lambda m, _: (m, m))
    seen = []
    monkeypatch.setattr(report.measured_half, "flow_section", lambda found, **_: seen.append(found))
    ctx = SimpleNamespace(steering=steering, seed=1, folder=tmp_path, cache=SimpleNamespace(mock=True))
    report._kinematics(ctx, SimpleNamespace(flow=flow, training=training, learning={}))
    left = [f"{m:g}" for m in masses if m not in seen[0].masses]
    assert [text.split(" GeV")[0] for text in told] == ([", ".join(left)] if left else [])
    alarms = []  # and a window whose weights add up to nothing is left out with an alarm
    ctx.cache.alarm = alarms.append
    training.reference = np.zeros_like(mass)
    report._kinematics(ctx, SimpleNamespace(flow=flow, training=training, learning={}))
    assert len(alarms) == len(masses) - len(left)
    assert all("no weight of pairs" in text for text in alarms)
    assert seen[1].masses == []
