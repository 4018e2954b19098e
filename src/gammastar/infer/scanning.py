"""Every signal of a published likelihood tested: asymptotic CLs of pyhf, or exact ones at few events."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import jsonpatch
import numpy as np
import pyhf

from gammastar.core.errors import InputFileError, PhysicsError
from gammastar.core.records import FloatArray
from gammastar.infer.ensemble import Convention
from gammastar.infer.hs3 import to_hs3
from gammastar.infer.likelihood import Likelihood
from gammastar.infer.limit import ASYMPTOTIC_FROM
from gammastar.infer.scan_exact import exact_point, suits
from gammastar.infer.workspace import MASKED

__all__ = ["CODES", "ScanMethod", "ScanPoint", "scan", "write_hs3"]

CODES = {"normsys": {"interpcode": "code4"}, "histosys": {"interpcode": "code4p"}}
"""Interpolation codes of ROOT's HistFactory, with which published likelihoods are made."""

ScanMethod: TypeAlias = Literal["asymptotic", "exact", "auto"]


@dataclass(frozen=True, slots=True, eq=False)
class ScanPoint:
    """CLs of one patch.

    Attributes
    ----------
    name : str
    values : tuple of float
    observed : float
        nan for a masked workspace, whose counts are the expected ones.
    expected : NDArray, shape (5,)
        At −2 … +2 standard deviations.
    parameters : int
    method : str
    error : float
        Monte Carlo error of the observed CLs.
    """

    name: str
    values: tuple[float, ...]
    observed: float
    expected: FloatArray
    parameters: int
    method: str
    error: float = 0.0


def scan(
    likelihood: Likelihood,
    names: Sequence[str] | None = None,
    *,
    strength: float = 1.0,
    codes: Mapping[str, Mapping[str, str]] | None = None,
    method: ScanMethod = "asymptotic",
    asymptotic_from: float = ASYMPTOTIC_FROM,
    convention: Convention | None = None,
    rng: np.random.Generator | None = None,
) -> Iterator[ScanPoint]:
    """Test the signal of each patch: pyhf's asymptotic CLs (q̃μ), or exact ones.

    Parameters
    ----------
    likelihood : Likelihood
    names : sequence of str, optional
        Patches to be tested; all of them by default. Without any patch the workspace itself is tested.
    strength : float
        Signal strength to be tested.
    codes : mapping, optional
        Interpolation codes; those of ROOT's HistFactory by default.
    method : {"asymptotic", "exact", "auto"}
        "auto": exact below `asymptotic_from` events where the exact engine knows all nuisances (log-normal
        ones of whole samples); `ScanPoint.method` says which and why.
    asymptotic_from : float
        Expected or observed events, whichever is smaller.
    convention : Convention, optional
        Of exact CLs; the ratio of profiled likelihoods with fixed auxiliary measurements by default.
    rng : numpy.random.Generator, optional
        Of the toys of exact CLs; of seed 1 by default.

    Yields
    ------
    ScanPoint

    Raises
    ------
    PhysicsError
        For a name that is no patch, or a fit that fails.

    Notes
    -----
    Minimised with SLSQP. Where fewer than some twenty events are expected asymptotic CLs are too small.
    """
    patches = dict(likelihood.patches) or {"workspace": []}
    chosen = list(patches) if names is None else list(names)
    unknown = [name for name in chosen if name not in patches]
    if unknown:
        msg = f"scan: no patch {unknown[0]!r}; there are {', '.join(list(patches)[:5])}, …"
        raise PhysicsError(msg)
    settings = {name: dict(code) for name, code in (CODES if codes is None else codes).items()}
    masked = likelihood.workspace["measurements"][0]["name"] == MASKED
    rng = np.random.default_rng(1) if rng is None else rng
    for name in chosen:
        why = ""
        try:
            spec = jsonpatch.apply_patch(likelihood.workspace, patches[name])
            exactly = method == "exact"
            if method == "auto":
                exactly, why = suits(spec, asymptotic_from)
            if exactly:
                yield _exactly(name, likelihood, spec, (strength, rng, convention, why))
                continue
            space = pyhf.Workspace(spec)
            model = space.model(modifier_settings=settings, measurement_name=None)
            observed, expected = pyhf.infer.hypotest(
                strength, space.data(model), model, test_stat="qtilde", return_expected_set=True
            )
        except pyhf.exceptions.FailedMinimization as error:
            msg = f"scan, patch {name!r}: the fit failed; look for empty or negative bins ({error})"
            raise PhysicsError(msg) from error
        except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
            msg = f"scan, patch {name!r} does not fit the workspace: {error}"
            raise InputFileError(msg) from error
        yield ScanPoint(
            name,
            likelihood.values.get(name, ()),
            np.nan if masked else float(observed),
            np.asarray(expected, dtype=np.float64),
            int(model.config.npars),
            f"asymptotic CLs (pyhf {pyhf.__version__}, q̃μ, SLSQP)" + (f"; {why}" if why else ""),
        )


def _exactly(
    name: str,
    likelihood: Likelihood,
    spec: dict[str, Any],
    how: tuple[float, np.random.Generator, Convention | None, str],
) -> ScanPoint:
    strength, rng, convention, why = how
    found, expected = exact_point(spec, strength, rng, convention=convention)
    parameters = len({m["name"] for c in spec["channels"] for s in c["samples"] for m in s["modifiers"]})
    label = found.method + (f"; {why}" if why else "")
    return ScanPoint(
        name, likelihood.values.get(name, ()), found.cls, expected, parameters, label, found.error
    )


def write_hs3(likelihood: Likelihood, folder: Path, names: Sequence[str] | None = None) -> list[Path]:
    """Write signals of a likelihood as HS3 documents, ``<name>.json`` each; return the files.

    Parameters
    ----------
    likelihood : Likelihood
    folder : Path
        Made if it is missing.
    names : sequence of str, optional
        Patches; all of them by default, or the workspace itself if there are none.

    Raises
    ------
    PhysicsError
        As `to_hs3`.
    """
    patches = dict(likelihood.patches) or {"workspace": []}
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in patches if names is None else names:
        document = to_hs3(jsonpatch.apply_patch(likelihood.workspace, patches[name]))
        path = folder / f"{name}.json"
        path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        written.append(path)
    return written
