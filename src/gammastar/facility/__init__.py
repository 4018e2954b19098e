"""The measured half and independent tasks on many cores or on a facility, through coffea's executors.

Only this package imports coffea and dask. The kernels are those of a run without workers, and so are the
numbers: a chunk is a pure function of its entries, and results are put together in the order of the files.
"""

from __future__ import annotations

from gammastar.facility.crew import Patience
from gammastar.facility.executors import Executor, open_executor
from gammastar.facility.processor import BadFile, DileptonPairs

__all__ = ["BadFile", "DileptonPairs", "Executor", "Patience", "open_executor"]
