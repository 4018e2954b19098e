"""Workspaces of a peak search against its own fit, and beside another channel."""

from __future__ import annotations

import numpy as np
import pyhf
import pytest
from jsonpatch import apply_patch
from scipy.stats import norm

from gammastar.core.errors import PhysicsError
from gammastar.core.sources import Source, Sources
from gammastar.infer import combine, workspace
from gammastar.infer.histfactory.patchsets import peak_patchset, peak_workspace
from gammastar.physics.detector import MassResolution
from gammastar.predict.in_situ import Background, InSitu, Templates, search_in_situ

MASSES = np.array([0.55, 0.7, 0.75])
PER_COUPLING = np.array([3e6, 2e6, 2e6])


@pytest.fixture(scope="module")
def search() -> InSitu:
    """A MOCK search with a line at 0.78 GeV, an error of 5 % of the signal and a model that leaves peaks."""
    edges = np.linspace(0.4, 1.0, 91)
    gaussian = MassResolution.gaussian(0.8, 0.02)
    centre = 0.5 * (edges[1:] + edges[:-1])
    smooth, line = 2000 * np.exp(-3 * centre), 6000 * gaussian.cells([0.78], edges)[0]
    moved = 6000 * gaussian.cells([0.781], edges) - line
    known = Background(2, smooth, line[None], np.array([0.78]), np.array([0.05]), moved, ("omega",))
    templates = Templates(edges, np.rint(smooth + line), known, gaussian, 4.0)
    bent = (smooth + line) * (1 + 0.02 * norm.pdf((centre - 0.7) / 0.03))
    sources = Sources((Source.shifted("measurement", "spectrum", 0.05 * PER_COUPLING),))
    return search_in_situ(templates, MASSES, PER_COUPLING, sources, truths=[bent])


def spaces(search: InSitu) -> list[dict]:
    level = search.expected(["spectrum"], 0.9)[:, 2]
    return [
        peak_workspace(
            "in_situ",
            level[i] * search.signal[i] * search.window(i).peak,
            search.window(i),
            errors={"measurement": 0.05},
            spurious=float(search.spurious[i]),
        )
        for i in range(len(MASSES))
    ]


@pytest.mark.long
def test_the_workspace_expects_the_limit_of_the_fit(search: InSitu) -> None:
    """At the median expected limit of the fit pyhf finds CLs = 0.1, within 5 % of the strength."""
    for space in spaces(search):
        model = pyhf.Workspace(space).model()
        data = pyhf.Workspace(space).data(model)
        expected = [
            float(pyhf.infer.hypotest(mu, data, model, test_stat="qtilde", return_expected=True)[1])
            for mu in (0.95, 1.05)
        ]
        assert expected[0] > 0.1 > expected[1]


def test_the_background_of_the_workspace_is_the_fit(search: InSitu) -> None:
    for i, space in enumerate(spaces(search)):
        model = pyhf.Workspace(space).model()
        start = np.array(model.config.suggested_init())
        start[model.config.poi_index] = 0.0
        window = search.window(i)
        np.testing.assert_allclose(model.expected_actualdata(start), window.expected, rtol=1e-3)
        assert (window.smooth >= 0).all()
        assert space["measurements"][0]["name"] == "limit_masked"


def test_patches_make_every_mass(search: InSitu) -> None:
    found = spaces(search)
    coupling = np.sqrt(search.expected(["spectrum"], 0.9)[:, 2])
    patches = peak_patchset(found, MASSES, coupling, base=1)
    assert [patch["metadata"]["values"] for patch in patches["patches"]] == [
        [float(m), float(e)] for m, e in zip(MASSES, coupling, strict=True)
    ]
    for patch, space in zip(patches["patches"], found, strict=True):
        assert apply_patch(found[1], patch["patch"]) == space
    with pytest.raises(PhysicsError, match="3 workspaces"):
        peak_patchset(found, MASSES[:2], coupling, base=0)


def test_it_combines_with_another_search(search: InSitu) -> None:
    """With an independent counting channel of the same strength the limit is better than that of either."""
    other = workspace("dump", 3.0, 0.2)
    other["channels"][0]["samples"][0]["data"] = [3.0]
    both = combine([spaces(search)[0], other])
    assert pyhf.Workspace(both).channels == ["dump", "in_situ"]
    found = []
    for space in (spaces(search)[0], other, both):
        model = pyhf.Workspace(space).model()
        data = pyhf.Workspace(space).data(model)
        found.append(float(pyhf.infer.hypotest(1.0, data, model, test_stat="qtilde")))
    assert found[2] < min(found[:2])


def test_observed_counts_unmask_it(search: InSitu) -> None:
    window = search.window(0)
    counts = search.templates.pairs[window.bins]
    options = {"errors": {}, "observed": counts}
    space = peak_workspace("in_situ", window.peak, window, **options)
    assert space["measurements"][0]["name"] == "limit"
    assert space["observations"][0]["data"] == counts.tolist()
