"""The likelihood of a search as files: workspace, patch set, HS3, HistFactory XML, HEPData submission."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import jsonpatch
import numpy as np

from gammastar import infer, predict
from gammastar.core.records import Exposure
from gammastar.infer.histfactory.likelihoods import CONVENTION
from gammastar.pipeline.context import Context
from gammastar.pipeline.producing import model_of
from gammastar.pipeline.reach_files import parts_of
from gammastar.store.manifest import write_json

if TYPE_CHECKING:
    from gammastar.config import Infer
    from gammastar.pipeline.search import Plane, Search

__all__ = ["KEYS", "write", "write_grid"]

KEYS = ("method", "asymptotic_from", "cl")  # of [infer], which a patch set carries with it

PATCHED = (0.1, 1e4)  # expected events of the grid points that go into the patch set
MASS_NUCLEON = 0.9389


def write(ctx: Context, search: Search, plane: Plane, exposure: Exposure, *, suffix: str) -> None:
    """Write ``workspace.json``, ``patchset.json`` and what else the steering asks for."""
    section = ctx.steering.infer
    if section is None:
        return
    counts = section.observed
    observed = "masked" if isinstance(counts, str) or suffix else list(counts)
    found = write_grid(ctx, plane, observed=observed, suffix=suffix)
    if found is None:
        return
    spec, patches = found
    if section.exports:
        _export(ctx, section, search, (spec, patches), suffix)
    if section.submission and np.isfinite(search.reach.edges).any():
        _submit(ctx, section, search, exposure, (spec, patches), suffix=suffix)


def write_grid(
    ctx: Context, plane: Plane, *, observed: Any = "masked", suffix: str = "", coupling_name: str = "eps"
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Write ``workspace<suffix>.json`` and ``patchset<suffix>.json``, one patch per mass and coupling.

    Both together hold every nuisance of the limit under its name. The finite sample, ``signal_mc``, is in the
    patches even if [infer] nuisances leaves it out of the limit.

    Returns
    -------
    tuple of dict, or None
        Workspace and patch set; None if no grid point has enough events.
    """
    calibration, search = plane.pot
    spec = infer.workspace(
        "counting",
        plane.b,
        plane.b_sigma,
        observed,
        pot_calibration_sigma=calibration,
        pot_search_sigma=search,
    )
    write_json(ctx.folder / f"workspace{suffix}.json", spec)
    section, signal = plane.section, plane.signal
    row, column = np.nonzero((signal >= PATCHED[0]) & (signal <= PATCHED[1]))
    every = slice(None, None, max(1, int(np.ceil(len(row) / section.max_patches))))
    row, column = row[every], column[every]
    if not len(row):
        ctx.book.notes.append(
            f"{plane.detector.name}: no grid point reaches {PATCHED[0]} events; no patch set"
        )
        return None
    chosen = signal[row, column]
    sigmas = {name: spread[row, column] for name, spread in plane.spreads.items() if name != "sample"}
    sigmas["signal_mc"] = np.log1p(np.clip(plane.error[row, column] / chosen, 0.0, 3.0))
    patches = infer.patchset(
        spec,
        plane.mass[row],
        plane.couplings[column],
        chosen,
        signal_mc_sigma=sigmas,
        coupling_name=coupling_name,
        hepdata=section.hepdata,
    )
    patches["metadata"][CONVENTION] = {key: getattr(section, key) for key in KEYS}  # for `gammastar scan`
    write_json(ctx.folder / f"patchset{suffix}.json", patches)
    return spec, patches


def _export(ctx: Context, section: Infer, search: Search, documents: tuple[Any, Any], suffix: str) -> None:
    """Write the likelihood of the grid point whose signal is nearest to the limit in other formats."""
    spec, patches = documents
    at = [patch["patch"][1]["value"] for patch in patches["patches"]]
    nearest = int(np.argmin(np.abs(np.log(np.sum(at, axis=1) / search.limit.expected[2]))))
    patch = patches["patches"][nearest]
    point = jsonpatch.apply_patch(spec, patch["patch"])
    name = patch["metadata"]["name"]
    if "hs3" in section.exports:
        write_json(ctx.folder / f"hs3{suffix}.json", infer.to_hs3(point))
    if "xml" in section.exports:
        infer.write_xml(point, ctx.folder / f"histfactory{suffix}")
    ctx.book.methods[f"exported likelihood, {search.detector.name}"] = (
        f"{' and '.join(section.exports)} of the point {name}, whose signal is nearest to the limit"
    )


def _submit(
    ctx: Context,
    section: Infer,
    search: Search,
    exposure: Exposure,
    documents: tuple[Any, Any],
    *,
    suffix: str,
) -> None:
    from gammastar import report

    mock = "MOCK: " if ctx.book.mock else ""
    labels = model_of(ctx).labels
    photon = labels.plane == "dark_photon"
    loss = ctx.book.loss
    says = report.Submission(
        title=f"{mock}Expected reach of {search.detector.name}",
        abstract=f"{mock}Signal from measured dileptons. {search.assumption}."
        + (f" {loss}." if loss else ""),
        coupling="kinetic mixing epsilon" if photon else _with_unit(labels),
        qualifiers={
            "CL": section.cl,
            "POT": search.detector.pot,
            "SQRT(S) [GeV]": round(float(np.sqrt(2.0 * exposure.beam_energy * MASS_NUCLEON)), 2),
        },
        reaction=f"P NUCLEUS --> {'DARKPHOTON' if photon else 'NEWPARTICLE'} X",
        method=search.limit.method,
        phrases=("Dark Photon",) if photon else (),
    )
    folder = ctx.folder / f"hepdata{suffix}"
    folder.mkdir(exist_ok=True)
    others = {name: reach for name, reach in parts_of(search).items() if name != "all"}
    report.write_submission(
        folder, search.reach, says, workspace=documents[0], patchset=documents[1], others=others
    )
    checked = "not checked (hepdata-validator is not installed)"
    if importlib.util.find_spec("hepdata_validator") is not None:
        report.check_submission(folder)
        checked = "valid to hepdata-validator, offline"
    ctx.book.methods[f"HEPData submission, {search.detector.name}"] = checked


def _with_unit(labels: predict.Labels) -> str:
    """Return the heading of a column of couplings."""
    return labels.coupling_name + (f" [{labels.unit}]" if labels.unit else "")
