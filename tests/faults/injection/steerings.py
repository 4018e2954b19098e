"""Malformed steering files: every key mistyped, wrong in type, sign or finiteness; files that are no TOML."""

from __future__ import annotations

import copy
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gammastar import config
from gammastar.config.checks import check_steering, listing
from gammastar.core.errors import UserError
from gammastar.store.filesets import find_file
from injection.kills import SMALL

FILES = {
    ("read", "files"): (["../../nowhere.root"], "nowhere.root"),
    ("read", "response"): (["../../none*.root"], "none"),
    ("read", "schema"): ("../nowhere.toml", "nowhere.toml"),
    ("accept", "detectors"): (["../../../etc/passwd"], "passwd"),
}
UNORDERED = ("acceptance_masses", "flow_masses")
NOT_TOML = {
    "empty section": "[analysis\nname = 1",
    "doubled key": '[analysis]\nname = "a"\nname = "b"\n',
    "doubled section": '[analysis]\nname = "a"\n[analysis]\n',
    "yaml": "analysis:\n  name: a\n",
    "yaml with a tag": "analysis: !!python/object/apply:os.system ['true']\n",
    "yaml aliases": "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
    "json": '{"analysis": {"name": "a"}}',
    "control characters": '[analysis]\nname = "a\x00"\n',
    "bytes that are no text": b"[analysis]\nname = '\xff\xfe'\n",
    "deep arrays": "[analysis]\nname = " + "[" * 5000 + "]" * 5000 + "\n",
    "deep tables": "[analysis]\n" + ".".join("a" * 3000) + " = 1\n",
    "ten megabytes": '[analysis]\nname = "' + "a" * 10_000_000 + '"\n',
    "pickle": b"\x80\x04\x95cposix\nsystem\n",
    "nothing": "",
    "only a comment": "# nothing\n",
}


def plain() -> dict[str, Any]:
    """Return the content of the small steering file with absolute paths."""
    content = tomllib.loads(SMALL.read_text())
    content["read"]["schema"] = str(SMALL.parent / "schema.toml")
    for key in ("files", "response"):
        content["read"][key] = [str(find_file(name, SMALL.parent)[0]) for name in content["read"][key]]
    return content


def schemas() -> Iterator[tuple[str, str, str]]:
    """Yield malformed schemas."""
    sound = tomllib.loads((SMALL.parent / "schema.toml").read_text())
    for key, value in sound.items():
        for kind, wrong in _wrong(value).items():
            if not (key == "event" and kind == "list"):
                yield f"schema.{key}: {kind}", flat(sound | {key: wrong}), key
        yield f"schema.{key}_", flat({k: v for k, v in sound.items() if k != key} | {f"{key}_": value}), key
    for table in ("kinematics", "truth"):
        for key, value in sound[table].items():
            for kind, wrong in _wrong(value).items():
                changed = sound | {table: sound[table] | {key: wrong}}
                yield f"schema.{table}.{key}: {kind}", flat(changed), key
            inner = {k: v for k, v in sound[table].items() if k != key} | {f"{key}_": value}
            yield f"schema.{table}.{key}_", flat(sound | {table: inner}), table


def flat(content: dict[str, Any]) -> str:
    """Write a file with keys before its tables."""
    keys = {k: v for k, v in content.items() if not isinstance(v, dict)}
    tables = {k: v for k, v in content.items() if isinstance(v, dict)}
    return "".join(f"{k} = {toml(v)}\n" for k, v in keys.items()) + text(tables)


class Raw(str):
    """A value as it stands in the file."""

    __slots__ = ()


