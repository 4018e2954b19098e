"""What each extra adds to an installation, in megabytes: ``python3 analysis/package_sizes.py``."""

from __future__ import annotations

import sys
import tomllib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "analysis"))

from _venv import reenter  # noqa: E402


def needed(names: list[str]) -> set[str]:
    """Return the distributions that some requirements bring, with what these need."""
    from packaging.requirements import Requirement

    found: set[str] = set()
    todo = [(Requirement(name), "") for name in names]
    while todo:
        one, _ = todo.pop()
        extras = one.extras or {""}
        name = one.name.lower().replace("_", "-")
        try:
            inner = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        new = name not in found or bool(one.extras)
        found.add(name)
        if new:
            rest = [Requirement(text) for text in inner]
            todo += [
                (r, name)
                for r in rest
                if (r.marker is None or any(r.marker.evaluate({"extra": extra}) for extra in extras))
                and r.name.lower().replace("_", "-") not in found
            ]
    return found


def megabytes(names: set[str]) -> float:
    """Return the size of the files of distributions."""
    paths = [path.locate() for name in names for path in metadata.files(name) or ()]
    return sum(Path(path).stat().st_size for path in paths if Path(path).is_file()) / 1e6


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    least = needed(project["dependencies"])
    _tell("gammastar", least)
    for extra, names in project["optional-dependencies"].items():
        if extra not in {"all", "docs", "oracle", "peers", "xrootd"}:
            _tell(extra, needed([name for name in names if not name.startswith("gammastar")]) - least)


def _tell(name: str, packages: set[str]) -> None:
    largest = sorted(packages, key=lambda one: -megabytes({one}))[:5]
    parts = ", ".join(f"{one} {megabytes({one}):.0f}" for one in largest)
    print(f"{name:14}{megabytes(packages):6.0f}   {parts}")


if __name__ == "__main__":
    reenter("all")
    main()
