"""Figures of the measured half: contents, the MOCK label, and refusals."""

from functools import partial

import numpy as np
import pytest
from builders import counted, matched_pairs, pair_hists

from gammastar import unfold
from gammastar.core.records import regular, variable
from gammastar.core.sampling import stream
from gammastar.report.figures import measured as figures
from gammastar.report.measured import FlowCheck, flow_section
from gammastar.report.style import png_bytes
from gammastar.subtract import same_sign
from gammastar.unfold.folding import folded_again

AXES = (regular("mass", 30, 0.21, 1.11), variable("energy", [5, 10, 20, 40, 120]))


def simulated(rng, n):
    peak = rng.random(n) < 0.3
    mass = np.where(peak, rng.normal(0.78, 0.02, n), 0.22 + rng.exponential(0.3, n))
    true = np.stack([mass, rng.gamma(2, 0.35, n), 5 + rng.exponential(25, n)], axis=1)
    reco = true + rng.standard_normal((n, 3)) * np.array([0.03, 0.02, 0.5])
    chance = 0.7 * (1 - np.exp(-((mass / 0.5) ** 2))) * (1 - np.exp(-true[:, 2] / 15))
    reco[rng.random(n) > chance] = np.nan
    return matched_pairs(true, reco)


@pytest.fixture(scope="module")
def made():
    rng = stream(1, "figures")
    data, mc = simulated(rng, 60_000), simulated(rng, 120_000)
    columns = data.reco[data.reconstructed][:, [0, 2]]
    y = np.histogramdd(columns, [a.edges for a in AXES])[0]
    measured = counted(y, AXES, domain=y > 0)
    response = unfold.response(mc, AXES, AXES, n_replicas=10, rng=rng)
    return measured, response


def hists(measured):
    mass = (AXES[0],)
    m = AXES[0].centers
    pp, mm = (np.round(scale * np.exp(-m / 0.3)) for scale in (900.0, 600.0))
    os = measured.values.sum(axis=1) + 2 * np.sqrt(pp * mm)
    return pair_hists(os, pp, mm, mass)


def texts(figure):
    found = [t.get_text() for ax in figure.axes for t in ax.texts]
    for ax in figure.axes:
        legend = ax.get_legend()
        found += [t.get_text() for t in legend.get_texts()] if legend else []
    return " ".join(found)


@pytest.mark.long
def test_subtraction_with_r_band_and_charm(made):
    measured, _ = made
    found = hists(measured)
    value = np.linspace(20, 60, 30)
    figure = figures.subtraction_figure(
        found, same_sign(found), mock=True, r_factor_sigma=0.08, charm=(value, 0.2 * value)
    )
    assert "MOCK" in texts(figure)
    assert "open charm" in texts(figure)
    assert png_bytes(figure)[:4] == b"\x89PNG"
    assert "charm" not in texts(figures.subtraction_figure(found, same_sign(found), mock=False))


@pytest.mark.long
def test_scan_refolding_and_domain(made):
    measured, response = made
    candidates = {str(n): partial(unfold.iterative, n_iterations=n) for n in (1, 2, 4, 8)}
    tilted = response.prior * np.tile(np.linspace(0.85, 1.15, 30)[:, None], 4).ravel()
    points = [
        figures.RegularisationPoint(float(c.name), c.chi2_ndf, c.correlation, c.error, c.bias)
        for c in unfold.scan(measured, response, candidates, alternatives={"tilt": tilted / 2})
    ]
    figure = figures.scan_figure(points, mock=True, chosen=4)
    assert "chosen: 4" in texts(figure)
    none = [figures.RegularisationPoint(n, 1e-18, 1e-18, 1e-18, 1e-18) for n in (1.0, 2.0)]
    assert png_bytes(figures.scan_figure(none, mock=True))  # without smearing; a whole run found it
    unfolded = candidates["8"](measured, response)
    chi2 = unfold.refolding(unfolded, measured, response)
    folded = folded_again(unfolded, response)
    folded[:8] = np.nan  # two bins of mass that the χ² leaves out
    figure = figures.refolded_spectrum(measured, folded, chi2, mock=True)
    assert "folded again" in texts(figure)
    line, drawn = figure.axes[0].patches[0].get_data().values, figure.axes[0].lines[0].get_ydata()
    np.testing.assert_allclose(line, np.nan_to_num(folded).reshape(30, 4).sum(axis=1))
    np.testing.assert_allclose(drawn[2:], measured.values.sum(axis=1)[2:])
    assert not line[:2].any()
    assert not np.any(drawn[:2])
    assert "MOCK" in texts(figures.domain_map(response, 0.05, mock=True))


def test_table_of_sources_adds_in_quadrature():
    table = figures.sources_table([("R", 0.03, 0.05), ("efficiency", -0.04, 0.04)], 0.0, 0.12)
    assert table.columns["source"][-1] == "all, in quadrature"
    assert table.columns["sum of the spectrum [%]"] == ["+0.0", "+12.0", "+3.0", "-4.0", "13.0"]


def test_a_flow_with_replicas_and_no_mass_to_draw():
    names = ("n_pairs", "effective_size", "train_loss", "validation_loss", "best_epoch")
    kept = dict(
        zip(names, (np.array(900), np.array(500.0), np.ones(2), np.ones(2), np.array(1)), strict=True)
    )
    losses = [((1.0, 0.9), (1.0, 0.95)), ((1.1, 0.8), (1.0, 0.9))]
    found = FlowCheck([], 0.05, [], [], members=[], losses=losses, kept=kept)
    ((caption, _),) = flow_section(found, mock=True).figures
    assert "spread of 2 bootstrap replicas" in caption
