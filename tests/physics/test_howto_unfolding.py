"""The page on unfolding runs as written, and its checks come out as it says."""

import re
import runpy

import numpy as np
import pytest
from builders import ROOT

PAGE = ROOT / "docs" / "howto" / "unfolding.md"


@pytest.mark.slow
def test_page_runs_and_its_statements_hold(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "page.py").write_text("\n".join(blocks))
    names = runpy.run_path(str(tmp_path / "page.py"))
    study = names["study"]
    assert study.coverage.mean() == pytest.approx(0.68, abs=0.03)
    assert study.width.mean() == pytest.approx(1, abs=0.06)
    assert names["slope"] == pytest.approx(1, abs=0.02)
    ratio = names["response"].prior.sum() / names["truth"].sum()
    assert names["expected"] == pytest.approx(20 * (1 + 1 / ratio), rel=0.02)
    assert names["chi2"] == pytest.approx(names["expected"], abs=3 * np.sqrt(2 * names["expected"]))
    assert 40 * study.refolding_ndf == pytest.approx(names["expected"], rel=0.15)
    for before, after in names["lines"].values():
        assert after < 1.05 * before
    edges, n = names["true_axis"].edges, names["data_true"]
    assert np.isfinite(names["shift"]).all()
    truth = np.histogram(n[:5000], edges)[0]
    pull = (names["spectrum"](names["weight"]) - truth) / np.sqrt(truth)
    assert np.abs(pull).mean() < 2.5
    assert 1 <= len(names["found"].history) <= 3
