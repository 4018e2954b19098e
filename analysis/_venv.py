"""Make the project's environment once and re-enter it. Standard library only."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "stamp"


def _stamp(extra: str) -> str:
    """Return the hash of everything that decides what the environment holds."""
    digest = hashlib.sha256(f"{extra} {sys.version}".encode())
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def _make(extra: str, wanted: str) -> None:
    """Make the environment; a second caller waits for the first and then finds it ready."""
    with (ROOT / ".venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _ready(wanted):
            return
        if VENV.is_symlink():  # clearing would empty the environment of somebody else
            sys.exit(f"{VENV} links to an environment that does not fit: delete the link and start again.")
        print(f"Installing gammastar[{extra}] into {VENV} (once, a few minutes) …", flush=True)
        venv.create(VENV, with_pip=True, clear=VENV.exists())
        command = [str(PYTHON), "-m", "pip", "install", "-q", "-c", "constraints.txt", "-e", f".[{extra}]"]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            sys.exit("The installation failed; see pip's message above. Nothing else was changed.")
        STAMP.write_text(wanted)


def _ready(wanted: str) -> bool:
    complete = (VENV / "pyvenv.cfg").is_file() and PYTHON.exists() and STAMP.is_file()
    return complete and STAMP.read_text() == wanted


def reenter(extra: str) -> None:
    """Run the calling script again inside ``.venv``, which is made if it is missing or stale.

    Parameters
    ----------
    extra : str
        Name of the optional dependency group of ``pyproject.toml`` to install.
    """
    if Path(sys.prefix).resolve() == VENV.resolve():
        return
    if os.environ.get("GAMMASTAR_REENTERED") == str(VENV):
        sys.exit(f"{VENV} is damaged: delete it and start again.")
    wanted = _stamp(extra)
    if not _ready(wanted):
        _make(extra, wanted)
    os.environ["GAMMASTAR_REENTERED"] = str(VENV)
    os.execv(PYTHON, [str(PYTHON), *sys.argv])  # noqa: S606
