"""The command line: ``gammastar run | check | inspect | simulate | sample | reinterpret | export | …``.

The only package that prints.
"""

from __future__ import annotations

import contextlib
import gc
import os
import shlex
import sys
import tempfile
import traceback
from pathlib import Path
from typing import NoReturn

import click

from gammastar.cli import commands
from gammastar.cli.commands import plain_logs, plain_warnings, say
from gammastar.core.errors import GammastarError
from gammastar.core.files import disk_full_message, is_disk_full, plain, shortened, tune_malloc
from gammastar.core.resolve import user_code_errors

__all__ = ["app", "main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gammastar")
@click.option("-v", "--verbose", is_flag=True, help="Show what the library logs.")
def app(verbose: bool) -> None:
    """From measured dilepton pairs to dark-sector reach."""
    if verbose:
        import logging

        logging.basicConfig(level=logging.INFO)
        plain_logs("%(name)s: %(message)s")


@app.command()
def env() -> None:
    """Print the versions that a bug report needs."""
    from gammastar.store.manifest import versions

    for name, value in versions().items():
        say(f"{name:16s} {value}")


for command in vars(commands).values():
    if isinstance(command, click.Command):
        app.add_command(command)


def main() -> None:
    """Run the command line; 2 for the user's mistakes, 1 for failures, 130 when interrupted, 70 for ours."""
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"  # names of files, texts and what libraries open: alike in every locale
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - this very command
    tune_malloc()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: threads without a free core only wait
    gc.set_threshold(10_000, 10, 100)  # collections of everything are a fifth of the time of imports
    plain_logs()
    plain_warnings()
    try:
        with user_code_errors():
            app(standalone_mode=False)
    except GammastarError as error:
        say(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except OSError as error:
        if error.errno is None:  # of a library, not of the system
            _crash(error)
        said = (
            disk_full_message(error)
            if is_disk_full(error)
            else f"{error.filename or ''}: {error.strerror or error}"
        )
        say(f"error: {said}", err=True)
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt) as error:
        if isinstance(error.__cause__, EOFError):  # click takes the end of a file for the user's ^D
            say(f"error: a file ends too early ({error.__cause__}); copy it again", err=True)
            sys.exit(2)
        say("interrupted; `--resume` goes on from the last finished stage", err=True)
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 - whatever nobody thought of: told, kept and not hidden
        _crash(error)


def _crash(error: Exception) -> NoReturn:
    """Say in one line what nobody foresaw, and leave the traceback beside the results."""
    from importlib.metadata import version

    from gammastar.core.files import CRASH, write_whole

    if is_disk_full(error):
        say(f"error: {disk_full_message(error)}", err=True)
        sys.exit(1)
    text = plain("".join(traceback.format_exception(error)))
    about = f"gammastar {version('gammastar')}, Python {sys.version.split()[0]}: {shlex.join(sys.argv[1:])}"
    kept = ""
    for folder in (getattr(error, "folder", None), Path.cwd(), Path(tempfile.gettempdir())):
        if folder is None:
            continue
        with contextlib.suppress(GammastarError):
            write_whole(folder / CRASH, f"{plain(about)}\n\n{text}".encode())
            kept = f" with {folder / CRASH}"
            break
    what = " ".join(f"{type(error).__name__}: {error}".split())
    say(f"error: {shortened(what)}; this is a fault of gammastar: please report it{kept}", err=True)
    sys.exit(70)
