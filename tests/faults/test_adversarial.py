"""A short draw of the adversarial campaign: hostile values, names, documents and folders."""

import sys

import numpy as np
import pytest
from injection import adversarial, attacks, tampered


@pytest.mark.long
@pytest.mark.flow
def test_a_draw_of_everything(tmp_path):
    pytest.importorskip("hepdata_validator")
    found = {what: (tried.n, tried.wrong) for what, tried in attacks.draw(tmp_path)}
    assert {what: wrong for what, (_, wrong) in found.items() if wrong} == {}
    assert sum(n for n, _ in found.values()) > 700


@pytest.mark.slow
def test_kept_stages_that_were_changed_with_their_digests(tmp_path):
    found = tampered.try_stages(tmp_path, 12, 99)
    assert (found.n, found.wrong) == (12, [])


@pytest.mark.long
def test_what_goes_wrong_is_seen():
    """The campaign counts crashes, hangs, exits and messages that say nothing or too much."""
    tried = adversarial.Tried()

    def hangs():
        while True:
            np.ones(10).sum()

    def says(text):
        raise adversarial.GammastarError(text)

    def fills():
        return [str(np.ones(1 << 40).sum())]

    for work in (
        hangs,
        lambda: 1 / 0,
        lambda: sys.exit(1),
        lambda: says(""),
        lambda: says("x" * 5000),
        fills,
    ):
        assert not tried.attempt("x", work, 0.3)
    assert tried.attempt("x", lambda: says("file.toml: key: wrong"))
    assert (tried.n, len(tried.wrong)) == (7, 6)
    assert set(map(tuple, adversarial.keys())) >= {("select", "mass"), ("subtract", "charm", "edges")}
