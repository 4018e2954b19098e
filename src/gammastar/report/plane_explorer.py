"""An interactive plane of mass and coupling in one self-contained HTML file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from gammastar.core.documents import escaped
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray

__all__ = ["Plane2D", "explorer"]

_TEMPLATE = Path(__file__).with_name("explorer.html")


@dataclass(frozen=True, slots=True, eq=False)
class Plane2D:
    """Expected events of one detector over the plane.

    Attributes
    ----------
    mass : NDArray, shape (n,) [GeV]
        Increasing.
    coupling : NDArray, shape (k,)
        Equidistant in the logarithm.
    signal : NDArray, shape (n, k)
        Expected events.
    in_domain_signal : NDArray, shape (n, k), or None
        Their part from where dileptons were measured; None for theory, which measured nothing.
    limit : sequence of float or NDArray, shape (n, k)
        Expected limit on the signal for each confidence level; an array where it changes along the plane.
    """

    mass: FloatArray
    coupling: FloatArray
    signal: FloatArray
    in_domain_signal: FloatArray | None
    limit: Sequence[float | FloatArray]

    def __post_init__(self) -> None:
        shape = (len(self.mass), len(self.coupling))
        for name in ("signal", "in_domain_signal"):
            found = np.shape(getattr(self, name))
            if found != shape and not (name == "in_domain_signal" and self.in_domain_signal is None):
                msg = f"Plane2D.{name} has shape {found}, expected {shape}"
                raise PhysicsError(msg)
        for limit in self.limit:
            if np.shape(limit) not in {(), shape}:
                msg = f"Plane2D.limit has shape {np.shape(limit)}, expected a number or {shape}"
                raise PhysicsError(msg)


def _content(plane: Plane2D) -> dict[str, Any]:
    positive = plane.signal > 0
    log = np.log10(np.where(positive, plane.signal, 1.0)).round(3)
    measured = plane.in_domain_signal
    return {
        "mass": plane.mass.round(6).tolist(),
        "coupling": plane.coupling.tolist(),
        "log_signal": [
            [value if known else None for value, known in zip(row, mask, strict=True)]
            for row, mask in zip(log.tolist(), positive.tolist(), strict=True)
        ],
        "fraction": None if measured is None else _fraction(measured, plane.signal).tolist(),
        "limit": [x if np.ndim(x) == 0 else np.round(x, 4).tolist() for x in plane.limit],
    }


def _fraction(part: FloatArray, signal: FloatArray) -> FloatArray:
    result: FloatArray = np.divide(part, signal, out=np.zeros_like(signal), where=signal > 0).round(4)
    return result


def explorer(
    title: str,
    planes: Mapping[str, Plane2D],
    *,
    cl: Sequence[float],
    mock: bool,
    labels: tuple[str, str] = ("m(A′) [GeV]", "ε"),
) -> str:
    """Return the HTML of the plane: events, limit and measured fraction at the pointer; three switches.

    Parameters
    ----------
    title : str
    planes : mapping of detector to Plane2D
    cl : sequence of float
        Confidence levels of the limits.
    mock : bool
        Put MOCK on the page and into the plane.
    labels : tuple of str
        Of mass and coupling.

    Raises
    ------
    PhysicsError
        If there is no plane, or a plane has not one limit per confidence level.
    """
    if not planes:
        msg = "explorer: no plane is given"
        raise PhysicsError(msg)
    for name, plane in planes.items():
        if len(plane.limit) != len(cl):
            msg = f"explorer: {name!r} has {len(plane.limit)} limits for {len(cl)} confidence levels"
            raise PhysicsError(msg)
    data = {
        "mock": mock,
        "cl": list(cl),
        "mass_label": labels[0],
        "mass_name": labels[0].split(" ")[0],
        "coupling_label": labels[1],
        "detectors": {name: _content(plane) for name, plane in planes.items()},
    }
    banner = (
        '<p class="mock"><b>MOCK</b>: an expected reach from mock data, no exclusion.</p>' if mock else ""
    )
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escaped(title), banner=banner, data=text
    )
