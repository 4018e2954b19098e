"""Rows of the topic `predict`: what a spectrum holds, theory outside its domain, and the axis of the spin."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gammastar import accept, mock, predict
from gammastar.core.constants import M_E, M_MU
from gammastar.core.constants import mass as mass_of
from gammastar.core.errors import PhysicsError
from gammastar.core.files import data_path
from gammastar.core.records import FloatArray, Sample
from gammastar.core.sampling import stream
from gammastar.mock.cocktail import dalitz_decay
from gammastar.mock.spectrometer import accepted
from gammastar.physics.bremsstrahlung import band, preset
from gammastar.physics.detector import load_detector
from gammastar.physics.mesons import MesonTable
from gammastar.physics.polarisation import NO_SPIN, SpinState, axis_cosine
from gammastar.physics.qed import RTable

BEAM = 400.0
TABLE = MesonTable.read(data_path("measurements/mesons_400gev.toml"))
CHANNELS: dict[str, predict.Channel] = {
    "pion_dalitz": predict.PionDalitz(TABLE, BEAM),
    "pseudoscalar_dalitz": predict.PseudoscalarDalitz(TABLE, BEAM),
    "vector_dalitz": predict.VectorDalitz(TABLE, BEAM),
    "vector_mesons": predict.VectorMixing(TABLE, BEAM),
    "jpsi": predict.JPsi(TABLE, BEAM),
    "bremsstrahlung": predict.Bremsstrahlung(preset("qra_v2"), BEAM),
}
# lepton, first and last mass [GeV] -> channels that the pairs hold: masses at which each decay is open
HELD = {
    ("μμ", 0.2125, 1.1125): "η η′ ω ρ φ Dalitz, mixing, bremsstrahlung",
    ("μμ", 0.2125, 4.0): "and the J/ψ",
    ("μμ", 1.2, 2.9): "no Dalitz decay",
    ("μμ", 2.9, 3.3): "no Dalitz decay, the J/ψ",
    ("ee", 0.002, 1.0): "all but the J/ψ",
    ("ee", 0.2, 1.0): "no π⁰, no J/ψ",
    ("ee", 0.96, 4.0): "no Dalitz decay, the J/ψ",
}
OPEN = {
    "pion_dalitz": (0.0, mass_of(111)),
    "pseudoscalar_dalitz": (0.0, mass_of(331)),
    "vector_dalitz": (0.0, mass_of(333) - mass_of(111)),
    "vector_mesons": (0.0, np.inf),
    "jpsi": (mass_of(443), mass_of(443)),
    "bremsstrahlung": (0.0, np.inf),
}


def rows(*, quick: bool) -> Iterator[tuple]:
    yield from _overlaps()
    yield from _forward(20_000 if quick else 400_000)
    yield from _axes(50_000 if quick else 1_000_000)


class _Nobody:
    """A sampler that is not asked."""

    def __init__(self, low: float, high: float) -> None:
        self.mass_range = (low, high)


def _soft(_mass: FloatArray, pt: FloatArray, energy: FloatArray) -> FloatArray:
    """Stands for the domain of a spectrometer beside the beam."""
    return (energy < 60.0) & (pt > 0.1)


def _photons(lepton: float, low: float, high: float) -> predict.VirtualPhoton:
    centres = np.linspace(low, high, 3)
    return predict.VirtualPhoton(
        centres, np.ones(3), np.eye(3), _Nobody(low, high), _soft, None, None, lepton
    )


def _refused(channels: list[predict.Channel]) -> bool:
    try:
        predict.check_exclusive(channels)
    except PhysicsError:
        return True
    return False


def _overlaps() -> Iterator[tuple]:
    for (lepton, low, high), text in HELD.items():
        photon = _photons(M_MU if lepton == "μμ" else M_E, low, high)
        refused = sum(_refused([photon, channel]) for channel in CHANNELS.values())
        wanted = sum(first < high and low < last for first, last in OPEN.values())
        name = f"{lepton} pairs of {low:g} to {high:g} GeV: channels refused of {len(CHANNELS)}"
        yield name, refused, wanted, 0.0, f"open at these masses: {text}"
        outside = [predict.Outside(channel, _soft, photon.mass_range) for channel in CHANNELS.values()]
        refused = sum(_refused([photon, part]) for part in outside)
        name = f"{lepton} pairs of {low:g} to {high:g} GeV: refused outside the domain"
        yield name, refused, wanted - 1, 0.0, "hadrons are in the extrapolation, bremsstrahlung is not"


def _forward(n: int) -> Iterator[tuple]:
    """Dimuons of bremsstrahlung and of hadrons in the spectrometer, and dark photons in a dump's detector."""
    card = mock.load_card(data_path("cards/na60_mock.toml"))
    brems = CHANNELS["bremsstrahlung"]
    hadrons = predict.Mixture(
        tuple(CHANNELS[k] for k in ("pseudoscalar_dalitz", "vector_dalitz", "vector_mesons"))
    )
    seen = {}
    for name, channel in (("hadrons", hadrons), ("bremsstrahlung", brems)):
        sample = channel.produce(0.6, n=n, rng=stream(1, "forward", name))
        pair = accept.lepton_pair(_momenta(sample), 0.6, M_MU, stream(2, "forward", name))
        both = accepted(pair[0], card.detector) & accepted(pair[1], card.detector)
        seen[name] = float(sample.weight[both].sum() / sample.weight.sum())
    text = "dimuons of 0.6 GeV with both muons in the cone of the mock, no efficiency"
    yield "acceptance of hadrons, 0.6 GeV", seen["hadrons"], np.nan, np.nan, text
    yield "acceptance of bremsstrahlung, 0.6 GeV", seen["bremsstrahlung"], np.nan, np.nan, text
    model = predict.DarkPhoton(RTable.read(data_path("measurements/r_ratio.csv")))
    detector = load_detector(data_path("detectors/na62_dump.toml"))
    for mass in (0.4, 0.7, 0.83, 0.95):
        most = [
            accept.yields(
                channel.produce(mass, n=max(n // 4, 5000), rng=stream(3, "dump", mass_name)),
                mass,
                np.geomspace(1e-8, 1e-5, 40),
                model,
                detector,
                rng=stream(4, "dump", mass_name),
            ).signal.max()
            for mass_name, channel in ((f"{mass} b", brems), (f"{mass} h", hadrons))
        ]
        name = f"NA62 dump, {mass} GeV: largest signal of bremsstrahlung over that of hadrons"
        yield name, most[0] / most[1], np.nan, np.nan, "theory channels, qra_v2, per proton"
    sample = brems.produce(0.8, n=n, rng=stream(5, "band"))
    ends = brems.band(0.8, sample)
    for row, kernel in zip(ends, band(preset("qra_v2")), strict=True):
        truth, value = float(kernel.rate(0.8, BEAM)), float(row @ sample.weight)
        error = float(np.sqrt(np.sum((sample.weight * (row - row.mean())) ** 2)))
        yield (
            f"reweighted to {kernel.name}, 0.8 GeV",
            value,
            truth,
            4 * error,
            "Gauss-Legendre; 4 σ of the sample",
        )


def _momenta(sample: Sample) -> FloatArray:
    return np.stack([np.asarray(getattr(sample.p4, name), dtype=float) for name in ("px", "py", "pz", "E")])


def _axes(n: int) -> Iterator[tuple]:
    """Compare the weights with a generator that decays meson and photon in their rest frames in turn."""
    chains = (
        ("π⁰ → γA′ → ee", CHANNELS["pion_dalitz"], 111, 0.1, M_E),
        ("η → γA′ → μμ", CHANNELS["pseudoscalar_dalitz"], 221, 0.3, M_MU),
        ("η → γA′ → ee", CHANNELS["pseudoscalar_dalitz"], 221, 0.3, M_E),
    )
    for name, channel, pdg, mass, lepton in chains:
        sample = channel.produce(mass, n=n, rng=stream(6, name))
        meson = sample.parent
        size = np.sqrt(np.clip(meson[:, 3] ** 2 - np.sum(meson[:, :3] ** 2, axis=1), 0.0, None))
        own = np.abs(size - mass_of(pdg)) < 1e-3
        photon, meson = _momenta(sample)[:, own], meson[own]
        one, _ = accept.lepton_pair(photon, mass, lepton, stream(7, name))
        spins = (NO_SPIN, SpinState(0.0))
        plain, naive = accept.angular_weights(photon, mass, one, lepton, spins, beam_energy=BEAM)
        chain = accept.angular_weights(photon, mass, one, lepton, (NO_SPIN,), beam_energy=BEAM, meson=meson)[
            0
        ]
        true, plus = dalitz_decay(
            meson.T, mass_of(pdg), np.full(len(meson), mass), 0.0, stream(8, name), lepton
        )
        cosine = axis_cosine(photon, mass, one, "laboratory", BEAM) ** 2
        exact = axis_cosine(true, mass, plus, "laboratory", BEAM) ** 2
        value, truth = _lambda(cosine, chain), _lambda(exact, np.ones_like(exact))
        error = 4 * np.hypot(_lambda_error(cosine, chain), _lambda_error(exact, np.ones_like(exact)))
        label = f"{name} at {mass} GeV: λ about the laboratory flight"
        yield label, value, truth, error, "generator in the rest frames; 4 σ"
        flight = _lambda(cosine, naive)
        yield f"{label}, if transverse along it", flight, np.nan, np.nan, "what λ along that flight would be"
        yield from _hard(name, mass, (one[3] / photon[3], plain, naive, chain), plus[3] / true[3])


def _hard(
    name: str, mass: float, ours: tuple[FloatArray, FloatArray, FloatArray, FloatArray], exact: FloatArray
) -> Iterator[tuple]:
    """Pairs both of whose leptons hold a fifth of the energy, as a detector with a threshold asks."""
    share, plain, naive, chain = ours
    seen, truth = (np.abs(x - 0.5) < 0.3 for x in (share, exact))
    base = float(np.mean(plain * seen))
    value, wanted = float(np.mean(chain * seen)) / base, float(truth.mean()) / base
    spread = np.sqrt(np.var(chain * seen - value * seen) + truth.var()) / np.sqrt(len(seen)) / base
    label = f"{name} at {mass} GeV: pairs with both leptons above E/5, over unpolarised"
    yield label, value, wanted, 4 * float(spread), "generator in the rest frames; 4 σ"
    yield (
        f"{label}, if transverse along the laboratory flight",
        float(np.mean(naive * seen)) / base,
        np.nan,
        np.nan,
        "–",
    )


def _lambda(square: FloatArray, weight: FloatArray) -> float:
    """Return λ of 1 + λ cos²θ from the mean of cos²θ: (1/3 + λ/5)/(1 + λ/3)."""
    mean = float(np.average(square, weights=weight))
    return (15 * mean - 5) / (3 - 5 * mean)


def _lambda_error(square: FloatArray, weight: FloatArray) -> float:
    mean = float(np.average(square, weights=weight))
    sigma = float(np.sqrt(np.sum(weight**2 * (square - mean) ** 2)) / weight.sum())
    return sigma * 20 / (3 - 5 * mean) ** 2
