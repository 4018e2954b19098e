#!/usr/bin/env -S uv run --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["nox>=2025.2.9"]
# ///
"""Tasks for contributors: ``nox -l`` lists them, ``nox -s tests`` runs one."""

from __future__ import annotations

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
THREADS = {"OMP_NUM_THREADS": "1"}


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests with the versions of constraints.txt."""
    session.install("-c", "constraints.txt", "-e", ".[all]")
    session.run("pytest", "-m", "not slow", "-n", "auto", *session.posargs, env=THREADS)


@nox.session(default=False)
def lowest(session: nox.Session) -> None:
    """Run the tests with the lowest supported versions."""
    session.install("-c", "constraints-lowest.txt", "-e", ".[all]")
    session.run("pytest", "-m", "not slow", "-n", "auto", *session.posargs, env=THREADS)


@nox.session(default=False)
def upcoming(session: nox.Session) -> None:
    """Run the tests of likelihoods with the newest pyhf, development versions included."""
    session.install("-c", "constraints.txt", "-e", ".[all]")
    session.install("--upgrade", "--pre", "pyhf")
    session.run(
        "pytest", "tests/unit/infer", "tests/unit/results/test_scan.py", *session.posargs, env=THREADS
    )


@nox.session
def lint(session: nox.Session) -> None:
    """Run ruff, mypy and the import contracts."""
    session.install("-c", "constraints.txt", "-e", ".[all]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("lint-imports")


@nox.session(default=False)
def package(session: nox.Session) -> None:
    """Build wheel and sdist, and run the main job from the wheel outside the repository."""
    session.install("-c", "constraints.txt", "-e", ".[all]")
    session.run("pytest", "-m", "slow", "tests/packaging", *session.posargs, env=THREADS)


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """Build the site without warnings; run the notebooks and the pages as written."""
    session.install("-c", "constraints.txt", "-e", ".[all,docs]")
    session.run("python", "-m", "sphinx", "-W", "docs", "site", *session.posargs)
    session.run("pytest", "-m", "slow", "tests/unit/test_documentation.py", env=THREADS)


@nox.session(default=False)
def review(session: nox.Session) -> None:
    """Compare the repository with the Scientific Python guidelines."""
    session.install("sp-repo-review[cli]")
    session.run("sp-repo-review", ".")


@nox.session(default=False)
def faults(session: nox.Session) -> None:
    """Run the long fault campaigns, which write docs/reliability.md."""
    session.install("-c", "constraints.txt", "-e", ".[all]")
    session.run("python", "tests/faults/campaigns.py", *session.posargs, env=THREADS)


if __name__ == "__main__":
    nox.main()
