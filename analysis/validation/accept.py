"""Decay probabilities, Eq. B1 and yields in detectors: closed forms, quadrature and NA62 anchors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import vector
from scipy.integrate import quad
from validation import calibration_runs, displaced, off_axis, reach_edges
from validation._rows import row as _row

from gammastar import accept
from gammastar.core.files import data_path
from gammastar.core.records import Exposure, Sample
from gammastar.core.sampling import stream
from gammastar.physics.bremsstrahlung import preset
from gammastar.physics.detector import Detector, LeptonCuts, Target, load_detector
from gammastar.physics.geometry import Frustum
from gammastar.physics.qed import RTable
from gammastar.predict import DarkPhoton

B1 = "Allison and Blinov, Eq. (B1), closed form"
BEAM = 400.0  # GeV
NA60 = Exposure(beam_energy=BEAM, target_a=207.2, target_z=82, thickness=0.01, pot=1e13)


def rows(*, quick: bool) -> Iterator[dict]:
    yield from _equation_b1()
    yield from _quadrature(20_000 if quick else 200_000)
    yield from off_axis.chords(quick=quick)
    yield from calibration_runs.rows(quick=quick)
    yield from displaced.rows(quick=quick)
    yield from reach_edges.importance(quick=quick)
    yield from _targets()
    yield from _na62(50_000 if quick else 1_000_000)
    yield from _na62_edges(50_000 if quick else 400_000)


def _sample(p: np.ndarray, weight: np.ndarray) -> Sample:
    p4 = vector.array({"px": p[0], "py": p[1], "pz": p[2], "E": p[3]})
    n = len(weight)
    return Sample(p4, weight, np.zeros((n, 3)), np.ones(n, dtype=np.bool_))


def _on_shell(mass: float, momentum: np.ndarray, theta: np.ndarray, phi: np.ndarray) -> np.ndarray:
    pt, pz = momentum * np.sin(theta), momentum * np.cos(theta)
    return np.stack([pt * np.cos(phi), pt * np.sin(phi), pz, np.hypot(momentum, mass)])


def _curve(sample: Sample, mass: float, ctau: object, detector: Detector, rng: np.random.Generator) -> tuple:
    """Return acceptance and error as a function of the lifetime: the weighted mean over the sample."""
    scan = accept.lifetime_scan(sample, mass, ctau, detector, states={"mumu": 1.0}, rng=rng)
    return scan.accepted / sample.weight.sum(), scan.mc_error / sample.weight.sum()


def _equation_b1() -> Iterator[dict]:
    """One momentum at one angle: the acceptance is e^(−L/γvτ) between the angles and zero outside."""
    shield, mass, momentum = load_detector(data_path("detectors/appendix_b.toml")), 0.5, 25.0
    one = np.ones(1)
    for ctau in (1e-3, 1e-2, 1e-1, 1.0, 1e3):
        p = _on_shell(mass, momentum * one, 0.08 * one, 0.3 * one)
        ours, _ = _curve(_sample(p, one), mass, ctau, shield, stream(1))
        expected = float(np.exp(-5.0 * mass / (momentum * ctau)))
        yield _row(
            f"ℰ at cτ = {ctau:g} m, m = 0.5, p = 25 GeV, 80 mrad", ours[0], expected, 1e-12 * expected, B1
        )
    for theta in (0.0349, 0.1201):
        p = _on_shell(mass, momentum * one, theta * one, one)
        ours, _ = _curve(_sample(p, one), mass, 1e6, shield, stream(1))
        yield _row(f"ℰ at {1e3 * theta:g} mrad", ours[0], 0.0, 0.0, B1)


def _quadrature(n: int) -> Iterator[dict]:
    """Exponential momenta, Gaussian angles: Eq. B1 as an integral; tolerance is four times our error."""
    shield, mass, mean, width = load_detector(data_path("detectors/appendix_b.toml")), 0.3, 15.0, 0.05
    rng = stream(2, "quadrature")
    theta = width * np.sqrt(-2 * np.log1p(-rng.uniform(size=n)))  # Rayleigh
    p = _on_shell(mass, rng.exponential(mean, n), theta, rng.uniform(-np.pi, np.pi, n))
    angle = np.exp(-0.5 * (0.035 / width) ** 2) - np.exp(-0.5 * (0.120 / width) ** 2)
    ctau = np.array([0.01, 0.03, 0.1, 1.0, 100.0])
    sample, states = _sample(p, np.full(n, 1 / n)), {"ee": 1.0}
    ours, error = _curve(sample, mass, ctau, shield, rng)
    for k, value in enumerate(ctau):
        length = mass * 5.0 / value
        survive = quad(lambda x, b=length: np.exp(-x - b / (mean * x)), 0, np.inf, epsrel=1e-9)[0]
        label = f"ℰ at cτ = {value:g} m, exponential momenta"
        yield _row(label, ours[k], angle * survive, 4 * error[k], "Eq. (B1) by quadrature")
    # Without planes each decay in the volume is seen.
    scan = accept.lifetime_scan(sample, mass, ctau, _box("daughters"), states=states, rng=rng)
    parent = accept.lifetime_scan(sample, mass, ctau, _box("parent"), states=states, rng=rng)
    for k, value in enumerate(ctau):
        yield _row(
            f"decays in a box at cτ = {value:g} m, forced decays",
            scan.accepted[k],
            parent.accepted[k],
            4 * scan.mc_error[k],
            "e^(−a/λ) − e^(−b/λ) on the same particles",
        )


def _box(accept_on: str, target: Target | None = None) -> Detector:
    return Detector(
        name="box",
        source="validation",
        beam_energy=BEAM,
        target=target or Target(207.2, 82, 0.01),
        pot=1.0,
        volume=Frustum(5.0, 25.0, 1.0, 1.0, 1.0, 1.0),
        accept_on=accept_on,
        efficiency={"ee": 1.0, "mumu": 1.0},
        sources={},
    )


def _targets() -> Iterator[dict]:
    dump = _box("parent", Target(63.55, 29, 19.6))
    ours = accept.Measured(NA60, "per_interaction").factor(dump)
    yield _row("dump of 19.6 λ over target of 0.01 λ", ours, -1 / np.expm1(-0.01), 1e-5, "1/(1 − e^−0.01)")


def _na62(n: int) -> Iterator[dict]:
    """Events from proton bremsstrahlung in the NA62 dump, against an independent description of it."""
    na62 = load_detector(data_path("detectors/na62_dump.toml"))
    model = DarkPhoton(RTable.read(data_path("measurements/r_ratio.csv")))
    source = "independent simulation with the same apertures and ALPINIST widths (BSD-3); 1 %"
    anchors = (
        ("ee", 0.05, 1e-5, 2199.0),
        ("ee", 0.1, 2e-6, 163.6),
        ("ee", 0.3, 1e-6, 15.89),
        ("mumu", 0.3, 1e-6, 16.76),
        ("mumu", 0.5, 7e-7, 3.890),
    )
    for state, mass, epsilon, expected in anchors:
        rng = stream(3, "na62", state, str(mass))
        sample = _bremsstrahlung(mass, n, rng)
        found = accept.yields(sample, mass, epsilon, model, na62, final_states=[state], rng=rng)
        label = f"NA62 dump, N({state}) at {mass:g} GeV, ε = {epsilon:g}"
        yield _row(label, found.signal[0], expected, 0.01 * expected + 3 * found.mc_error[0], source)
        if mass == 0.1:
            double = accept.yields(
                sample, mass, np.array([1e-8, 2e-8]), model, na62, final_states=[state], rng=rng
            )
            slope = float(np.log2(double.signal[1] / double.signal[0]))
            yield _row("slope of ln N over ln ε, long lifetimes", slope, 4.0, 1e-4, "ε² × 1/cτ ∝ ε⁴")
            yield _row(
                "bremsstrahlung per proton and ε² at 0.1 GeV",
                sample.weight.sum(),
                7.655e-3,
                0.005 * 7.655e-3,
                "quadrature of Blümlein and Brunner, 0.1 < z < 0.9, pT < 1 GeV",
            )


def _na62_edges(n: int) -> Iterator[dict]:
    """Reach of the NA62 ee search from bremsstrahlung alone, and what decides its two edges."""
    na62 = load_detector(data_path("detectors/na62_dump.toml"))
    model = DarkPhoton(RTable.read(data_path("measurements/r_ratio.csv")))
    longer = replace(na62, volume=replace(na62.volume, z0=102.0, z1=182.0))
    above = replace(na62, accept_on="parent", planes=(), magnet=None, cuts=LeptonCuts())
    published = {0.1: (5.71e-7, 1.49e-5), 0.2: (4.65e-7, 7.14e-6), 0.3: (4.70e-7, 2.51e-6)}
    seen = {0.1: 0.151, 0.2: 0.140, 0.3: 0.156}
    epsilon = np.geomspace(1e-7, 1e-4, 241)
    for mass, edges in published.items():
        rng = stream(4, "edges", str(mass))
        sample = _bremsstrahlung(mass, n, rng)

        def signal(detector, couplings, sample=sample, mass=mass, rng=rng):
            return accept.yields(
                sample, mass, couplings, model, detector, final_states=["ee"], rng=rng
            ).signal

        found = signal(na62, epsilon)
        top = int(found.argmax())
        low = np.interp(np.log(2.303), np.log(found[:top]), np.log10(epsilon[:top]))
        high = np.interp(-np.log(2.303), -np.log(found[top:] + 1e-99), np.log10(epsilon[top:]))
        paper = "NA62, arXiv:2312.12055, Fig. 4, digitised; bremsstrahlung alone, efficiency one"
        yield _row(f"NA62 ee at {mass:g} GeV, log10 of the lower edge", low, np.log10(edges[0]), 0.06, paper)
        yield _row(f"NA62 ee at {mass:g} GeV, log10 of the upper edge", high, np.log10(edges[1]), 0.06, paper)
        part = signal(na62, edges[0])[0] / signal(above, edges[0])[0]
        source = "independent simulation with the same apertures"
        yield _row(
            f"NA62 ee at {mass:g} GeV, seen part of decays in the volume", part, seen[mass], 0.005, source
        )
        if mass == 0.1:
            for edge, gain in zip(edges, (1.03, 1.32), strict=True):
                ratio = signal(longer, edge)[0] / signal(na62, edge)[0]
                label = f"NA62 ee at 0.1 GeV, volume 102 to 182 m over 105 to 180 m, ε = {edge:g}"
                yield _row(label, ratio, gain, 0.015 + 15 / np.sqrt(n), source)


def _bremsstrahlung(mass: float, n: int, rng: np.random.Generator) -> Sample:
    """Blümlein and Brunner (arXiv:1311.3870), 0.1 < z < 0.9, pT < 1 GeV, no form factor."""
    energy, pt, weight = preset("na62").sample(mass, BEAM, n, rng)
    pz, phi = np.sqrt(energy**2 - pt**2 - mass**2), rng.uniform(-np.pi, np.pi, n)
    return _sample(np.stack([pt * np.cos(phi), pt * np.sin(phi), pz, energy]), weight)
