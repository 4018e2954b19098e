"""How many pairs were measured near a mass: the statistical precision that no smoothing can beat."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gammastar.core.documents import from_json
from gammastar.core.errors import InputFileError, PhysicsError
from gammastar.core.records import FloatArray
from gammastar.core.whole import write_whole

__all__ = ["HALF_WIDTH", "NearPairs"]

HALF_WIDTH = 0.03  # GeV
_STEP = 0.01  # GeV between two nodes


@dataclass(frozen=True, slots=True, eq=False)
class NearPairs:
    """Effective number of pairs within `half_width` of a mass.

    Attributes
    ----------
    mass : NDArray, shape (n_nodes,) [GeV]
    count : NDArray, shape (n_nodes,)
        (Σw)²/Σw² of the pairs in the window around each node, at least one.
    half_width : float [GeV]
    """

    mass: FloatArray
    count: FloatArray
    half_width: float = HALF_WIDTH

    def __post_init__(self) -> None:
        fits = self.mass.ndim == 1 and self.mass.shape == self.count.shape and len(self.mass) > 1
        if not fits or not (np.diff(self.mass) > 0).all() or not (self.count >= 1).all():
            msg = f"NearPairs: {self.mass.shape} masses must increase and have a count ≥ 1 each"
            raise PhysicsError(msg)
        if not self.half_width > 0:
            msg = f"NearPairs: half_width = {self.half_width!r} GeV must be positive"
            raise PhysicsError(msg)

    @classmethod
    def of(
        cls,
        mass: FloatArray,
        weight: FloatArray,
        mass_range: tuple[float, float],
        *,
        half_width: float = HALF_WIDTH,
    ) -> NearPairs:
        """Count pairs.

        Parameters
        ----------
        mass : NDArray, shape (n,) [GeV]
        weight : NDArray, shape (n,)
            Of either sign.
        mass_range : (float, float) [GeV]
        half_width : float [GeV]

        Examples
        --------
        >>> found = NearPairs.of(np.linspace(0.2, 1.2, 1001), np.ones(1001), (0.2, 1.2))
        >>> round(float(found.at(np.array([0.7]))[0]))
        60
        """
        order = np.argsort(mass)
        ordered = np.asarray(mass, dtype=np.float64)[order]
        own = np.asarray(weight, dtype=np.float64)[order]
        sums = [np.concatenate([[0.0], np.cumsum(own**power)]) for power in (1, 2)]
        nodes = np.linspace(*mass_range, 2 + int((mass_range[1] - mass_range[0]) / _STEP))
        first = np.searchsorted(ordered, nodes - half_width, "left")
        last = np.searchsorted(ordered, nodes + half_width, "right")
        total, square = (one[last] - one[first] for one in sums)
        some = (square > 0) & (total > 0)
        count = np.divide(total**2, square, out=np.ones(len(nodes)), where=some)
        return cls(nodes, np.maximum(count, 1.0), half_width)

    def at(self, mass: FloatArray) -> FloatArray:
        """Return the effective number of pairs around each mass [GeV], shape as `mass`."""
        result: FloatArray = np.interp(mass, self.mass, self.count)
        return result

    def save(self, path: Path) -> None:
        """Write a JSON file."""
        content = {"mass": self.mass.tolist(), "count": self.count.tolist(), "half_width": self.half_width}
        write_whole(path, (json.dumps(content) + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> NearPairs:
        """Read the file of `save`.

        Raises
        ------
        InputFileError
            If it is missing or damaged.
        """
        try:
            content = from_json(path.read_text(encoding="utf-8"))
            mass, count = (np.asarray(content[name], dtype=np.float64) for name in ("mass", "count"))
            return cls(mass, count, float(content["half_width"]))
        except (OSError, KeyError, TypeError, ValueError, PhysicsError) as error:
            msg = f"{path}: is no count of pairs by mass ({error}); train the flow again"
            raise InputFileError(msg) from error
