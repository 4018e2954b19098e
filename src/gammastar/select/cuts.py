"""What to keep: ranges are data, everything else is a Python function."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import awkward as ak
import numpy as np

from gammastar.core.errors import SteeringError
from gammastar.core.pairs import Pairs

__all__ = ["Cuts", "EventFunction", "GhostVeto", "PairFunction", "lepton_quantity", "pair_quantity"]

Range: TypeAlias = tuple[float, float]
EventFunction: TypeAlias = Callable[[ak.Array], Any]  # one bool per event, or a list of bools per event
PairFunction: TypeAlias = Callable[[Pairs], Any]  # one bool per pair

LEPTON_QUANTITIES = ("momentum", "energy", "theta", "pt", "eta")
PAIR_QUANTITIES = ("mass", "pt", "energy", "angle")


@dataclass(frozen=True, slots=True)
class GhostVeto:
    """Remove pairs of one track that was reconstructed twice.

    Attributes
    ----------
    angle : float
        Pairs with a smaller opening angle [rad] are removed.
    excess : float
        Pairs with a smaller mass above threshold, m − 2 m_l [GeV], are removed.

    Notes
    -----
    Split tracks make collinear like-sign pairs; left in, the subtracted yield at low mass turns negative.
    The veto must not depend on the charges, so it acts on all pairs alike.
    """

    angle: float = 0.0
    excess: float = 0.0

    def __post_init__(self) -> None:
        for name in ("angle", "excess"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                msg = f"select.ghost.{name} = {value!r} must be zero or positive"
                raise SteeringError(msg)


@dataclass(frozen=True, slots=True)
class Cuts:
    """A selection of leptons and pairs.

    Attributes
    ----------
    lepton : mapping of str to (low, high)
        Half-open ranges, low ≤ x < high, of ``momentum``, ``energy``, ``pt`` [GeV], ``theta`` [rad], ``eta``
        or of a lepton column of the schema; both leptons of a pair must pass.
    pair : mapping of str to (low, high)
        Ranges of ``mass``, ``pt``, ``energy`` [GeV], ``angle`` [rad] or of a pair column.
    ghost : GhostVeto or None
    event_functions : sequence of functions
        Take the events, return a mask of events or of their leptons.
    pair_functions : sequence of functions
        Take the pairs, return a mask of pairs.
    """

    lepton: Mapping[str, Range] = field(default_factory=dict)
    pair: Mapping[str, Range] = field(default_factory=dict)
    ghost: GhostVeto | None = None
    event_functions: Sequence[EventFunction] = ()
    pair_functions: Sequence[PairFunction] = ()

    def __post_init__(self) -> None:
        for table in ("lepton", "pair"):
            for name, bounds in getattr(self, table).items():
                if len(bounds) != 2 or not bounds[0] < bounds[1]:
                    msg = f"select.{table}.{name} = {list(bounds)!r} must be [low, high] with low < high"
                    raise SteeringError(msg)

    @staticmethod
    def from_mapping(
        mapping: Mapping[str, Any],
        *,
        event_functions: Sequence[EventFunction] = (),
        pair_functions: Sequence[PairFunction] = (),
    ) -> Cuts:
        """Build cuts from the ``[select]`` table of a steering file (keys lepton, pair, ghost).

        Examples
        --------
        >>> Cuts.from_mapping({"lepton": {"energy": [3, 400]}}).lepton["energy"]
        (3.0, 400.0)
        """
        unknown = set(mapping) - {"lepton", "pair", "ghost"}
        if unknown:
            msg = f"select.{sorted(unknown)[0]}: unknown key; known keys: lepton, pair, ghost"
            raise SteeringError(msg)
        ghost = mapping.get("ghost")
        try:
            ranges = {
                table: {name: tuple(map(float, bounds)) for name, bounds in mapping.get(table, {}).items()}
                for table in ("lepton", "pair")
            }
            veto = GhostVeto(**ghost) if ghost is not None else None
        except (TypeError, ValueError, AttributeError) as error:
            msg = f"select: {error}; ranges are name = [low, high], ghost has the keys angle and excess"
            raise SteeringError(msg) from error
        return Cuts(
            ranges["lepton"],  # type: ignore[arg-type]  # lengths are checked in __post_init__
            ranges["pair"],  # type: ignore[arg-type]
            veto,
            event_functions,
            pair_functions,
        )

    def __call__(self, events: ak.Array) -> Pairs:
        """Return the selected pairs of a chunk of events; the form that simulated events are matched with."""
        from gammastar.select.pairing import pairs

        return pairs(events, self)[0]


def lepton_quantity(lepton: ak.Array, name: str) -> ak.Array:
    """Return a kinematic quantity or a column of leptons.

    Raises
    ------
    SteeringError
        If there is no such quantity.
    """
    if name in lepton.fields:
        return lepton[name]
    square = lepton.px**2 + lepton.py**2
    if name == "pt":
        return np.sqrt(square)
    if name == "theta":
        return np.arctan2(np.sqrt(square), lepton.pz)
    if name == "eta":
        with np.errstate(
            divide="ignore", invalid="ignore"
        ):  # along the beam eta is infinite: no range holds it
            return np.arcsinh(lepton.pz / np.sqrt(square))
    if name == "momentum":
        return np.sqrt(square + lepton.pz**2)
    if name == "energy":
        return np.sqrt(square + lepton.pz**2 + lepton.mass**2)
    known = ", ".join((*LEPTON_QUANTITIES, *lepton.fields))
    msg = f"select.lepton.{name}: unknown quantity; use one of {known}"
    raise SteeringError(msg)


def pair_quantity(pairs: Pairs, name: str) -> np.typing.NDArray[np.float64]:
    """Return a kinematic quantity or a column of pairs.

    Raises
    ------
    SteeringError
        If there is no such quantity.
    """
    if name in pairs.columns:
        return pairs.columns[name]
    if name in PAIR_QUANTITIES[:3]:
        return np.asarray(getattr(pairs, name))
    known = dict.fromkeys((*PAIR_QUANTITIES, *pairs.columns))
    msg = f"select.pair.{name}: unknown quantity; use one of {', '.join(known)}"
    raise SteeringError(msg)