def toml(value: Any) -> str:
    """Write a value as TOML."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + " }"
    return repr(value)


def text(content: dict[str, Any]) -> str:
    """Write a steering file."""
    return "".join(
        f"[{section}]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in keys.items())
        for section, keys in content.items()
    )


def _wrong(value: Any) -> dict[str, Any]:
    """Return values that no key of this kind can take."""
    nan, inf = float("nan"), float("inf")
    if isinstance(value, bool):
        return {"text": "maybe", "number": 7.5, "list": [1, 2]}
    if isinstance(value, int | float):
        return {"text": "1e-6 GeV", "nan": nan, "inf": inf, "negative": -1, "list": [1.0], "table": {"a": 1}}
    if isinstance(value, str):
        return {"number": 3.5, "list": [1], "table": {"a": 1}, "bool": True}
    if isinstance(value, dict):
        return {"text": "0 to 1", "no step": {"bins": 0, "low": 0.0, "high": 1.0}, "typo": {"bin": 3}}
    if value and isinstance(value[0], str):
        return {"number": 1, "numbers": [1.5], "table": {"a": 1}}
    return {"text": "0..1", "nan": [nan, 1.0], "inf": [0.2, inf], "words": ["a", "b"], "falling": value[::-1]}


def malformed() -> Iterator[tuple[str, str | bytes, str]]:
    """Yield what is wrong, the file, and the word that the message must hold."""
    sound = plain()
    for section, keys in sound.items():
        changed = copy.deepcopy(sound)
        changed[f"{section}s"] = changed.pop(section)
        yield f"[{section}s]", text(changed), section
        for key, value in keys.items():
            changed = copy.deepcopy(sound)
            changed[section][f"{key}_"] = changed[section].pop(key)
            yield f"{section}.{key}_", text(changed), f"{key}_"
            for kind, wrong in _wrong(value).items():
                if kind == "falling" and key in UNORDERED:
                    continue
                changed = copy.deepcopy(sound)
                changed[section][key] = wrong
                yield f"{section}.{key}: {kind}", text(changed), key
    for section, key in (("analysis", "name"), ("read", "schema"), ("select", "mass"), ("spectrum", "pot")):
        changed = copy.deepcopy(sound)
        del changed[section][key]
        yield f"{section}.{key} missing", text(changed), key
    for (section, key), (value, word) in FILES.items():
        changed = copy.deepcopy(sound)
        changed[section][key] = value
        yield f"{section}.{key} = {value}", text(changed), word
    for name in ("../../escape", "/etc/passwd", "a b", "", "a/b"):
        changed = copy.deepcopy(sound)
        changed["analysis"]["name"] = name
        yield f"analysis.name = {name!r}", text(changed), "name"
    for what, content in NOT_TOML.items():
        yield what, content, ""


@dataclass
class Refused:
    """What a campaign of malformed steering files found."""

    files: int = 0
    accepted: list[str] = field(default_factory=list)
    unnamed: list[str] = field(default_factory=list)
    crashed: list[str] = field(default_factory=list)
    slowest: float = 0.0


def check_files(steering: config.Steering, base: Path) -> None:
    """Raise what the check finds wrong, without a look at the entries of the input files."""
    wrong = listing(check_steering(steering, base, open_files=False))
    if wrong:
        raise UserError(wrong)


def refuse(folder: Path) -> Refused:
    """Load and check every malformed steering file; note those that are taken, or refused without the key."""
    found, path = Refused(), folder / "steering.toml"
    schema, sound = folder / "schema.toml", plain()
    sound["read"]["schema"] = str(schema)
    every = [(*case, path) for case in malformed()] + [(*case, schema) for case in schemas()]
    for what, content, word, target in every:
        path.write_text(text(sound))
        target.write_bytes(content if isinstance(content, bytes) else content.encode())
        found.files += 1
        start = time.perf_counter()
        try:
            check_files(config.load(path), SMALL.parent)
        except UserError as error:
            if word not in str(error):
                found.unnamed.append(f"{what}: {str(error)[:120]}")
        except Exception as error:  # noqa: BLE001 - whatever else comes out is what is looked for
            found.crashed.append(f"{what}: {type(error).__name__}")
        else:
            found.accepted.append(what)
        found.slowest = max(found.slowest, time.perf_counter() - start)
    return found
