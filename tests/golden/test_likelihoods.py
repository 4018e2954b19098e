"""CLs of published likelihoods equal the published values."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gammastar.infer import read_likelihood, scan

ARCHIVE = "pyhf-ins1748602-probability-models.tar.gz"
SBOTTOM = [  # HEPData 10.17182/hepdata.89408.v3/r2; values of pyhf's regression tests
    ("RegionA", "sbottom_1300_205_60", 0.24443627759085326),
    ("RegionA", "sbottom_1400_950_60", 0.021373283911064852),
    ("RegionA", "sbottom_1500_850_60", 0.045367205665400624),
    ("RegionB", "sbottom_1400_550_60", 0.9744675266677597),
    ("RegionC", "sbottom_1600_850_60", 0.711023707425625),
]
TUTORIAL = {  # the two-bin example of pyhf's documentation
    "channels": [
        {
            "name": "singlechannel",
            "samples": [
                {
                    "name": "signal",
                    "data": [12.0, 11.0],
                    "modifiers": [{"name": "mu", "type": "normfactor", "data": None}],
                },
                {
                    "name": "background",
                    "data": [50.0, 52.0],
                    "modifiers": [{"name": "uncorr_bkguncrt", "type": "shapesys", "data": [3.0, 7.0]}],
                },
            ],
        }
    ],
    "observations": [{"name": "singlechannel", "data": [51.0, 48.0]}],
    "measurements": [{"name": "Measurement", "config": {"poi": "mu", "parameters": []}}],
    "version": "1.0.0",
}


@pytest.mark.slow
@pytest.mark.parametrize(("region", "name", "expected"), SBOTTOM)
def test_sbottom(region, name, expected):
    root = Path(os.environ.get("GAMMASTAR_TESTDATA", "nowhere"))
    found = [p for p in (root / ARCHIVE, root / "likelihoods" / ARCHIVE) if p.is_file()]
    if not found:
        pytest.skip(f"GAMMASTAR_TESTDATA holds no {ARCHIVE}")
    (point,) = scan(read_likelihood(found[0], region=region), [name])
    assert point.observed == pytest.approx(expected, rel=2e-5)
    assert list(point.expected) == sorted(point.expected)


def test_tutorial(tmp_path):
    (tmp_path / "2-bin_1-channel.json").write_text(json.dumps(TUTORIAL))
    (point,) = scan(read_likelihood(tmp_path / "2-bin_1-channel.json"))
    assert point.observed == pytest.approx(0.0525155253, rel=1e-6)  # pyhf, Minuit, tolerance 1e-6
    assert point.method.startswith("asymptotic CLs")
