"""The background of the how-to on limits, against its own arithmetic."""

import re

import numpy as np
import pytest
from builders import ROOT


def test_the_background_of_the_page(capsys):
    text = (ROOT / "docs" / "howto" / "limits.md").read_text()
    text = text[text.index("## A background of your own") :]
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    exec(code, {})  # noqa: S102
    lines = dict(line.split("#")[0].split(" = ") for line in capsys.readouterr().out.splitlines())
    # uniform priors: the mean of a fraction k/n is (k + 1)/(n + 2)
    mean = 12 * 4 / 4002 * 1 / 502
    assert float(lines["background"]) == pytest.approx(mean, rel=0.02)
    relative = [np.sqrt((1 - (k + 1) / (n + 2)) / (k + 1)) for k, n in ((3, 4000), (0, 500))]
    spread = np.sqrt(np.prod([1 + r**2 for r in (0.5, *relative)]) - 1)
    assert float(lines["background_sigma"]) == pytest.approx(np.log1p(spread), rel=0.05)
