"""Fig. 6 of the paper, detectors of millicharged particles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from envelope_run import Inputs, brem, inside, light_mesons, momenta, seen
from kinematics_figures import phase_space_figure
from mechanism import pairs_to_exclude, template

from gammastar import accept, infer, report
from gammastar.core.constants import M_MU, M_PI0
from gammastar.core.files import data_path
from gammastar.core.sampling import stream
from gammastar.physics.bremsstrahlung import band, preset
from gammastar.physics.mesons import MesonTable
from gammastar.physics.millicharge import load_millicharge_detector
from gammastar.predict.millicharge import chi_from_channel, chi_pairs, conditional
from gammastar.predict.theory import PionDalitz
from gammastar.report.figures.limits import reach_lines_figure


def phase_space(run: Inputs, table: MesonTable, output: Path, mock: bool) -> dict:
    """Fig. 6 at 0.7 GeV, and the dimuons that would tell the mechanisms apart."""
    del table
    mass, n, rng = 0.7, 200_000, stream(1, "phase space")
    pt, energy = run.sampler.sample(np.full(n, mass), rng)
    radiated = brem(run, run.interaction).produce(mass, n=n, rng=rng)
    other = (np.asarray(radiated.p4.E), np.asarray(radiated.p4.pt), radiated.weight)
    name = "MOCK dimuons" if mock else "dimuons"
    samples = {name: (energy, pt, np.ones(n)), "bremsstrahlung": other}
    figure = phase_space_figure(samples, title=f"$m_{{A′}}$ = {mass} GeV", mock=mock)
    report.save_figure(figure, output / "fig6_phase_space")
    cells = {
        "energy_edges": np.geomspace(2, 400, 15),
        "pt_edges": np.array([0, 0.2, 0.4, 0.6, 0.9, 1.3, 2, 4]),
    }
    measured = momenta(pt, energy, mass, rng)
    p4 = radiated.p4
    theory = np.stack([np.asarray(x) for x in (p4.px, p4.py, p4.pz, p4.E)])
    keep, kept = seen(measured, mass, rng), seen(theory, mass, rng)
    share = float(radiated.weight[kept].sum() / radiated.weight.sum())
    total = float(np.interp(mass, run.mass, run.rate.value))
    result: dict = {
        "accepted share of hadrons": float(keep.mean()),
        "accepted share of bremsstrahlung": share,
    }
    whole = (template(energy, pt, np.ones(n), **cells), template(*other, **cells))
    accepted = (
        template(energy[keep], pt[keep], np.ones(keep.sum()), **cells),
        template(*(column[kept] for column in other), **cells),
    )
    for kernel in (preset("qra_v2"), *band(preset("qra_v2"))):
        part = run.interaction * float(kernel.rate(mass, run.exposure.beam_energy)) / total
        fractions = {"full phase space": min(part, 1.0), "spectrometer": min(part * share / keep.mean(), 1.0)}
        result[f"Λ = {kernel.off_shell:g} GeV"] = {
            name: {"share": f, "dimuons needed": float(pairs_to_exclude(*shapes, f)[0])}
            for (name, f), shapes in zip(fractions.items(), (whole, accepted), strict=True)
        }
    return result


def detectors(run: Inputs, table: MesonTable, output: Path, mock: bool) -> dict:
    """Reach of illustrative millicharge detectors: dimuons, and Dalitz decays below their threshold."""
    charges = np.geomspace(1e-5, 0.1, 61)
    found: dict[str, tuple[list, list]] = {}
    names = ("mcp_bars", "mcp_tpc", "mcp_skipper")
    shelf = {name: load_millicharge_detector(data_path(f"detectors/{name}.toml")) for name in names}
    pairs = np.clip(run.density * np.diff(run.edges), 0, None)
    measured = accept.Measured(run.exposure, "per_interaction")
    limits = {
        name: float(infer.counting_limit(round(d.background or 0.0), d.background or 0.0))
        for name, d in shelf.items()
    }
    for m_chi in (0.01, 0.02, 0.04, 0.06, 0.09, 0.12, 0.16, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5):
        rng = stream(1, "millicharge", str(m_chi))
        photons = conditional(m_chi, (run.edges, pairs), M_MU, run.sampler, inside(run), n=40_000, rng=rng)
        samples = [(chi_pairs(photons, m_chi, rng=rng), measured)]
        for light in light_mesons(run, table):
            top = M_PI0 if isinstance(light, PionDalitz) else 2 * M_MU
            if 2 * m_chi < top:
                below = chi_from_channel(light, m_chi, mass_range=(0.0, top), n=20_000, rng=rng)
                samples.append((chi_pairs(below, m_chi, rng=rng, longitudinal=0.0), measured))
        for name, detector in shelf.items():
            total = sum(
                accept.millicharge_yields(sample, m_chi, charges, detector, measured=law).signal
                for sample, law in samples
            )
            lower = infer.reach([m_chi], charges, total[None, :], limits[name]).edges[0, 0]
            masses, edges = found.setdefault(detector.name, ([], []))
            masses.append(m_chi)
            edges.append(float(lower))
    curves = {name: (np.array(masses), np.array(edges)) for name, (masses, edges) in found.items()}
    figure = reach_lines_figure(
        curves,
        x_label=r"$m_\chi$ [GeV]",
        y_label="$Q$, expected reach at 90 % CL",
        y_range=(2e-5, 3e-2),
        mock=mock,
        title="illustrative detectors, 400 GeV dump",
    )
    report.save_figure(figure, output / "millicharge_reach")
    lower_edges = {
        name: dict(zip(map(str, masses), edges, strict=True)) for name, (masses, edges) in found.items()
    }
    exponents = {detector.name: detector.exponent for detector in shelf.values()}
    return {"exponent of Q": exponents, "lower edge": lower_edges}
