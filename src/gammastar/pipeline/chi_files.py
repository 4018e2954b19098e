"""Millicharged pairs of a finished run as files: events, or a list of particles for a detector simulation."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gammastar import predict
from gammastar import spectrum as normalised
from gammastar.core.constants import M_E, M_MU
from gammastar.core.errors import InputFileError, UserError
from gammastar.core.records import FloatArray, Sample, Spectrum
from gammastar.core.rng import stream
from gammastar.core.sampler import Sampler
from gammastar.store.events import SUFFIXES, EventTable, write_events
from gammastar.store.manifest import read_json
from gammastar.store.particle_list import write_particle_list
from gammastar.store.records import read_spectrum

__all__ = ["chi_file"]

LIST = (".txt", ".dat")
CHI = 9000008  # a free code of the Monte Carlo numbering, for a particle of no standard


def chi_file(
    results: Path, m_chi: float, n: int, output: Path, *, seed: int = 1, longitudinal: float = 1.0 / 3.0
) -> str:
    """Write pairs χχ̄ from the virtual photons that a run measured; return a line that says what was written.

    Parameters
    ----------
    results : Path
        Folder of a finished run with ``spectrum.json``; its flow gives the kinematics if there is one.
    m_chi : float [GeV]
    n : int
        Pairs.
    output : Path
        ``.txt`` or ``.dat``: lines ``px py pz E x y z t`` of single particles of equal weight, as BdNMC reads
        them; the suffixes of `gammastar.store.events.write_events`: one event per pair, weighted.
    seed : int
    longitudinal : float
        Share of helicity zero in the virtual photons; 1/3 is unpolarised.

    Raises
    ------
    InputFileError
        If the folder holds no spectrum per proton on target.
    UserError
        If the suffix is unknown.
    PhysicsError
        If no measured photon is heavy enough.

    Notes
    -----
    Weights are pairs per proton on target and Q² (Eq. 8 of Allison and Blinov); photons lighter than two
    leptons are not in them.
    """
    if not output.name.endswith((*LIST, *SUFFIXES)):
        msg = f"{output}: the suffix must be one of {', '.join((*LIST, *SUFFIXES))}"
        raise UserError(msg)
    measured = read_spectrum(results / "spectrum.json")
    if measured.exposure is None:
        msg = f"{results / 'spectrum.json'}: no beam and target; run with the section [spectrum]"
        raise InputFileError(msg)
    _, density, _ = normalised.mass_density(measured)
    edges = np.asarray(measured.hist.axes["mass"].edges, dtype=np.float64)
    rng = stream(seed, "chi", f"{m_chi:.9f}")
    photons = predict.conditional(
        m_chi,
        edges,
        density * np.diff(edges),
        _lepton_mass(results),
        _sampler(results, measured),
        lambda m, pt, e: normalised.in_domain(measured, m, pt, e),
        n=n,
        rng=rng,
    )
    sample = predict.chi_pairs(photons, m_chi, rng=rng, longitudinal=longitudinal)
    total = float(photons.weight.sum())
    text = f"{n} pairs of m_chi = {m_chi:g} GeV, {total:.6g} pairs per proton on target and Q^2"
    if output.name.endswith(LIST):
        write_particle_list(output, sample, 2 * n, rng, note=f"chi and anti-chi, {text}")
    else:
        _write_pairs(output, photons, sample, measured.exposure.beam_energy)
    return f"{text}, in {output}"


def _write_pairs(output: Path, photons: predict.VirtualPhotons, sample: Sample, beam: float) -> None:
    n = len(photons.mass)
    p: FloatArray = np.stack([np.asarray(c) for c in (sample.p4.px, sample.p4.py, sample.p4.pz, sample.p4.E)])
    events = EventTable(
        number=np.arange(n),
        p4=p[:, :n] + p[:, n:],
        mass=photons.mass,
        weight=photons.weight,
        origin=sample.origin[:n].T,
        pdg=22,
        daughters=((CHI, p[:, :n]), (-CHI, p[:, n:])),
    )
    write_events(output, events, beam_energy=beam)


def _lepton_mass(results: Path) -> float:
    path = results / "steering.json"
    section = read_json(path).get("spectrum", {}) if path.is_file() else {}
    return M_E if section.get("lepton") == "e" else M_MU


def _sampler(results: Path, measured: Spectrum) -> Sampler:
    if not (results / "flow.safetensors").is_file():
        return normalised.HistSampler(measured)
    from gammastar import flow

    found: Sampler = flow.load(results / "flow")
    return found
