"""Execute the notebooks here and keep their outputs: ``python docs/notebooks/execute.py [NAME …]``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent


def execute(path: Path, working: Path) -> nbformat.NotebookNode:
    """Return the executed notebook; every cell must succeed."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(working)}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # time stamps
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


if __name__ == "__main__":
    names = sys.argv[1:] or sorted(path.stem for path in FOLDER.glob("*.ipynb"))
    for name in names:
        start = time.monotonic()
        path = FOLDER / f"{name}.ipynb"
        nbformat.write(execute(path, FOLDER), path)
        print(f"{name}: {time.monotonic() - start:.0f} s")
