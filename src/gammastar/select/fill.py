"""Histograms of opposite-sign, ++ and -- pairs."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

from hist import Hist
from hist.storage import Weight

from gammastar.core.pairs import Pairs
from gammastar.core.records import BoolArray, PairHists
from gammastar.select.cuts import pair_quantity

__all__ = ["fill"]


def fill(pairs: Pairs | Iterable[Pairs], axes: tuple[Any, ...]) -> PairHists:
    """Fill the pairs of each charge into a histogram with sums of weights and of squared weights.

    Parameters
    ----------
    pairs : Pairs, or parts of them
        Of parts one is in memory at a time.
    axes : tuple of hist axes
        Named ``mass``, ``pt``, ``energy`` [GeV], ``angle`` [rad] or as a pair column.

    Raises
    ------
    SteeringError
        If an axis names an unknown quantity.

    Examples
    --------
    >>> from gammastar.core.axes import regular
    >>> fill(Pairs.empty(), (regular("mass", 4, 0.2, 1.0),)).os.sum().value
    0.0
    """
    if not isinstance(pairs, Pairs):
        hists = (fill(part, axes) for part in pairs)
        return functools.reduce(lambda a, b: PairHists(a.os + b.os, a.pp + b.pp, a.mm + b.mm), hists)
    columns = [pair_quantity(pairs, axis.name) for axis in axes]

    def one(mask: BoolArray) -> Hist[Any]:
        hist: Hist[Any] = Hist(*axes, storage=Weight())
        hist.fill(*(column[mask] for column in columns), weight=pairs.weight[mask])
        return hist

    return PairHists(os=one(pairs.os), pp=one(pairs.pp), mm=one(pairs.mm))
