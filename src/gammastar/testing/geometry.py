"""The contract of a decay volume, alone or as part of a detector."""

from __future__ import annotations

import numpy as np

from gammastar.core.records import FloatArray
from gammastar.core.sampling import stream
from gammastar.physics.detector import Detector
from gammastar.physics.geometry import Geometry
from gammastar.testing.contract import Contract

__all__ = ["check_geometry"]


def check_geometry(
    volume: Geometry | Detector, *, origin: tuple[float, float, float] = (0.0, 0.0, 0.0), n: int = 4000
) -> None:
    """Check that a volume returns the same chord from wherever on the line one looks.

    Parameters
    ----------
    volume : Geometry or Detector
        Of a detector, its volume as seen from its target, and that its planes are not all before it.
    origin : tuple of float [m]
        From where lines start; not used for a detector.
    n : int
        Number of forward lines, their angles to the beam uniform in the logarithm from 0.1 mrad.

    Raises
    ------
    ContractError
        If chords have the wrong shape or order, no line hits, the length of the direction matters, a start
        nearer to the volume, inside or behind it gives another chord, or `is_bounded` is not true to it.
    """
    contract = Contract("volume", volume)
    detector = volume if isinstance(volume, Detector) else None
    shape = detector.volume if detector is not None else volume
    if not isinstance(shape, Geometry):
        contract.need(False, "derive it from gammastar.physics.geometry.Geometry")
        contract.settle()
        return
    start = np.tile(np.asarray(origin if detector is None else detector.target.position, float), (n, 1))
    unit = _directions(n)
    chord = np.asarray(shape.chord(start, unit), dtype=np.float64)
    if contract.need(chord.shape == (n, 2), f"chord: shape {chord.shape} for {n} lines, must be ({n}, 2)"):
        _single(contract, shape, chord)
        scale = stream(2, "contract").uniform(0.1, 50.0, (n, 1))
        contract.close(
            shape.chord(start, scale * unit), chord, "chord: the length of the direction must not matter"
        )
        hit = ~np.isnan(chord[:, 0])
        if contract.need(hit.any(), f"chord: none of {n} lines from {start[0].tolist()} m hits; metres?"):
            _along(contract, shape, start[hit], unit[hit], chord[hit])
            _planes(contract, detector, start[hit] + chord[hit, :1] * unit[hit])
    contract.settle()


def _directions(n: int) -> FloatArray:
    rng = stream(1, "contract")
    theta, phi = 10 ** rng.uniform(-4, 0.1, n), rng.uniform(-np.pi, np.pi, n)
    return np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=1)


def _single(contract: Contract, shape: Geometry, chord: FloatArray) -> None:
    miss = np.isnan(chord)
    contract.need((miss[:, 0] == miss[:, 1]).all(), "chord: a miss must be nan in both columns")
    entry, end = chord[~miss.any(axis=1)].T
    contract.need((entry >= 0).all(), "chord: the entry must not lie behind the origin")
    contract.need((entry < end).all(), "chord: the entry must lie before the exit")
    contract.need(np.isfinite(entry).all(), "chord: the entry must be finite")
    contract.need(
        not (shape.is_bounded and np.isinf(end).any()), "is_bounded is true, but a chord has no end"
    )


def _along(
    contract: Contract, shape: Geometry, start: FloatArray, unit: FloatArray, chord: FloatArray
) -> None:
    """Move the start along the line: towards the volume, into it, behind it."""
    entry, end = chord.T

    def moved(step: FloatArray) -> FloatArray:
        return np.asarray(shape.chord(start + step[:, None] * unit, unit), dtype=np.float64)

    tolerance = 1e-9 * max(1.0, float(np.abs(start).max() + entry.max()))
    nearer = moved(entry / 2)
    contract.close(
        nearer,
        chord - entry[:, None] / 2,
        "chord: changes with a start nearer to it",
        rtol=1e-7,
        atol=tolerance,
    )
    depth = np.where(np.isinf(end), 1.0, (end - entry) / 2)
    inside = moved(entry + depth)
    expected = np.stack([np.zeros_like(end), end - entry - depth], axis=1)
    contract.close(
        inside, expected, "chord: a start inside must enter at 0 and keep its exit", rtol=1e-7, atol=tolerance
    )
    past = np.isfinite(end)
    behind = moved(np.where(past, end * (1 + 1e-6) + 1e-6, 0.0))[past]
    contract.need(np.isnan(behind).all(), "chord: a start behind it must miss (one piece per line)")


def _planes(contract: Contract, detector: Detector | None, entry: FloatArray) -> None:
    if detector is None:
        return
    contract.need(
        (entry[:, 2] >= detector.target.position[2]).all(), "volume: begins before the target of the detector"
    )
    for plane in detector.planes:
        contract.need(
            plane.z > entry[:, 2].min(), f"plane {plane.name!r} at z = {plane.z:g} m lies before the volume"
        )
