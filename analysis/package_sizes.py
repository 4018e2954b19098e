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
    todo = [Requirement(name) for name in names]
    while todo:
        one = todo.pop()
        name = one.name.lower().replace("_", "-")
        if name in found and not one.extras:
            continue
        try:
            inner = [Requirement(text) for text in metadata.requires(name) or []]
        except metadata.PackageNotFoundError:
            continue
        found.add(name)
        for more in inner:
            known = more.name.lower().replace("_", "-") in found
            wanted = more.marker is None or any(
                more.marker.evaluate({"extra": extra}) for extra in one.extras or {""}
            )
            todo += [more] if wanted and not known else []
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
