"""Filesets as coffea writes them: data, never code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from gammastar.store.chunks import Source
from gammastar.store.manifest import write_json

__all__ = ["write_fileset"]


def write_fileset(
    path: Path, name: str, tree: str, sources: Sequence[Source], steps: Mapping[str, Sequence[int]]
) -> None:
    """Write files, entries and chunk boundaries in the layout of ``coffea.dataset_tools.preprocess``.

    Parameters
    ----------
    path : Path
    name : str
        Name of the dataset.
    tree : str
    sources : sequence of Source
    steps : mapping of path to boundaries
        ``(0, n1, …, n)`` of each file.
    """
    files = {}
    for source in sources:
        files[source.path] = {
            "object_path": tree,
            "steps": [[low, high] for low, high in pairwise(steps[source.path])],
            "num_entries": source.entries,
            "uuid": source.uuid,
        }
    digests = {source.path: source.sha256 for source in sources}
    write_json(path, {name: {"files": files, "format": "root", "metadata": {"sha256": digests}}})
