"""Make the project's environment once and re-enter it. Standard library only."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"


def _stamp(extra: str) -> str:
    """Return the hash of everything that decides what the environment holds."""
    digest = hashlib.sha256(f"{extra} {sys.version}".encode())
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def reenter(extra: str) -> None:
    """Run the calling script again inside ``.venv``, which is made if it is missing or stale.

    Parameters
    ----------
    extra : str
        Name of the optional dependency group of ``pyproject.toml`` to install.
    """
    python = VENV / "bin" / "python"
    stamp = VENV / "stamp"
    wanted = _stamp(extra)
    if not stamp.is_file() or stamp.read_text() != wanted:
        print(f"Installing gammastar[{extra}] into {VENV} (once, a few minutes) …", flush=True)
        venv.create(VENV, with_pip=True, clear=VENV.exists())
        command = [str(python), "-m", "pip", "install", "-q", "-c", "constraints.txt", "-e", f".[{extra}]"]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            sys.exit("The installation failed; see pip's message above. Nothing else was changed.")
        stamp.write_text(wanted)
    if Path(sys.prefix).resolve() != VENV.resolve():
        os.execv(python, [str(python), *sys.argv])  # noqa: S606
