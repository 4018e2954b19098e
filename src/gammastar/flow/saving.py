"""Flows as files: safetensors and JSON, without pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as decode_tensors
from safetensors.numpy import save as encode_tensors

from gammastar.core.documents import from_json
from gammastar.core.errors import InputFileError, PhysicsError
from gammastar.core.files import write_whole
from gammastar.flow.model import KinematicFlow
from gammastar.flow.paper import PaperFlow

__all__ = [
    "digest",
    "load",
    "save",
]

_FORMAT = "gammastar-flow-1"
_LARGEST = 1e8  # no weight of a network that was trained is larger


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


def _card_digest(card: Mapping[str, Any]) -> str:
    content = {key: value for key, value in card.items() if key != "digest_card"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _paths(stem: str | Path) -> tuple[Path, Path]:
    return Path(f"{stem}.safetensors"), Path(f"{stem}.json")


def save(flow: KinematicFlow | PaperFlow, stem: str | Path) -> None:
    """Write a flow to ``stem.safetensors`` and ``stem.json``.

    Each file is written under a temporary name and renamed, so that no half-written file is ever seen.

    Parameters
    ----------
    flow : KinematicFlow or PaperFlow
    stem : path
        Path without suffix; its folder is made if it is missing.
    """
    path, path_card = _paths(stem)
    tensors = flow.to_tensors()
    card = {"format": _FORMAT, **flow.card(), "digest": digest(tensors)}
    card["digest_card"] = _card_digest(card)
    write_whole(path, encode_tensors(tensors))
    write_whole(path_card, (json.dumps(card, indent=1, sort_keys=True) + "\n").encode())


def load(stem: str | Path) -> KinematicFlow | PaperFlow:
    """Return the flow of ``stem.safetensors`` and ``stem.json``, which samples exactly as the saved one.

    Raises
    ------
    InputFileError
        If a file is missing or damaged, the two do not belong together, or the format is another one.
    """
    path, path_card = _paths(stem)
    for one in (path, path_card):
        if not one.is_file():
            msg = f"there is no file {one}: a flow is saved as {path.name} and {path_card.name} side by side"
            raise InputFileError(msg)
    try:
        card = from_json(path_card.read_text(encoding="utf-8"))
        if not isinstance(card, dict) or card.get("format") != _FORMAT:
            msg = f"{path_card} is not a flow of the format {_FORMAT!r}; train and save it again"
            raise InputFileError(msg)
        _require_equal(card["digest_card"], _card_digest(card), path_card)
        tensors = decode_tensors(path.read_bytes())
        _require_equal(card["digest"], digest(tensors), path)
        wrong = sorted(name for name, array in tensors.items() if not _possible(array))
        if wrong:
            msg = f"{path}: {', '.join(wrong[:3])}: not finite, or too large; train and save the flow again"
            raise InputFileError(msg)
        kind = PaperFlow if card.get("preset") == "paper" else KinematicFlow
        return kind.from_tensors(tensors, card)
    except (SafetensorError, UnicodeDecodeError, json.JSONDecodeError) as error:
        msg = (
            f"{path if isinstance(error, SafetensorError) else path_card} is damaged ({error}); save it again"
        )
        raise InputFileError(msg) from error
    except (KeyError, TypeError, ValueError, PhysicsError) as error:
        msg = f"{path_card} and {path.name} do not make a flow ({error}); save it again"
        raise InputFileError(msg) from error


def _possible(array: np.ndarray[Any, Any]) -> bool:
    if array.dtype.kind != "f":
        return True
    weights = array.dtype == np.float32
    return bool(np.isfinite(array).all() and not (weights and (np.abs(array) > _LARGEST).any()))


def _require_equal(expected: object, found: str, path: Path) -> None:
    if expected != found:
        msg = f"{path} is damaged: its digest is {found[:12]}…, not {str(expected)[:12]}…; save it again"
        raise InputFileError(msg)
