"""The digest of named arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["digest"]


def digest(tensors: Mapping[str, np.ndarray[Any, Any]]) -> str:
    """Return the SHA-256 of named arrays: of names, types, shapes and values, whatever their order.

    Examples
    --------
    >>> digest({"a": np.zeros(2)}) == digest({"a": np.zeros(3)})
    False
    """
    result = hashlib.sha256()
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        result.update(f"{name} {array.dtype.str} {array.shape};".encode())
        result.update(array.tobytes())
    return result.hexdigest()
