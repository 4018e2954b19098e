"""Rows of the topic `predict`: bremsstrahlung, mesons, millicharged particles, other vectors, in situ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pyhf
from scipy.integrate import quad
from scipy.stats import norm

from gammastar.core import constants
from gammastar.core.constants import ALPHA, M_E, M_MU, M_PI0, M_PROTON
from gammastar.core.files import data_path
from gammastar.core.sources import Sources
from gammastar.infer.histfactory.patchsets import peak_workspace
from gammastar.mock.card import load_card
from gammastar.mock.cocktail import mass_spectrum
from gammastar.physics import bremsstrahlung, hadrons, qed
from gammastar.physics.bremsstrahlung import cross_section_nsd, cross_section_total, preset
from gammastar.physics.detector import MassResolution
from gammastar.physics.hadrons import FORM_FACTORS, form_factor
from gammastar.physics.mesons import MesonTable, dark_photon_branching
from gammastar.physics.millicharge import (
    bin_factors,
    from_dark_photons,
    pseudoscalar_branching,
    vector_branching,
)
from gammastar.physics.qed import RTable, lepton_width
from gammastar.physics.qed import dark_photon_branching as photon_branching
from gammastar.predict import VectorModel, chi_rate
from gammastar.predict.in_situ import (
    Background,
    Templates,
    cls_limits,
    expected_limits,
    peak_search,
    search_in_situ,
    signal_per_coupling,
)

BEAM = 400.0
TABLE = MesonTable.read(data_path("measurements/mesons_400gev.toml"))
PI0_PHOTONS = constants.branching("pi0 -> gamma gamma")
ETA_PHOTONS = constants.branching("eta -> gamma gamma")
R_TABLE = RTable.read(data_path("measurements/r_ratio.csv"))
ETA = (hadrons.ETA_INVERSE_LAMBDA2, hadrons.ETA_INVERSE_LAMBDA2_ERROR)
OMEGA = (hadrons.OMEGA_INVERSE_LAMBDA2, hadrons.OMEGA_INVERSE_LAMBDA2_ERROR)
BOUND = "Kroll and Wada, Landsberg: quadrature of the published formula"


def rows() -> Iterator[tuple]:
    yield from _dalitz()
    yield from _implied()
    yield from _vectors()
    yield from _pairs()
    yield from _traces()
    yield from _kernels()
    yield from _models()
    yield from _in_situ()


def _dalitz() -> Iterator[tuple]:
    """Integrals of Dalitz decays: closed numbers of Kroll and Wada."""
    for label, pdg, lepton, name, expected in (
        ("π⁰→γee/γγ, pointlike", 111, M_E, "pointlike", 0.0118514),
        ("η→γμμ/γγ, pointlike", 221, M_MU, "pointlike", 5.5139e-4),
        ("η→γμμ/γγ, pole", 221, M_MU, "eta2", 8.2356e-4),
        ("η→γee/γγ, pole", 221, M_E, "eta2", 1.6748e-2),
        ("ω→π⁰μμ/π⁰γ, pointlike", 223, M_MU, "pointlike", 5.5501e-4),
        ("ω→π⁰μμ/π⁰γ, pole", 223, M_MU, "omega2", 1.2295e-3),
        ("ω→π⁰ee/π⁰γ, pole", 223, M_E, "omega2", 9.4379e-3),
        ("η′→γμμ/γγ, pointlike", 331, M_MU, "pointlike", 1.7244e-3),
        ("η′→γμμ/γγ, pole", 331, M_MU, "eta_prime2", 4.9000e-3),
    ):
        yield label, _integral(pdg, lepton, getattr(hadrons, name)), expected, 1e-3 * expected, BOUND
    older = _integral(111, M_E, lambda q2: (1 + 0.0335 * q2 / M_PI0**2) ** 2)  # the slope of older editions
    yield "π⁰→γee/γγ, slope 0.0335", older, 0.0118774, 1e-3 * 0.0118774, BOUND
    ratio = _integral(221, M_MU, hadrons.eta2) / _integral(221, M_MU, hadrons.pointlike)
    yield "η→γμμ with its form factor over leading order", ratio, 1.4936, 2e-3, BOUND


def _implied() -> Iterator[tuple]:
    """Fractions that the theory channels imply, photons times Kroll-Wada, beside those of the table.

    Tolerance: three standard deviations of both fractions and, for η and ω, of the form factor.
    """
    for dalitz, photons, pdg, lepton, name, lambda2, shift in (
        ("pi0 -> e e gamma", "pi0 -> gamma gamma", 111, M_E, "pi0_2", None, 0.0),
        ("eta -> e e gamma", "eta -> gamma gamma", 221, M_E, "eta2", *ETA),
        ("eta -> mu mu gamma", "eta -> gamma gamma", 221, M_MU, "eta2", *ETA),
        ("eta_prime -> e e gamma", "eta_prime -> gamma gamma", 331, M_E, "eta_prime2", None, 0.0),
        ("eta_prime -> mu mu gamma", "eta_prime -> gamma gamma", 331, M_MU, "eta_prime2", None, 0.0),
        ("omega -> pi0 e e", "omega -> pi0 gamma", 223, M_E, "omega2", *OMEGA),
        ("omega -> pi0 mu mu", "omega -> pi0 gamma", 223, M_MU, "omega2", *OMEGA),
    ):
        listed, source = constants.BRANCHING[dalitz], constants.BRANCHING[photons]
        factor = getattr(hadrons, name)
        integral, moved = _integral(pdg, lepton, factor), 0.0
        if lambda2 is not None:
            moved = _integral(pdg, lepton, partial(factor, inverse_lambda2=lambda2 + shift)) - integral
        ours = source.value * integral
        error = float(np.hypot(source.error * integral, source.value * moved))
        sigma = float(np.hypot(listed.error, error))
        apart = abs(ours - listed.value) / sigma
        text = (
            f"table, {constants.EDITION}; 3 σ of ± {error:.2g} and ± {listed.error:.2g}; {apart:.1f} σ apart"
        )
        yield f"BR({dalitz}) implied by BR({photons})", ours, listed.value, 3 * sigma, text


def _integral(pdg: int, lepton: float, factor: qed.FormFactor2) -> float:
    parent = constants.mass(pdg) if pdg != 111 else M_PI0
    light = M_PI0 if pdg == 223 else 0.0

    def density(x: float) -> float:
        q2 = np.exp(x)
        if light:
            return float(q2 * qed.vector_dalitz(q2, parent, light, lepton, factor))
        return float(q2 * qed.pseudoscalar_dalitz(q2, parent, lepton, factor))

    low, high = 2 * np.log(2 * lepton), 2 * np.log(parent - light)
    return quad(density, low, high, epsrel=1e-8, limit=400)[0]


def _branching(parent: str, kind: str, mass: float) -> float:
    decay = next(d for d in TABLE.decays if d.parent == parent and d.kind == kind)
    meson = TABLE.mesons[parent]
    return float(dark_photon_branching(decay, meson.mass, constants.width(meson.pdg), [mass])[0])


def _vectors() -> Iterator[tuple]:
    pole = "(3/α)(M/Γ) BR(ee)"
    for name, expected in (("omega", 2.747), ("phi", 29.23)):
        mass = TABLE.mesons[name].mass
        ours = _branching(name, "vector_mixing", mass)
        yield f"A′ per {name} and ε² at its pole", ours, expected, 5e-3 * expected, pole
    electrons, mass, width = constants.branching("rho -> e e"), constants.mass(113), constants.width(113)
    rho = electrons * 3 / ALPHA * mass / width
    narrow = qed.dark_photon_rate(electrons * 2 / (np.pi * width), mass, M_E)
    yield "A′ per ρ and ε² at its pole, Breit-Wigner", float(narrow), 0.1021, 1e-3 * rho, pole
    for name, meson, sigma, expected in (
        ("ω", "omega", 0.030, 0.498),
        ("ω", "omega", 0.020, 0.747),
        ("φ", "phi", 0.030, 2.594),
        ("φ", "phi", 0.020, 3.891),
    ):
        br = constants.branching(f"{meson} -> e e")
        mass = constants.mass(223 if name == "ω" else 333)
        ours = float(qed.dark_photon_rate(br / (np.sqrt(2 * np.pi) * sigma), mass, M_E))
        label = f"A′ per {name} at its pole, smeared by {1e3 * sigma:.0f} MeV"
        yield label, ours, expected, 2e-3 * expected, "(3π/2α) M BR(ee)/(√2π σ)"
    pi0 = float(2 * PI0_PHOTONS * (1 - (0.13 / M_PI0) ** 2) ** 3)
    ours = _branching("pi0", "pseudoscalar_dalitz", 0.13) / float(hadrons.pi0_2(0.13**2))
    yield "BR(π⁰→γA′)/ε² at 0.13 GeV, pointlike", ours, 7.496e-4, 1e-3 * pi0, "2 BR(γγ)(1−m²/M²)³"


def _pairs() -> Iterator[tuple]:
    source = "closed forms, counting pairs"
    for chi, expected in ((0.001, 9.658e-3), (0.010, 2.755e-3), (0.020, 1.029e-3), (0.050, 1.143e-5)):
        ours = pseudoscalar_branching(chi, M_PI0, PI0_PHOTONS, hadrons.pointlike)
        yield f"BR(π⁰→γχχ̄)/Q², m_χ = {1e3 * chi:g} MeV", ours, expected, 2e-3 * expected, source
    for chi, expected in ((0.010, 2.969e-3), (0.100, 3.686e-4), (0.200, 1.415e-5), (0.250, 1.474e-7)):
        ours = pseudoscalar_branching(chi, constants.mass(221), ETA_PHOTONS, hadrons.eta2)
        yield f"BR(η→γχχ̄)/Q², pole, m_χ = {1e3 * chi:g} MeV", ours, expected, 2e-3 * expected, source
    ours = pseudoscalar_branching(0.1, constants.mass(221), ETA_PHOTONS, hadrons.pointlike)
    yield "BR(η→γχχ̄)/Q², pointlike, m_χ = 100 MeV", ours, 2.5283e-4, 5e-3 * 2.5283e-4, source
    for chi, expected in ((0.5, 0.05946), (1.0, 0.05510), (1.4, 0.03594), (1.5, 0.02177)):
        ours = float(vector_branching(chi, constants.mass(443), constants.branching("jpsi -> e e")))
        yield f"BR(J/ψ→χχ̄)/Q², m_χ = {chi:g} GeV", ours, expected, 2e-3 * expected, source
    card = load_card(data_path("cards/na60_mock.toml"))
    edges = np.linspace(2 * M_MU, 1.1, 2001)
    middle = 0.5 * (edges[1:] + edges[:-1])
    pairs = mass_spectrum(card, middle) * np.diff(edges)
    none = np.zeros(2 * pairs.shape)
    muon = chi_rate(edges, pairs, none, [M_MU], M_MU)[0][0] / pairs.sum()
    yield "Eq. 8 with m_χ = m_μ over the dimuon yield", muon, 1.0, 1e-14, "identity"
    yield "largest factor of Eq. 8 with m_χ = m_μ", bin_factors(edges, M_MU, M_MU).max(), 1.0, 0.0, "identity"

    def dark(m: np.ndarray) -> np.ndarray:
        return qed.dark_photon_rate(np.interp(m, middle, pairs / np.diff(edges)), m, M_MU)

    for chi in (0.15, 0.3, 0.45):
        direct = chi_rate(edges, pairs, none, [chi], M_MU)[0][0]
        bridge = from_dark_photons(dark, [chi], 1.1, panels=1500)[0]
        label = f"Eq. 6 and the bridge to χχ̄ over Eq. 8, m_χ = {chi:g} GeV"
        yield label, bridge / direct, 1.0, 1e-3, "identity, mock cocktail"


def _gamma() -> np.ndarray:
    zero, one = np.zeros((2, 2)), np.eye(2)
    pauli = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
    return np.array(
        [np.block([[one, zero], [zero, -one]]), *(np.block([[zero, s], [-s, zero]]) for s in pauli)]
    )


def _trace(z: float, pt: float, mass: float, f1: float, f2: float, *, subtract: bool) -> float:
    """Helicity amplitudes squared with the old-fashioned energy denominator, at 3 TeV."""
    gamma, metric, beam, one = _gamma(), np.diag([1.0, -1.0, -1.0, -1.0]), 3000.0, np.eye(4)

    def shell(three: np.ndarray, m: float) -> np.ndarray:
        return np.concatenate([[np.sqrt(three @ three + m * m)], three])

    def slash(v: np.ndarray) -> np.ndarray:
        return np.einsum("mij,m->ij", gamma, metric @ v)

    p, q = shell(np.array([0, 0, beam]), M_PROTON), shell(np.array([pt, 0, z * beam]), mass)
    out = shell(p[1:] - q[1:], M_PROTON)
    sigma = 0.5j * np.einsum("mij,njk->mnik", gamma, gamma)
    sigma = sigma - sigma.transpose(1, 0, 2, 3)
    vertex = f1 * gamma + f2 * 1j * np.einsum("mnij,n->mij", sigma, metric @ (out - p)) / (2 * M_PROTON)
    length = np.linalg.norm(q[1:])
    along = q[1:] / length
    third = np.concatenate([[length], q[0] * along]) / mass - (q / mass if subtract else 0.0)
    total = 0.0
    for e in (np.array([0, 0, 1.0, 0]), np.concatenate([[0], np.cross(along, [0, 1, 0])]), third):
        m = np.einsum("mij,m->ij", vertex, metric @ e)
        bar = gamma[0] @ m.conj().T @ gamma[0]
        total += np.trace((slash(out) + M_PROTON * one) @ m @ (slash(p) + M_PROTON * one) @ bar).real
    gap = p[0] - q[0] - out[0]
    return 2 * np.pi * ALPHA * total * np.pi * beam / ((2 * np.pi) ** 3 * 8 * p[0] * q[0] * out[0] * gap**2)


def _traces() -> Iterator[tuple]:
    """Largest deviation over 60 random points, relative to the trace."""
    rng = np.random.default_rng(1)
    points = np.stack(
        [rng.uniform(0.1, 0.9, 60), rng.uniform(0.05, 2, 60), rng.uniform(0.1, 1.5, 60)], axis=1
    )
    source = "numerical helicity trace; 1e-4, 2e-4 below z = 0.2"
    worst = dict.fromkeys(("w11 (Dirac)", "w22 (Pauli)", "w12 (interference)", "v1, all polarisations"), 0.0)
    for z, pt, m in points:
        scale = 0.5 if z < 0.2 else 1.0  # the tolerance doubles at small z
        w11, w22 = _trace(z, pt, m, 1, 0, subtract=True), _trace(z, pt, m, 0, 1, subtract=True)
        w12 = _trace(z, pt, m, 1, 1, subtract=True) - w11 - w22
        v1 = _trace(z, pt, m, 1, 0, subtract=False)
        found = (
            bremsstrahlung.dirac_splitting(z, pt**2, m) / w11 - 1,
            bremsstrahlung.pauli_splitting(z, pt**2, m) / w22 - 1,
            (bremsstrahlung.interference_splitting(z, pt**2, m) - w12) / (w11 + w22),
            bremsstrahlung.polarisation_sum_splitting(z, pt**2, m) / v1 - 1,
        )
        for name, value in zip(worst, found, strict=True):
            worst[name] = max(worst[name], scale * abs(float(value)))
    for name, value in worst.items():
        yield f"{name}: largest deviation at 60 points", value, 0.0, 1e-4, source


def _kernels() -> Iterator[tuple]:
    pointlike, masses = FORM_FACTORS["pointlike"], (0.1, 0.3, 0.5, 0.7, 0.782, 0.9, 1.1)
    qra = replace(preset("qra_v2"), form_factor=pointlike)
    v1 = replace(preset("qra_v1"), form_factor=pointlike)
    low, high = (replace(qra, off_shell=value) for value in (0.75, 3.0))
    for name, kernel, expected in (
        ("v2, Λ = 0.75", low, (8.71e-4, 2.22e-4, 5.83e-5, 2.21e-5, 1.59e-5, 1.04e-5, 5.56e-6)),
        ("v2, Λ = 1.5", qra, (3.857e-3, 2.496e-3, 1.328e-3, 7.215e-4, 5.742e-4, 4.225e-4, 2.637e-4)),
        ("v2, Λ = 3", high, (8.25e-3, 6.77e-3, 5.13e-3, 3.79e-3, 3.33e-3, 2.77e-3, 2.04e-3)),
        ("v2, |F1|²", preset("qra_v2"), (3.98e-3, 3.81e-3, 5.18e-3, 2.70e-2, 4.96, 1.285e-2, 2.40e-3)),
        ("v1, Λ = 1.5", v1, (5.77e-2, 5.49e-3, 1.65e-3, 7.09e-4, 5.32e-4, 3.68e-4, 2.14e-4)),
        ("FWW", preset("na62"), (7.66e-3, 6.33e-3, 4.95e-3, 3.87e-3, 3.51e-3, 3.07e-3, 2.47e-3)),
    ):
        for m, value in zip(masses, expected, strict=True):
            label = f"bremsstrahlung {name}, {m:g} GeV, per interaction and ε²"
            yield label, float(kernel.rate(m, BEAM)), value, 0.01 * value, "independent quadrature"
    wide = replace(preset("fairship"), form_factor=pointlike)
    for label, kernel, m, value in (
        ("FWW, 0.1 < z < 0.9, pT < 1 GeV", preset("na62"), 0.1, 7.655e-3),
        ("FWW, 0.1 < z < 0.9, pT < 1 GeV", preset("na62"), 0.5, 4.945e-3),
        ("FWW, 0.1 < z < 0.9, pT < 1 GeV", preset("na62"), 1.0, 2.747e-3),
        ("FWW, 0.14 < z < 0.99, pT < 4 GeV", wide, 0.1, 1.310e-2),
        ("FWW, 0.14 < z < 0.99, pT < 4 GeV", wide, 1.0, 8.82e-3),
    ):
        yield (
            f"{label}, {m:g} GeV",
            float(kernel.rate(m, BEAM)),
            value,
            3e-3 * value,
            "FairShip expression, window printed",
        )
    f1 = np.abs(form_factor("vmd")(np.array([0.0, 0.7, 0.782]))[0])
    vmd = "arXiv:0910.5589, coherent sum, PDG masses"
    yield "|F1(0)| of the proton", f1[0], 0.992, 1e-3, vmd
    yield "|F1|² at 0.7 GeV", f1[1] ** 2, 37.4, 0.1, vmd
    yield "|F1|² at 0.782 GeV", f1[2] ** 2, 8636.0, 9.0, vmd
    degenerate = abs(form_factor("vmd-degenerate")(0.5)[0]) ** 2
    yield "|F1|² at 0.5 GeV, degenerate masses", degenerate, 4.06, 0.02, "arXiv:1609.01770"
    yield "σ_pp at 400 GeV [mb]", float(cross_section_total(750.62)), 39.861, 1e-3, "PDG parametrisation"
    s = 2 * M_PROTON * (BEAM + M_PROTON)
    yield "σ_NSD at 400 GeV [mb]", float(cross_section_nsd(s)), 30.64, 0.01, "arXiv:2108.05900"


def _models() -> Iterator[tuple]:
    for m, value, tolerance in ((0.7, 0.14450, 3e-2), (1.0, 0.3133, 4e-2)):
        ours = float(photon_branching(m, R_TABLE)["ee"])
        yield f"BR(A′→ee) at {m} GeV", ours, value, tolerance * value, "middle of three peers, their spread"
    yield (
        "Γ(A′→ee)/ε² at 0.1 GeV",
        float(lepton_width(0.1, M_E)),
        2.4331e-4,
        1e-3 * 2.4331e-4,
        "ALPINIST, α = 1/137",
    )
    yield (
        "Γ(A′→μμ)/ε² at 0.3 GeV",
        float(lepton_width(0.3, M_MU)),
        6.4665e-4,
        1e-3 * 6.4665e-4,
        "ALPINIST, α = 1/137",
    )
    b_minus_l, lmu = VectorModel.named("b_minus_l", R_TABLE), VectorModel.named("lmu_ltau", R_TABLE)
    for label, ours, value, tolerance in (
        ("BR(ee) of B − L at 0.1 GeV", b_minus_l.branching(0.1)["ee"], 0.4, 1e-4),
        ("BR(ee) of B − L at 0.3 GeV", b_minus_l.branching(0.3)["ee"], 0.29534, 1e-2),
        ("BR(μμ) of B − L at 0.3 GeV", b_minus_l.branching(0.3)["mumu"], 0.26164, 1e-2),
        ("BR(μμ) of Lμ − Lτ at 0.3 GeV", lmu.branching(0.3)["mumu"], 0.46974, 5e-3),
        ("BR(ee) of Lμ − Lτ at 0.1 GeV", lmu.branching(0.1)["ee"], 2e-5, 0.2),
        ("cτ g² of B − L at 0.1 GeV [m]", float(b_minus_l.ctau(0.1, 1.0)), 2.9756e-14, 5e-3),
    ):
        yield label, ours, value, tolerance * value, "Darkcast v1.1"


def _in_situ() -> Iterator[tuple]:
    b, sigma, m, branching = 2e5, 0.03, 0.6, 0.33
    edges = np.arange(0.3, 0.9, 0.002)
    pairs = np.full(len(edges) - 1, b * 0.002)
    signal = signal_per_coupling([m], [b], [branching], M_MU)
    gaussian = MassResolution.gaussian(m, sigma)
    known = peak_search(edges, pairs, [m], gaussian, background=Background(None))
    found = float(expected_limits(known.sigma)[0, 2] / signal[0])
    by_hand = 1.6448536 * np.sqrt(2 * np.sqrt(np.pi) * sigma * b)
    by_hand *= 2 * ALPHA / (3 * np.pi) * float(qed.lepton_factor(m**2, M_MU)) / (m * b * branching)
    yield (
        "reach in situ at 0.6 GeV, ε²",
        found,
        by_hand,
        2e-3 * by_hand,
        "by hand: 1.645 √(2√π σ b) 2κ/(m b BR)",
    )
    flat = peak_search(edges, pairs, [m], gaussian, background=Background(0)).sigma[0]
    closed = np.sqrt(b / (1 / (2 * np.sqrt(np.pi) * sigma) - 1 / (12 * sigma)))
    yield (
        "σ of the peak over a fitted flat background",
        flat,
        closed,
        5e-3 * closed,
        "Fisher information in closed form",
    )
    ratio = float(signal_per_coupling([0.9], [1.0], [0.3], M_MU)[0]) / 0.03
    limit = 3 * np.pi / (2 * ALPHA) * 0.9 / 0.03 * 0.3
    yield (
        "S/B per ε² in situ, 0.9 GeV in 30 MeV",
        ratio,
        limit,
        3e-3 * limit,
        "3π/(2α) (m/δm) BR, far above threshold",
    )
    yield from _toys_in_situ()
    yield from _workspace_in_situ()


def _workspace_in_situ() -> Iterator[tuple]:
    """Compare the likelihood of one mass beside a line with the limits that the fit expects."""
    edges, gaussian = np.linspace(0.4, 1.0, 91), MassResolution.gaussian(0.8, 0.02)
    smooth = 2000 * np.exp(-3 * 0.5 * (edges[1:] + edges[:-1]))
    line, nothing = 6000 * gaussian.cells([0.78], edges), np.zeros((0, 90))
    known = Background(2, smooth, line, np.array([0.78]), np.array([0.05]), nothing, ("omega",))
    found = search_in_situ(Templates(edges, smooth + line[0], known, gaussian, 4.0), [0.7], [2e6], Sources())
    level, window = found.expected((), 0.9)[0], found.window(0)
    for name, at in (("−1σ", 1), ("median", 2), ("+1σ", 3)):
        space = pyhf.Workspace(peak_workspace("in_situ", level[at] * 2e6 * window.peak, window, errors={}))
        model = space.model()
        _, band = pyhf.infer.hypotest(1.0, space.data(model), model, return_expected_set=True)
        cls = float(band[at])
        yield f"CLs of the workspace at the {name} limit of the fit", cls, 0.1, 0.01, "1 − 0.90"


def _toys_in_situ() -> Iterator[tuple]:
    """Coverage and closure of 500 toys of a bent background with a peak at the median expected limit."""
    n, mass = 500, 0.8
    edges, gaussian = np.linspace(0.4, 1.2, 161), MassResolution.gaussian(mass, 0.02)
    mean = 3000 * np.exp(-2 * 0.5 * (edges[1:] + edges[:-1]))
    sigma = peak_search(edges, mean, [mass], gaussian).sigma[0]
    true = float(expected_limits(np.array([sigma]))[0, 2])
    toys = np.random.default_rng(22).poisson(mean + true * gaussian.cells([mass], edges)[0], (n, len(mean)))
    fits = peak_search(edges, toys, np.full(n, mass), gaussian)
    covered = float((cls_limits(fits.fitted, fits.error) >= true).mean())
    pull = np.linspace(-8, 8, 16001)
    exact = norm.cdf(pull) >= 0.1 * norm.cdf(pull + true / sigma)
    expected = float(np.trapezoid(np.where(exact, norm.pdf(pull), 0.0), pull))
    error = 3 * np.sqrt(expected * (1 - expected) / n)
    yield (
        "coverage of 90 % CLs limits in situ, 500 toys",
        covered,
        expected,
        error,
        "of normal estimates, by integration",
    )
    pulls = (fits.fitted - true) / fits.error
    yield "injected MOCK peak, mean pull", float(pulls.mean()), 0.0, 3 / np.sqrt(n), "zero"
    yield "injected MOCK peak, width of pulls", float(pulls.std()), 1.0, 3 / np.sqrt(2 * n), "one"
    yield (
        "injected MOCK peak, pairs found",
        float(fits.fitted.mean()),
        true,
        3 * sigma / np.sqrt(n),
        "injected",
    )
