"""gammastar: from measured dilepton pairs to dark-sector reach.

``gs.load`` opens the results of a run, ``gs.run`` makes them, ``gs.reinterpret`` computes from them the
reach of another detector or model. Everything else is in the rooms, e.g. ``gs.read`` and ``gs.infer``, which
are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gammastar import accept as accept
    from gammastar import background as background
    from gammastar import flow as flow
    from gammastar import infer as infer
    from gammastar import mock as mock
    from gammastar import predict as predict
    from gammastar import read as read
    from gammastar import report as report
    from gammastar import select as select
    from gammastar import semivisible as semivisible
    from gammastar import spectrum as spectrum
    from gammastar import subtract as subtract
    from gammastar import testing as testing
    from gammastar import unfold as unfold
    from gammastar.results.loaded import Results, load, reinterpret, run

    __version__: str

__all__ = ["Results", "__version__", "load", "reinterpret", "run"]

ROOMS = (
    *("accept", "background", "flow", "infer", "mock", "predict", "read", "report", "select"),
    *("semivisible", "spectrum", "subtract", "testing", "unfold"),
)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("gammastar")
    if name in __all__:
        return getattr(importlib.import_module("gammastar.results.loaded"), name)
    if name in ROOMS:
        return importlib.import_module(f"gammastar.{name}")
    raise AttributeError(f"module 'gammastar' has no attribute {name!r}; there are {', '.join(__dir__())}")


def __dir__() -> list[str]:
    return sorted([*__all__, *ROOMS])
