"""Steering files with hostile and random values at every key: each is refused by name, or can be run."""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import logging
import math
import resource
import shutil
import signal
import tomllib
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gammastar import config
from gammastar.config.checks import examine_file
from gammastar.config.steering import _models_in
from gammastar.core.errors import GammastarError
from gammastar.core.files import plain
from gammastar.core.sampling import stream
from gammastar.pipeline.run import run
from injection.hostile import NAMES, VALUES
from injection.kills import ROOT, smaller
from injection.steerings import Raw, text, toml

PATIENCE = 10.0  # s for a file to be refused
RUN = 90.0  # s for a small run
MEMORY = 6 << 30
LONGEST = 1500  # characters of one message
Place = tuple[str, ...]
SHIPPED = ("na60_dimuon/small", "na60_dimuon/steering", "open_dimuon/run_nano", "open_dimuon/run_zmumu")
NOT_RUN = {("analysis",), ("simulate",), ("flow",), ("read", "step"), ("predict", "millicharge")}
MORE: dict[str, dict[str, Any]] = {
    "simulate": {"card": "na60_mock", "n_pairs": 1000, "n_response": 1000, "engine": "toy"},
    "charm": {"template": "simulation", "offset": ["angle"], "edges": [0.0, 1.0, 2.0]},
    "corrections": {"name": "eta", "kind": "eta to mu mu", "n_dalitz": 10.0, "resolution": 0.02},
    "millicharge": {"masses": [0.05, 0.1]},
}


class Late(BaseException):
    """What takes longer than it may; no ``except Exception`` catches it."""


@contextlib.contextmanager
def limited(seconds: float, memory: int = MEMORY) -> Iterator[None]:
    """Raise `Late` in the block after some seconds of work, or ten times as many in all; bound memory."""

    def late(*_: object) -> None:
        raise Late

    clocks = (
        (signal.SIGPROF, signal.ITIMER_PROF, seconds),
        (signal.SIGALRM, signal.ITIMER_REAL, 10 * seconds),
    )
    before = [signal.signal(number, late) for number, _, _ in clocks]
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory, hard))
    for _, clock, length in clocks:
        signal.setitimer(clock, length)
    try:
        yield
    finally:
        for (number, clock, _), handler in zip(clocks, before, strict=True):
            signal.setitimer(clock, 0)
            signal.signal(number, handler)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings and logs to themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@dataclass
class Tried:
    """How many were tried, and what went wrong with some."""

    n: int = 0
    wrong: list[str] = field(default_factory=list)

    def __iadd__(self, other: Tried) -> Tried:
        self.n, self.wrong = self.n + other.n, [*self.wrong, *other.wrong]
        return self

    def attempt(self, what: str, work: Callable[[], Iterable[str]], seconds: float = PATIENCE) -> bool:
        """Do something; whatever but a GammastarError comes out is wrong, and so is what the work yields."""
        self.n += 1
        before = len(self.wrong)
        try:
            with limited(seconds), quiet():
                self.wrong += [f"{what}: {found}"[:200] for found in work()]
        except GammastarError as error:
            self.wrong += [f"{what}: {found}"[:200] for found in unseemly(str(error))]
        except Late:
            self.wrong.append(f"{what}: takes more than {seconds:g} s")
        except BaseException as error:  # noqa: BLE001 - sys.exit as well is what is looked for
            self.wrong.append(f"{what}: {type(error).__name__}: {error}"[:200])
        return len(self.wrong) == before


def unseemly(message: str) -> Iterator[str]:
    """Yield what is wrong with a message: too long, or it would steer the terminal."""
    if len(message) > LONGEST:
        yield f"a message of {len(message)} characters"
    if not message.strip():
        yield "no message"


def keys(model: type = config.Steering, place: Place = ()) -> Iterator[Place]:
    """Yield the place of every key of the steering file."""
    for name, entry in model.model_fields.items():
        here = (*place, entry.alias or name)
        if place:
            yield here
        for inner in _models_in(entry.annotation):
            yield from keys(inner, here)


def sound(folder: Path) -> dict[str, Any]:
    """Return a steering that runs within seconds."""
    content = tomllib.loads(smaller(folder / "sound.toml").read_text())
    content["predict"]["masses"] = [0.4, 0.6, 0.77]
    content["infer"] |= {"submission": False, "n_couplings": 21}
    content["unfold"]["n_replicas"] = 3
    return content


def with_table(sound_one: dict[str, Any], place: Place) -> dict[str, Any]:
    """Return a copy of a sound steering that has the table of a key."""
    content = copy.deepcopy(sound_one)
    section = content.setdefault(place[0], {})
    if place[0] == "simulate" or place[:2] == ("subtract", "charm"):
        content["simulate"] = dict(MORE["simulate"])
        content["read"] = {"schema": content["read"]["schema"]}
    if len(place) > 2:
        section[place[1]] = (
            [dict(MORE[place[1]])] if place[1] == "corrections" else dict(MORE.get(place[1], {}))
        )
    return content


def put(content: dict[str, Any], place: Place, raw: str) -> dict[str, Any]:
    """Write a value as it stands in TOML at the place of a key."""
    node: Any = content
    for part in place[:-1]:
        node = node.setdefault(part, {})
        node = node[0] if isinstance(node, list) else node
    node[place[-1]] = Raw(raw)
    return content


