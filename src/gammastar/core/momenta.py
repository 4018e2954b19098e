"""Four-momenta as columns; what vector knows of them is computed when it is asked for."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from gammastar.core.records import FloatArray

__all__ = ["Momenta"]


@dataclass(frozen=True, slots=True, eq=False)
class Momenta:
    """Four-momenta of particles, shape (n,).

    Every other quantity of ``vector.MomentumNumpy4D`` is an attribute too, as ``mass`` or ``phi``: vector is
    imported when the first of them is asked for, which takes longer than many a job.

    Attributes
    ----------
    px, py, pz, E : NDArray, shape (n,)
        Components and energy [GeV].

    Examples
    --------
    >>> p4 = Momenta(*np.array([[3.0], [4.0], [0.0], [13.0]]))
    >>> p4.pt.tolist(), p4.mass.tolist(), len(p4[:0])
    ([5.0], [12.0], 0)
    """

    px: FloatArray
    py: FloatArray
    pz: FloatArray
    E: FloatArray

    @property
    def pt(self) -> FloatArray:
        """Transverse momentum [GeV]."""
        return np.sqrt(self.px**2 + self.py**2)

    @property
    def array(self) -> Any:
        """The same as ``vector.MomentumNumpy4D``."""
        import vector

        return vector.array(
            {one.name: np.asarray(getattr(self, one.name), dtype=np.float64) for one in fields(self)}
        )

    def __len__(self) -> int:
        return len(self.E)

    def __getitem__(self, index: npt.NDArray[Any] | slice) -> Momenta:
        """Return some of them, by their places, a mask or a slice."""
        return Momenta(self.px[index], self.py[index], self.pz[index], self.E[index])

    def __add__(self, other: Any) -> Any:
        """Return the sums with others, one by one."""
        return self.array + (other.array if isinstance(other, Momenta) else other)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.array, name)
