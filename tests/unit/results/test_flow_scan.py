"""The scan of Appendix A goes on where it stopped."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("zuko")

from builders import decay_like

from gammastar.core.errors import PhysicsError
from gammastar.flow import FlowOptions
from gammastar.flow.architecture_scan import scan
from gammastar.flow.options import Table

pytestmark = pytest.mark.flow


def test_scan_resumes(tmp_path):
    rng = np.random.default_rng(1)
    train, test = np.column_stack(decay_like(2500, rng)), np.column_stack(decay_like(4000, rng))
    pairs = Table(*train.T.copy(), np.ones(2500), np.arange(2500))
    base = FlowOptions(epochs=1, epoch_size=2048, hidden=8, bins=4)
    arguments = {"beam_energy": 400.0, "base": base, "file": tmp_path / "scan.jsonl", "n_draws": 2}
    first = scan(pairs, test, grid={"hidden": (8,)}, seeds=(1,), masses=(0.5,), **arguments)
    content = (tmp_path / "scan.jsonl").read_text()
    both = scan(pairs, test, grid={"hidden": (8, 16)}, seeds=(1,), masses=(0.5,), **arguments)
    assert both[0] == first[0]
    assert (tmp_path / "scan.jsonl").read_text().startswith(content)
    assert both[1].parameters > both[0].parameters
    assert np.isfinite([both[1].loss, *both[1].divergence]).all()
    (tmp_path / "scan.jsonl").write_text("{}\n")
    with pytest.raises(PhysicsError, match="line 1"):
        scan(pairs, test, grid={"hidden": (8,)}, **arguments)
    with pytest.raises(PhysicsError, match="no option"):
        scan(pairs, test, grid={"colour": (1,)}, **arguments)
