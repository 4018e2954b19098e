"""Rows of the topic `predict`: three ways to sample millicharged pairs, and other vectors two ways."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from validation.chi_strategies import (
    JointOptions,
    PairCloud,
    Trained,
    by_rejection,
    fit_joint,
    from_generator,
)

from gammastar import accept, predict
from gammastar.core.constants import M_MU
from gammastar.core.files import data_path
from gammastar.core.sampling import stream
from gammastar.flow import FlowOptions, fit
from gammastar.mock import generate_pairs, load_card
from gammastar.physics.bremsstrahlung import preset
from gammastar.physics.mesons import MesonTable
from gammastar.physics.millicharge import load_millicharge_detector
from gammastar.physics.vectors import CHARGES
from gammastar.predict.millicharge import conditional
from gammastar.predict.mixture import recoupled_channels, shares_of
from gammastar.predict.models import rate_ratio

BEAM, N_PAIRS, N_DRAWN = 400.0, 60_000, 60_000
CHARGES_Q = np.array([1e-3])


def rows(*, quick: bool) -> Iterator[tuple]:
    yield from _two_ways()
    if not quick:
        yield from _strategies()


def _two_ways() -> Iterator[tuple]:
    """B − L decay by decay, and with the shares of the processes in the sum."""
    table, charges = MesonTable.read(data_path("measurements/mesons_400gev.toml")), CHARGES["b_minus_l"]
    leaves = (predict.PseudoscalarDalitz, predict.VectorDalitz, predict.VectorMixing)
    channels = [leaf(table, BEAM) for leaf in leaves]
    channels.append(predict.Bremsstrahlung(preset("qra_v2"), BEAM))
    for m in (0.25, 0.5):
        direct = recoupled_channels(channels, charges).rate([m])[0][0]
        shared = rate_ratio(charges, [m], shares_of(channels, [m]))[0]
        whole = predict.Mixture(tuple(channels)).rate([m])[0][0]
        label = f"B − L at {m} GeV, decay by decay over shares of the sum"
        yield label, direct / (shared * whole), 1.0, 1e-9, "identity"


def _strategies() -> Iterator[tuple]:
    """Events of a small charge in bars of scintillator: the acceptance of single particles."""
    pairs = generate_pairs(load_card(data_path("cards/na60_mock.toml")), N_PAIRS, stream(1, "pairs"))
    keep = (pairs.mass > 0.2125) & (pairs.mass < 1.1125)
    mass, pt, energy, weight = (a[keep] for a in (pairs.mass, pairs.pt, pairs.energy, pairs.weight))
    cloud = PairCloud(mass, pt, energy, weight)
    edges = np.linspace(0.2125, 1.1125, 181)
    content = np.histogram(mass, edges, weights=weight)[0]
    options = FlowOptions(epochs=6, epoch_size=40_000)
    flow = fit(mass, pt, energy, weight, beam_energy=BEAM, options=options, rng=stream(1, "flow"))
    joint = fit_joint(cloud, beam_energy=BEAM, options=JointOptions(epochs=12), rng=stream(1, "joint"))
    detector = load_millicharge_detector(data_path("detectors/mcp_bars.toml"))

    def inside(m: np.ndarray, *_: np.ndarray) -> np.ndarray:
        return np.ones(len(m), dtype=np.bool_)

    def seen(photons: predict.VirtualPhotons, m_chi: float) -> float:
        sample = predict.chi_pairs(photons, m_chi, rng=stream(3, str(m_chi)))
        return float(accept.millicharge_yields(sample, m_chi, CHARGES_Q, detector).signal[0])

    for m_chi in (0.1, 0.3):
        none, own = np.zeros((len(content), len(content))), cloud.weighted_for(m_chi, M_MU)
        total = float(predict.chi_rate(edges, content, none, [m_chi], M_MU)[0][0])
        alone = fit(
            own.mass, own.pt, own.energy, own.weight, beam_energy=BEAM, options=options, rng=stream(1, "one")
        )
        common = {"n": N_DRAWN, "rng": stream(2, str(m_chi))}
        default = seen(conditional(m_chi, (edges, content), M_MU, flow, inside, **common), m_chi)
        ways = {
            "one flow of mass, pt and energy, rejection": by_rejection(
                m_chi, total, M_MU, joint, inside, n=3 * N_DRAWN, rng=stream(4, str(m_chi))
            ),
            "a flow for each m_χ": from_generator(
                total, Trained(alone, own), inside, n=N_DRAWN, rng=stream(5, str(m_chi))
            ),
            "the pairs themselves": from_generator(total, own, inside, n=N_DRAWN, rng=stream(6, str(m_chi))),
        }
        for name, photons in ways.items():
            label = f"events at m_χ = {m_chi:g} GeV: {name}, over the conditional flow"
            source = "the strategies of Allison and Blinov, III.C.2; they ask for 10 %"
            yield label, seen(photons, m_chi) / default, 1.0, 0.10, source
