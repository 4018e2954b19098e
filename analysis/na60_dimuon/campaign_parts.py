"""One pseudo-experiment: MOCK ntuples written and read again, pairs, subtraction, unfolding, covariance."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

from gammastar import mock, read, select, subtract, unfold
from gammastar.core.files import data_path
from gammastar.core.records import variable
from gammastar.core.sampling import stream
from gammastar.mock.card import Polarisation
from gammastar.store.events import write_tree
from gammastar.subtract.charm import subtract_component
from gammastar.unfold import response_matrix

__all__ = ["AXES", "ENERGY", "MASS", "PT", "SETTINGS", "Variant", "campaign", "with_prior"]

MASS = [round(0.2125 + 0.05 * i, 4) for i in range(19)]
PT = [0.0, 0.3, 0.6, 1.0, 6.0]
ENERGY = [0.2, 6.0, 9.0, 12.0, 16.0, 22.0, 32.0, 48.0, 80.0, 400.0]
AXES = tuple(variable(n, e) for n, e in (("mass", MASS), ("pt", PT), ("energy", ENERGY)))
FINE = np.arange(MASS[0], MASS[-1] + 1e-9, 0.0125)  # measured mass, for the yields of the sources [GeV]
QUANTILES = np.linspace(0.0, 1.0, 9)  # of measured pt and energy, for the shape of the simulation
N_PAIRS, N_RESPONSE, N_SHAPE = 30_000, 250_000, 400_000
CHARM_SIGMA = 0.2  # relative error of the charm yield that a fit of vertex offsets leaves
SCHEMA = Path(__file__).with_name("schema.toml")


@dataclass(frozen=True)
class Variant:
    """What one set of campaigns changes; every campaign's simulation has a prior of its own.

    Attributes
    ----------
    prior : {"thrown", "nominal"}
        Of the simulation: thrown around that of the data, with the card's prior "varied" as one standard
        deviation of every parameter; or that of the data itself.
    background : bool
        Combinatorial pairs in the data.
    r_factor : float or None
        R of the subtraction; None takes that of the simulation with its error.
    charm : {"none", "left in", "subtracted"}
        Open charm in the data, and what is done about it.
    sigma_p : float
        Momentum resolution of the simulation over that of the data.
    polarisation : float
        λθ of the vector mesons in the data; the simulation is unpolarised.
    tuned : bool
        Reweight the simulation to the data before it makes the response.
    n_iterations : int
    n_response : int
        Simulated events with a pair.
    debias : bool
        Subtract the bias that the finite simulation makes.
    """

    prior: str = "thrown"
    background: bool = True
    r_factor: float | None = None
    charm: str = "none"
    sigma_p: float = 1.0
    polarisation: float = 0.0
    tuned: bool = True
    n_iterations: int = 6
    n_response: int = N_RESPONSE
    debias: bool = True


SETTINGS = {
    "nominal": Variant(),
    "no background": Variant(background=False),
    "R = 1": Variant(r_factor=1.0),
    "charm left in": Variant(charm="left in"),
    "charm subtracted": Variant(charm="subtracted"),
    "resolution +10 %": Variant(sigma_p=1.1),
    "polarisation 0.3": Variant(polarisation=0.3),
    "same prior": Variant(prior="nominal"),
    "not tuned": Variant(tuned=False),
    "more simulation": Variant(n_response=4 * N_RESPONSE),
    "not debiased": Variant(debias=False),
}


def campaign(card: Any, variant: Variant, seed: int) -> dict[str, Any]:
    """Return the result of one campaign, per proton on target.

    Returns
    -------
    dict
        ``values`` and ``cov``: unfolded cells and their statistical covariance; ``untuned``: the cells from
        a response that was not tuned to the data, less the same bias; ``shape`` and ``other``: cells of the
        simulation and of the same one standard deviation away in pt and rapidity.
    """
    schema = read.load_schema(SCHEMA)
    truth, response = _data_card(card, variant), _response_card(card, variant, seed)
    data = mock.simulate_events(truth, N_PAIRS, kind="data", seed=seed)
    sample = mock.simulate_events(response, variant.n_response, kind="mc", seed=seed + 100_000)
    with tempfile.TemporaryDirectory() as folder:
        files = [str(Path(folder) / f"{name}.root") for name in ("data", "mc")]
        for name, events in zip(files, (data, sample), strict=True):
            write_tree(Path(name), {"events": events.branches, "meta": events.meta_branches()})
        chunks = [select.pairs(chunk)[0] for chunk in read.open_events(files[0], schema)]
        matched = read.matched(files[1], schema, lambda events: select.pairs(events)[0])
    pairs = type(chunks[0]).concatenate(chunks)
    r = {"r_factor": data.meta["r_factor"] if variant.background else 1.0, "r_factor_sigma": 0.0}
    if variant.r_factor is not None:
        r["r_factor"] = variant.r_factor
    elif variant.background:
        r["r_factor_sigma"] = data.meta["r_factor_sigma"]
    measured = subtract.same_sign(select.fill(pairs, AXES), **r)
    if variant.charm == "subtracted":
        measured = _without_charm(measured, truth, data.meta["N_POT"], seed)
    used = tuned(matched, sample.branches["gen_process"], pairs, r) if variant.tuned else matched
    found = unfold.response(used, AXES, AXES, n_replicas=40, rng=stream(seed, "response"))
    options = {"n_iterations": variant.n_iterations}
    result = unfold.iterative(measured, found, debias=variant.debias, **options)
    before = unfold.response(matched, AXES, AXES, n_replicas=0)
    plain = [
        unfold.iterative(measured, r, **options) for r in (response_matrix.without_replicas(found), before)
    ]
    by_tuning = plain[1].values - plain[0].values
    pot = float(data.meta["N_POT"])
    return {
        "values": result.values.ravel() / pot,
        "cov": (result.cov / pot**2).astype(np.float32),
        "untuned": (result.values + by_tuning).ravel() / pot,
        "shape": _shape(response, seed),
        "other": _shape(response.with_prior("varied"), seed),
    }


def _data_card(card: Any, variant: Variant) -> Any:
    """Return the card of the data."""
    changes: dict[str, Any] = {}
    if not variant.background:
        changes["background"] = card.background.model_copy(update={"fraction": 0.0})
    if variant.charm != "none":
        changes["charm"] = mock.load_card(data_path("cards/na60_full.toml")).charm
    if variant.polarisation:
        spin = Polarisation(theta=variant.polarisation, frame="helicity")
        changes["modes"] = {
            key: mode if mode.kind.endswith("dalitz") else mode.model_copy(update={"polarisation": spin})
            for key, mode in card.modes.items()
        }
    return card.model_copy(update=changes)


def _response_card(card: Any, variant: Variant, seed: int) -> Any:
    """Return the card of the simulation: another resolution, another prior."""
    smeared = card.detector.model_copy(update={"sigma_p": variant.sigma_p * card.detector.sigma_p})
    card = card.model_copy(update={"detector": smeared})
    if variant.prior == "nominal":
        return card
    rng, sigma = stream(seed, "prior"), card.priors["varied"]
    return with_prior(
        card,
        p0=sigma.p0 ** rng.normal(),
        y_width=sigma.y_width ** rng.normal(),
        yields={key: value ** rng.normal() for key, value in sorted(sigma.yields.items())},
    )


def with_prior(card: Any, **values: Any) -> Any:
    """Return the card under a prior of these values."""
    prior = card.priors["varied"].model_copy(update=values)
    return card.model_copy(update={"priors": {"used": prior, **card.priors}}).with_prior("used")


def _shape(card: Any, seed: int) -> Any:
    """Return the cells of simulated photons per proton on target."""
    pairs = mock.generate_pairs(card, N_SHAPE, stream(seed, "shape"))
    points = np.stack([pairs.mass, pairs.pt, pairs.energy], axis=1)
    return np.histogramdd(points, bins=[MASS, PT, ENERGY], weights=pairs.weight)[0]


def _without_charm(measured: Any, card: Any, pot: float, seed: int) -> Any:
    """Return the spectrum less a charm template whose yield has an error."""
    sample = mock.simulate_events(card, N_PAIRS // 10, kind="charm", seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "charm.root"
        write_tree(path, {"events": sample.branches})
        chunks = [select.pairs(c)[0] for c in read.open_events(str(path), read.load_schema(SCHEMA))]
    template = select.fill(type(chunks[0]).concatenate(chunks), AXES).os
    amount = float(template.values().sum()) * pot / sample.meta["N_POT"]
    seen = amount * (1.0 + CHARM_SIGMA * stream(seed, "charm yield").normal())
    return subtract_component(measured, template, seen, CHARM_SIGMA * amount)


def tuned(matched: Any, process: Any, pairs: Any, r: dict[str, float]) -> Any:
    """Return the simulation reweighted to the data: yields of the sources, then pt and energy.

    The yields follow from the measured mass spectrum in fine bins, the shapes from measured pt and energy;
    the ratios are taken as functions of the true quantities.
    """
    weight = matched.weight * _yields(matched, process, pairs, r)
    for _ in range(2):
        for column, name in ((1, "pt"), (2, "energy")):
            values = getattr(pairs, name)
            edges = np.quantile(values[pairs.os], QUANTILES)
            axis = (variable(name, edges),)
            wanted = subtract.same_sign(select.fill(pairs, axis), **r).values
            seen = np.histogram(matched.reco[:, column], edges, weights=weight)[0]
            ratio = np.clip(wanted / seen * seen.sum() / wanted.sum(), 0.3, 3.0)
            centres = [values[(values >= a) & (values < b)].mean() for a, b in pairwise(edges)]
            weight = weight * np.interp(matched.true[:, column], centres, ratio)
    return type(matched)(
        matched.true, matched.reco, weight, matched.event, matched.fakes, matched.fake_weight
    )


def _yields(matched: Any, process: Any, pairs: Any, r: dict[str, float]) -> Any:
    """Return the factor of every simulated photon from a fit of the sources to the measured mass spectrum."""
    measured = subtract.same_sign(select.fill(pairs, (variable("mass", FINE),)), **r)
    codes, place = np.unique(process, return_inverse=True)
    columns = [
        np.histogram(matched.reco[place == i, 0], FINE, weights=matched.weight[place == i])[0]
        for i in range(len(codes))
    ]
    design = np.stack(columns, axis=1)
    start = measured.values.sum() / design.sum()
    sigma = np.sqrt(np.maximum(np.diag(measured.cov), 1.0))
    # yields near those of the simulation where the spectrum does not tell: a penalty of 50 %
    penalty = np.eye(len(codes)) / (0.5 * start)
    found, _ = nnls(
        np.concatenate([design / sigma[:, None], penalty]),
        np.concatenate([measured.values / sigma, np.full(len(codes), 1 / 0.5)]),
    )
    return (found / start)[place]
