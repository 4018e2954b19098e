"""Scale factors, efficiency in data over that in simulation, of leptons or pairs, by correctionlib."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import awkward as ak
import numpy as np
import numpy.typing as npt

from gammastar.core.errors import InputFileError, SteeringError, require
from gammastar.core.files import Pathlike, regular_file
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import FloatArray, IntArray
from gammastar.select.cuts import LEPTON_QUANTITIES, lepton_quantity

NOMINAL = "scale_factor"
"""Column of pairs: the product of all factors."""


@dataclass(frozen=True, slots=True, eq=False)
class ScaleFactor:
    """A correction of simulated pairs.

    Attributes
    ----------
    file : str or Path
        JSON of correctionlib, compressed or not.
    correction : str
        Its name in the file.
    inputs : mapping of input of the correction to str, int or float
        A quantity of the leptons (``pt``, ``eta``, ``abs_eta``, ``momentum``, ``energy``, ``theta``,
        ``charge`` or a lepton column) or of the pairs (``mass``, ``pt``, ``energy``, ``angle``, a column);
        anything else is handed on as it is.
    of : {"lepton", "pair"}
        What has the factor; a pair gets the product of those of its leptons.
    varied : str
        Input that chooses the variation.
    variations : mapping of source to (up, down)
        Values of that input for one standard deviation of a source of uncertainty.
    """

    file: Pathlike
    correction: str
    inputs: Mapping[str, str | float | int]
    of: Literal["lepton", "pair"] = "lepton"
    varied: str = ""
    variations: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wanted = self._inputs
        missing, unknown = sorted(set(wanted) - set(self.inputs)), sorted(set(self.inputs) - set(wanted))
        text = f"{self.what}: inputs must name {', '.join(wanted)}"
        require(not missing and not unknown, f"{text}; missing {missing}, unknown {unknown}", SteeringError)
        given = self.varied in wanted if self.variations else not self.varied
        text = f"varied = {self.varied!r} must name the input that variations set, and only with some"
        require(given, f"{self.what}: {text}", SteeringError)

    @property
    def what(self) -> str:
        """File and name, for messages."""
        return f"{self.file}: correction {self.correction!r}"

    @property
    def _inputs(self) -> tuple[str, ...]:
        return tuple(entry.name for entry in _correction(self.file, self.correction).inputs)

    def values(self, known: Mapping[str, Any], n: int, **changed: str) -> FloatArray:
        """Return the factors of n leptons or pairs with these quantities, shape (n,)."""
        given = [changed.get(name, self.inputs[name]) for name in self._inputs]
        arguments = [known.get(value, value) if isinstance(value, str) else value for value in given]
        try:
            found = np.broadcast_to(_correction(self.file, self.correction).evaluate(*arguments), n)
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            said = dict(zip(self._inputs, given, strict=True))
            raise InputFileError(f"{self.what} with inputs {said}: {error}") from error
        good = np.isfinite(found) & (found >= 0)
        require(good.all(), f"{self.what}: a factor is {found[~good][:1]}", InputFileError)
        return np.asarray(found, dtype=np.float64)


def _correction(file: Pathlike, name: str) -> Any:
    try:
        state = Path(file).stat()
    except OSError as error:
        raise InputFileError(f"{file}: cannot be read ({error})") from error
    return _read(str(file), name, (state.st_mtime_ns, state.st_size))


@functools.lru_cache(maxsize=64)
def _read(file: str, name: str, _: tuple[int, int]) -> Any:
    """Read a correction once, and again if the file changes."""
    try:
        import correctionlib
    except ImportError as error:
        text = "scale factors need the package correctionlib: pip install 'gammastar[corrections]'"
        raise SteeringError(text) from error
    try:
        found = correctionlib.CorrectionSet.from_file(str(regular_file(Path(file))))
    except (OSError, RuntimeError, ValueError) as error:
        raise InputFileError(f"{file}: cannot be read as a file of correctionlib ({error})") from error
    every = {**found, **found.compound}
    require(name in every, f"{file}: has no correction {name!r}, but {', '.join(every)}", SteeringError)
    return every[name]


def sources_of(factors: Sequence[Any]) -> list[tuple[str, str]]:
    """Return name and column of each variation, up and down."""
    names = dict.fromkeys(name for one in factors for name in one.variations)
    return [(name, f"{NOMINAL} {name} {way}") for name in names for way in ("up", "down")]


def names_of(factors: Sequence[Any]) -> tuple[str, ...]:
    """Return the columns that `columns_of` makes."""
    return (NOMINAL, *dict.fromkeys(column for _, column in sources_of(factors))) if factors else ()


def columns_of(
    factors: Sequence[ScaleFactor],
    leptons: Mapping[str, npt.NDArray[Any]],
    legs: tuple[IntArray, IntArray],
    pairs: Mapping[str, npt.NDArray[Any]],
) -> dict[str, FloatArray]:
    """Return the factors of pairs, and the relative change of each by its variations."""
    if not factors:
        return {}
    n, flat = len(legs[0]), ak.zip(dict(leptons))
    quantities = {name: np.asarray(lepton_quantity(flat, name)) for name in LEPTON_QUANTITIES}
    lepton = dict(leptons) | quantities | {"abs_eta": np.abs(quantities["eta"])}

    def of_pairs(one: ScaleFactor, **changed: str) -> FloatArray:
        if one.of == "pair":
            return one.values(pairs, n, **changed)
        each = one.values(lepton, len(flat), **changed)
        return np.asarray(each[legs[0]] * each[legs[1]])

    found = {NOMINAL: np.ones(n)}
    for one in factors:
        nominal = of_pairs(one)
        found[NOMINAL] = found[NOMINAL] * nominal
        for name, values in one.variations.items():
            for way, value in zip(("up", "down"), values, strict=True):
                moved = of_pairs(one, **{one.varied: value})
                change = np.divide(moved, nominal, out=np.ones(n), where=nominal > 0)
                column = f"{NOMINAL} {name} {way}"
                found[column] = found.get(column, 1.0) * change  # a source may be that of several factors
    return found


def corrected(parts: Iterator[MatchedPairs]) -> Iterator[MatchedPairs]:
    """Yield simulated photons with the factor in the weight of what is seen; the rest of it is lost."""
    for part in parts:
        if NOMINAL not in part.columns:
            yield part
            continue
        seen = part.reconstructed
        factor = np.where(seen, part.columns[NOMINAL], 1.0)
        lost = replace(part.select(seen), fakes=part.fakes[:0], fake_weight=part.fake_weight[:0])
        lost = replace(lost, reco=np.full_like(lost.reco, np.nan), weight=lost.weight * (1 - factor[seen]))
        yield MatchedPairs.concatenate([replace(part, weight=part.weight * factor), lost])
