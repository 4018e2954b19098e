"""The command line: ``gammastar run | check | env …``; the only module that prints."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from gammastar.core.errors import GammastarError

__all__ = ["app", "main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gammastar")
def app() -> None:
    """From measured dilepton pairs to dark-sector reach."""


@app.command()
@click.argument("steering", type=click.Path(path_type=Path))
def check(steering: Path) -> None:
    """Validate STEERING before any work starts, naming the key that is wrong."""
    from gammastar import config

    result = config.load(steering)
    stages = [name for name in config.STAGES if getattr(result, name) is not None]
    click.echo(f"{steering}: ok ({result.analysis.name}: {', '.join(stages) or 'no stage'})")


@app.command()
def env() -> None:
    """Print the versions that a bug report needs."""
    from gammastar.store.manifest import versions

    for name, value in versions().items():
        click.echo(f"{name:16s} {value}")


def main() -> None:
    """Run the command line; 2 for the user's mistakes, 1 for failures, 130 when interrupted."""
    try:
        app(standalone_mode=False)
    except GammastarError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; `--resume` goes on from the last finished stage", err=True)
        sys.exit(130)
