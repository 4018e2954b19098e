"""Files of events: of a trained flow, of millicharged pairs of a finished run, or mock data."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gammastar import predict
from gammastar import spectrum as normalised
from gammastar.core.constants import M_E, M_MU
from gammastar.core.errors import InputFileError, UserError
from gammastar.core.files import LARGEST_TABLE, shipped, text_of
from gammastar.core.records import FloatArray
from gammastar.core.sampling import Sampler, stream
from gammastar.pipeline.context import Tell
from gammastar.predict.millicharge import conditional
from gammastar.store.events import SUFFIXES, EventTable, write_events, write_particle_list
from gammastar.store.folder import check_beside, of_this_version
from gammastar.store.manifest import read_json, read_spectrum

if TYPE_CHECKING:
    from gammastar.flow import KinematicFlow
    from gammastar.flow.model import MassSource


LIST = (".txt", ".dat")
CHI = 9000008  # a free code of the Monte Carlo numbering, for a particle of no standard


CHUNK = 500_000  # events in memory at a time
LEPTONS = {"ee": (11, M_E), "mumu": (13, M_MU)}


def sample_file(
    path: Path,
    n: int | None,
    output: Path,
    *,
    seed: int = 1,
    first: int = 0,
    decay: str | None = None,
    ctau: float = 0.0,
    **source: Any,
) -> str:
    """Draw virtual photons, or dark photons of the same kinematics, from a saved flow and write them."""
    from gammastar import flow

    for suffix in (".json", ".safetensors"):
        check_beside(path.with_suffix(suffix))
    found = flow.load(path.with_suffix("") if path.suffix in {".safetensors", ".json"} else path)
    masses = _source(found, **source)
    n = len(masses) if isinstance(masses, np.ndarray) else n
    if n is None:
        raise UserError("give the number of events with -n")
    parts = _parts(found, masses, (first, n), seed, decay, ctau)
    write_events(output, parts, beam_energy=found.beam_energy, total=(float(n), float(n), 1.0))
    return f"{n} events in {output}"


def _source(
    found: KinematicFlow,
    mass: float | None = None,
    masses: Path | None = None,
    spectrum: Path | None = None,
    above: float = 0.0,
) -> MassSource:
    if sum(given is not None for given in (mass, masses, spectrum)) != 1:
        raise UserError("give either --mass or --spectrum or --masses")
    if masses is not None:
        return _column(masses)
    if spectrum is not None:
        return _drawn_from(spectrum, above, found.mass_range)
    return 0.0 if mass is None else mass


def _column(path: Path) -> FloatArray:
    try:
        values = np.loadtxt(text_of(path, LARGEST_TABLE).splitlines(), dtype=np.float64, ndmin=1)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: is no list of masses, one number [GeV] per line ({error})") from error
    if values.ndim != 1 or not values.size or not (np.isfinite(values) & (values > 0)).all():
        raise UserError(f"{path}: must hold one positive mass [GeV] per line; it has shape {values.shape}")
    return values


def _drawn_from(path: Path, above: float, limits: tuple[float, float]) -> tuple[FloatArray, FloatArray]:
    """Return mass edges and contents of a spectrum above a mass."""
    check_beside(path)
    read = read_spectrum(path)
    axis = next(i for i, axis in enumerate(read.hist.axes) if axis.name == "mass")
    others = tuple(i for i in range(read.hist.ndim) if i != axis)
    edges = np.asarray(read.hist.axes[axis].edges, dtype=np.float64)
    contents = np.clip(read.values.sum(axis=others), 0.0, None)
    if above > edges[0]:
        if above >= min(edges[-1], limits[1]):
            end = min(edges[-1], limits[1])
            raise UserError(f"--above {above:g} GeV: the spectrum and the flow end at {end:g} GeV")
        inner = np.concatenate([[above], edges[edges > above]])
        k = len(edges) - len(inner)
        share = (inner[1] - above) / (edges[k + 1] - edges[k])
        edges, contents = inner, np.concatenate([[contents[k] * share], contents[k + 1 :]])
    return edges, contents


def _parts(
    found: KinematicFlow,
    source: MassSource,
    numbers: tuple[int, int],
    seed: int,
    decay: str | None,
    ctau: float,
) -> Iterator[EventTable]:
    from gammastar import flow

    first, n = numbers
    for low in range(0, n, CHUNK):
        size = min(CHUNK, n - low)
        own = source[low : low + size] if isinstance(source, np.ndarray) else source
        events = flow.draw_events(found, size, seed=seed, mass=own, first=first + low)
        daughters: tuple[tuple[int, FloatArray], ...] = ()
        if decay is not None:
            pdg, m_lepton = LEPTONS[decay]
            minus, plus = flow.model.two_leptons(events, m_lepton)
            daughters = (pdg, minus), (-pdg, plus)
        yield EventTable(
            number=events.number,
            p4=events.p4,
            mass=events.mass,
            weight=np.ones(size),
            origin=np.zeros((3, size)),
            daughters=daughters,
            decay=flow.model.decay_vertices(events, ctau) if decay and ctau > 0 else None,
        )


def chi_file(
    results: Path, m_chi: float, n: int, output: Path, *, seed: int = 1, longitudinal: float = 1.0 / 3.0
) -> str:
    """Write pairs χχ̄ of a run's measured photons (Eq. 8 of Allison and Blinov); return what was written."""
    if not output.name.endswith((*LIST, *SUFFIXES)):
        raise UserError(f"{output}: the suffix must be one of {', '.join((*LIST, *SUFFIXES))}")
    for name in ("spectrum.json", "steering.json", "flow.json", "flow.safetensors"):
        if (results / name).is_file():
            check_beside(results / name)
    measured = read_spectrum(results / "spectrum.json")
    if measured.exposure is None:
        raise InputFileError(f"{results / 'spectrum.json'}: no beam and target; run with [spectrum]")
    _, density, _ = normalised.mass_density(measured)
    edges = np.asarray(measured.hist.axes["mass"].edges, dtype=np.float64)
    rng = stream(seed, "chi", f"{m_chi:.9f}")
    path = results / "steering.json"
    with of_this_version(path):
        electrons = path.is_file() and read_json(path).get("spectrum", {}).get("lepton") == "e"
    sampler: Sampler = normalised.HistSampler(measured)
    if (results / "flow.safetensors").is_file():
        from gammastar import flow

        sampler = flow.load(results / "flow")
    photons = conditional(
        m_chi,
        (edges, density * np.diff(edges)),
        M_E if electrons else M_MU,
        sampler,
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
        first, second = np.split(sample.four_momenta, 2, axis=1)
        events = EventTable(
            number=np.arange(n),
            p4=first + second,
            mass=photons.mass,
            weight=photons.weight,
            origin=sample.origin[:n].T,
            pdg=22,
            daughters=((CHI, first), (-CHI, second)),
        )
        write_events(output, events, beam_energy=measured.exposure.beam_energy)
    return f"{text}, in {output}"


def simulate_file(
    card: str,
    n: int,
    output: Path,
    *,
    seed: int,
    tell: Tell | None = None,
    **options: Any,
) -> list[str]:
    """Write mock events of a card; return lines that say what was made, with the placeholders of the card."""
    from gammastar import mock
    from gammastar.store.events import tree_writer

    start = time.perf_counter()
    loaded = mock.load_card(shipped(card, Path(), "cards"))
    written = {key: options.pop(key) for key in ("compression", "layout") if key in options}

    def told(done: int, total: int) -> None:
        if tell is not None:
            tell("simulate", done / total, f"{output.name}: {done} of {total}")

    blocks = mock.simulate_blocks(loaded, n, seed=seed, progress=told, **options)
    with tree_writer(output, **written) as file:
        meta = mock.write_blocks(file, blocks)
    seconds = time.perf_counter() - start
    lines = [f"MOCK {meta['kind']} events of card {loaded.name!r}: {meta['n_events']} in {output}"]
    lines += [f"protons on target: {float(meta['N_POT']):.6g}"]
    if "r_factor" in meta:
        r_factor, sigma = meta["r_factor"], meta["r_factor_sigma"]
        lines.append(f"R of the combinatorial background: {r_factor:.4f} ± {sigma:.4f}")
    lines += [f"content sha256: {meta['content_sha256']}"]
    lines += [f"{seconds:.1f} s, {meta['n_events'] / seconds:.0f} events per second"]
    found = sorted(key for key, source in loaded.provenance.items() if source.tag == "placeholder")
    return [*lines, f"placeholders of the card: {', '.join(found) or 'none'}"]
