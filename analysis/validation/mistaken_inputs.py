"""Trials of mistaken schemas and steering files through the command line: what is printed."""

from __future__ import annotations

import contextlib
import io
import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from validation import mistaken_schemas, mistaken_steering
from validation._rows import row
from validation.mistaken_sample import write_sample

from gammastar import cli
from gammastar.core.errors import GammastarError
from gammastar.read import to_toml

REAL_COUNTS = {  # counted with uproot and awkward alone
    mistaken_schemas.NANO: (38, 15, 13),
    mistaken_schemas.OBJECTS: (1464, 25, 32),
}
ZMUMU = (508, 8)  # +− and like-sign pairs of two global muons
SOURCE_WIDTH = 150
PROGRESS = re.compile(r"^\W*(read|select|subtract|unfold|spectrum|predict|accept|infer)\s+\d+:\d\d:\d\d")


@dataclass(frozen=True)
class Outcome:
    """What a command did: ``ended`` is "well", "refused" or "crashed"; ``text`` is all that was printed."""

    ended: str
    text: str

    @property
    def alarms(self) -> str:
        """The printed lines that tell a user that something is wrong, without the lines of progress."""
        lines = [line for line in self.text.splitlines() if "━" not in line and not PROGRESS.match(line)]
        if self.ended == "well":
            lines = [line for line in lines if re.search(r"\b(warning|error)\b", line, re.IGNORECASE)]
        return "\n".join(lines)


def command(*arguments: str) -> Outcome:
    """Run a command of gammastar in this process."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            cli.app([*arguments], standalone_mode=False)
            ended = "well"
        except GammastarError as error:
            out.write(f"error: {error}\n")
            ended = "refused"
        except cli.click.ClickException as error:
            out.write(f"error: {error.format_message()}\n")
            ended = "refused"
        except SystemExit as error:
            ended = "well" if not error.code else "refused"
        except Exception as error:  # noqa: BLE001 (whatever else comes is a crash, which is what is counted)
            out.write(f"{type(error).__name__}: {error}\n")
            ended = "crashed"
    return Outcome(ended, out.getvalue())


def told(outcome: Outcome, says: str) -> bool:
    """Return whether an outcome names what is wrong."""
    return outcome.ended != "crashed" and says.lower() in outcome.alarms.lower() and bool(outcome.alarms)


def printed(outcome: Outcome, says: str = "") -> str:
    """Return the line that tells it, short enough for a table."""
    lines = [line.strip() for line in outcome.alarms.splitlines() if line.strip()]
    text = next((line for line in lines if says.lower() in line.lower()), lines[0] if lines else "nothing")
    text = re.sub(r"\S*/(?=[^/\s]+)", "", text).replace("|", "¦").replace("<", "‹")
    return text if len(text) <= SOURCE_WIDTH else text[: SOURCE_WIDTH - 1] + "…"


def _row(quantity: str, ours: float, expected: float, source: str, tolerance: float = 0.0) -> dict:
    return row(quantity, ours, expected, tolerance, source)


def mistake_rows() -> Iterator[dict]:
    """Yield a row for each mistake, and the sums."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yield from _schemas(folder)
        yield from _steering(folder)


def _schema_run(folder: Path, name: str, case: mistaken_schemas.Mistake) -> Outcome:
    (folder / "schema.toml").write_text(to_toml(case.schema))
    file = folder / case.file
    tables = {
        "analysis": {"name": name},
        "read": {"files": [str(file)], "schema": "schema.toml"},
        "select": {"mass": [0.0, 0.5, 1.0, 2.0, 200.0]},
    }
    steering = folder / f"{name}.toml"
    steering.write_text(mistaken_steering.to_toml(tables))
    return command("run", str(steering), "--output", str(folder / name))


def _schemas(folder: Path) -> Iterator[dict]:
    sample = write_sample(folder)
    counts = {**sample.counts, **REAL_COUNTS}
    for i, case in enumerate(mistaken_schemas.GOOD):
        outcome = _schema_run(folder, f"good{i}", case)
        right = outcome.ended == "well" and _counted(folder / f"good{i}", counts.get(case.file))
        label = f"right schema, {case.what}: pairs as counted, no alarm"
        yield _row(label, right and not outcome.alarms, 1, printed(outcome))
    silent = crashed = 0
    for i, case in enumerate(mistaken_schemas.MISTAKES):
        outcome = _schema_run(folder, f"schema{i}", case)
        found = told(outcome, case.says)
        silent += not outcome.alarms
        crashed += outcome.ended == "crashed"
        yield _row(f"mistaken schema, {case.what}: told", found, 1, printed(outcome, case.says))
    n = len(mistaken_schemas.MISTAKES)
    yield _row(f"silent errors in {n} mistaken schemas", silent, 0, "count of the rows above")
    yield _row(f"tracebacks in {n} mistaken schemas", crashed, 0, "count of the rows above")


def _counted(results: Path, expected: tuple[int, ...] | None) -> bool:
    with np.load(results / "stages" / "select.npz") as arrays:
        charge = arrays["charge"]
    found = tuple(int(np.sum(charge == sign)) for sign in (0, 2, -2))
    return found == expected if expected else (found[0], found[1] + found[2]) == ZMUMU


def _steering(folder: Path) -> Iterator[dict]:
    base = folder / "base"
    good = _check_and_run(base, mistaken_steering.Mistake("none", {}, ""))
    well = all(outcome.ended == "well" for outcome in good)
    yield _row("right steering file: check and run end well", well, 1, printed(good[-1]))
    silent = crashed = found = stumbled = 0
    for i, case in enumerate(mistaken_steering.MISTAKES):
        check, *ran = _check_and_run(folder / f"steering{i}", case)
        last = ran[-1] if ran else check
        by_check = bool(check.alarms)
        found += by_check
        stumbled += by_check or last.ended != "well"
        silent += not last.alarms
        crashed += "crashed" in (check.ended, last.ended)
        where = "" if by_check else ", not by check"
        yield _row(
            f"mistaken steering, {case.what}: told{where}", told(last, case.says), 1, printed(last, case.says)
        )
    n = len(mistaken_steering.MISTAKES)
    yield _row(f"silent errors in {n} mistaken steering files", silent, 0, "count of the rows above")
    yield _row(f"tracebacks in {n} mistaken steering files", crashed, 0, "count of the rows above")
    share = found / max(stumbled, 1)
    yield _row(f"share of {stumbled} that `check` finds", share, 1, "`run` stumbles over the others", 0.05)


def _check_and_run(folder: Path, case: mistaken_steering.Mistake) -> list[Outcome]:
    """Return what `check` did and, where it found nothing wrong, what `run` did."""
    folder.mkdir()
    files = {"schema.toml": mistaken_steering.WHOLE, **case.files}
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    steering = folder / "steering.toml"
    steering.write_text(mistaken_steering.to_toml(mistaken_steering.with_changes(case.changes)))
    check = command("check", str(steering))
    if check.ended != "well" or check.alarms:
        return [check]
    return [check, command("run", str(steering), "--output", str(folder / "results"))]


if __name__ == "__main__":
    print(json.dumps(list(mistake_rows()), indent=1, ensure_ascii=False))