def random_value(rng: np.random.Generator, depth: int = 0) -> str:
    """Return a random value in TOML."""
    plain_ones = (
        lambda: str(int(rng.integers(-(2**62), 2**62)) * 10 ** int(rng.integers(0, 30))),
        lambda: repr(float(rng.normal() * 10.0 ** rng.uniform(-300, 300))),
        lambda: str(rng.choice(list(VALUES.values()))),
        lambda: str(int(rng.integers(-3, 100))),
        lambda: toml(plain(str(rng.choice(NAMES)), keep="")),
        lambda: str(rng.choice(["true", "false", "nan", "inf", "0.3", "1e-6", '"auto"', '"mu"'])),
    )
    kind = int(rng.integers(9 if depth < 3 else 6))
    if kind < len(plain_ones):
        return plain_ones[kind]()
    items = [random_value(rng, depth + 1) for _ in range(int(rng.integers(0, 5)))]
    if kind == 6:
        names = rng.choice(["mass", "pt", "bins", "low", "high", "a", "n"], len(items), replace=False)
        return "{ " + ", ".join(f"{name} = {item}" for name, item in zip(names, items, strict=True)) + " }"
    return "[" + ", ".join(items) + "]"


def cases(portion: int, portions: int, every: int) -> Iterator[tuple[Place, str, str]]:
    """Yield key, name and value: hand-made ones of which `every` counts, and one random one per key."""
    for number, (place, name) in enumerate(itertools.product(dict.fromkeys(keys()), VALUES)):
        if number % every == 0 and number // every % portions == portion:
            yield place, name, VALUES[name]
    rng = stream(53, "random values", portion)
    for place in list(dict.fromkeys(keys()))[portion::portions]:
        for i in range(3):
            yield place, f"random {i}", random_value(rng)


def refused_or_fine(path: Path, words: Iterable[str], said: list[str] | None = None) -> Iterator[str]:
    """Check a steering file as `gammastar check` does; yield what is wrong with its answer.

    The errors that it names are added to `said`.
    """
    errors = [str(finding) for finding in examine_file(path)[1] if finding.level == "error"]
    if said is not None:
        said += errors
    if errors and not any(word in line for word in words for line in errors):
        yield f"unnamed: {errors[0]}"
    for line in errors:
        yield from unseemly(line)
        if plain(line) != line:
            yield "a message that steers"


def try_values(
    folder: Path, chosen: Iterable[tuple[Place, str, str]]
) -> tuple[Tried, list[tuple[Place, str, str]]]:
    """Check a steering file for every value; return those as well that are taken."""
    base, path, found, taken = sound(folder), folder / "steering.toml", Tried(), []
    for place, name, raw in chosen:
        path.write_text(text(put(with_table(base, place), place, raw)))
        whole = name == "6000 digits" or name.startswith("random")  # no TOML at all, perhaps
        words = (*place, path.name) if whole else place
        said: list[str] = []
        work = functools.partial(refused_or_fine, path, words, said)
        if found.attempt(f"{'.'.join(place)} = {name}", work) and not said:
            taken.append((place, name, raw))
    return found, taken


def try_runs(folder: Path, taken: Iterable[tuple[Place, str, str]], most: int) -> Tried:
    """Run small analyses with values that were taken, so many at most, of different keys if possible."""
    base, path, found = sound(folder), folder / "steering.toml", Tried()
    met: Counter[Place] = Counter()
    chosen = []
    for case in taken:
        if not any(case[0][: len(start)] == start for start in NOT_RUN):
            met[case[0]] += 1
            chosen.append((met[case[0]], *case))
    for _, place, name, raw in sorted(chosen)[:most]:
        path.write_text(text(put(with_table(base, place), place, raw)))
        shutil.rmtree(folder / "out", ignore_errors=True)
        work = lambda: (run(path, output=folder / "out"), ())[1]  # noqa: E731
        found.attempt(f"run: {'.'.join(place)} = {name}", work, RUN)
    return found


def mutated(original: str, rng: np.random.Generator) -> str:
    """Return a steering file with characters, lines or values changed."""
    kind = int(rng.integers(5))
    lines = original.splitlines()
    at = int(rng.integers(len(lines)))
    if kind == 0:  # characters
        data = list(original)
        for position in rng.integers(0, len(data), int(rng.integers(1, 6))):
            data[position] = str(rng.choice(list("0123456789-.,=[]{}\"'#\n\te\x07é￿")))
        return "".join(data)
    if kind == 1:  # a value
        spots = [i for i, line in enumerate(lines) if "=" in line]
        at = int(rng.choice(spots))
        lines[at] = f"{lines[at].partition('=')[0]}= {random_value(rng)}"
    elif kind == 2:  # a line less
        del lines[at]
    elif kind == 3:  # a line at another place
        lines.insert(int(rng.integers(len(lines))), lines.pop(at))
    else:  # a number of another size
        factor = 10.0 ** float(rng.integers(-8, 9))
        words = [w.strip("[],") for w in lines[at].split()]
        numbers = [w for w in words if w.replace(".", "").replace("_", "").replace("e", "").isdigit()]
        for word in numbers[:1]:
            with contextlib.suppress(ValueError):
                value = float(word) * factor
                lines[at] = lines[at].replace(word, repr(value) if math.isfinite(value) else word, 1)
    return "\n".join(lines) + "\n"


def try_mutations(folder: Path, n: int, portion: int) -> Tried:
    """Check mutated copies of the shipped steering files, beside the originals' schemas and cards."""
    found, rng = Tried(), stream(59, "mutations", portion)
    path = folder / "steering.toml"
    for i in range(n):
        source = ROOT / "analysis" / f"{SHIPPED[i % len(SHIPPED)]}.toml"
        original = source.read_text().replace('schema = "', f'schema = "{source.parent}/')
        path.write_bytes(mutated(original, rng).encode("utf-8", "replace"))
        found.attempt(f"mutation {i} of {source.stem}", lambda: refused_or_fine(path, ("",)))
    return found
