"""What every stage of a run shares: steering, folders, the cache of finished stages, progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from gammastar.config import Steering
from gammastar.core.errors import SteeringError
from gammastar.core.files import shipped
from gammastar.core.records import (
    ENERGY,
    KINEMATICS,
    MASS,
    PT,
    Arrays,
    FloatArray,
    Spectrum,
    filled,
    variable,
)
from gammastar.core.resolve import UserCode, freeze, python_names, resolve
from gammastar.core.signal import Rate, SignalPlane
from gammastar.core.sources import OwnSource
from gammastar.pipeline.cache import StageCache
from gammastar.spectrum import Domain, ForwardPower, efficiency_map, forward_power
from gammastar.store.manifest import digest

if TYPE_CHECKING:
    from gammastar.config import Unfold
    from gammastar.core.pairs import MatchedPairs, Pairs
    from gammastar.core.records import PairHists
    from gammastar.core.sampling import Sampler
    from gammastar.flow import KinematicFlow
    from gammastar.infer.counting_search import Search
    from gammastar.physics.polarisation import SpinDensities
    from gammastar.predict import Production
    from gammastar.predict.in_situ import InSitu
    from gammastar.report import ExistingLimit
    from gammastar.select import Cutflow
    from gammastar.spectrum import MassCounts, Trend
    from gammastar.spectrum.training import TrainingSet
    from gammastar.store.pairs import Job, Truth


MASS_COUNTS = "mass_counts.safetensors"  # pairs by mass to which lines are fitted
Tell: TypeAlias = Callable[[str, float | None, str], None]


class Executor(Protocol):
    """Workers elsewhere, as ``facility.open_executor`` gives them."""

    name: str
    skip_bad: bool
    events: list[str]
    skipped: list[dict[str, Any]]
    flows: dict[str, Cutflow]
    tell: Tell | None
    companions: dict[str, str]

    def pairs(self, job: Job) -> tuple[Iterator[Pairs], Cutflow]:
        """Return the selected pairs of all files chunk by chunk, in their order."""

    def histograms(self, job: Job) -> tuple[FloatArray, Cutflow]:
        """Return the sums of all selected pairs by charge in the axes of the job, and the cutflow."""

    def truth(self, job: Job) -> Iterator[MatchedPairs]:
        """Return the simulated photons of all files chunk by chunk, in their order."""

    def map(
        self, function: Callable[[Any], Any], items: Sequence[Any], *, stage: str | None = None
    ) -> list[Any]:
        """Return ``[function(item) for item in items]`` and report progress under the name `stage`."""

    def same_files(self, paths: Sequence[str], folder: Path) -> None:
        """Refuse workers that see other files than this process, or not the folder."""

    def lost_fraction(self, kind: str = "pairs") -> float:
        """Return which part of the entries was skipped."""


@dataclass(frozen=True)
class Context:
    """A run: `base` is the steering file's folder, `folder` that of the results.

    ``tell(stage, fraction, text)`` reports progress; a fraction of None means that it is not known. With an
    `executor` chunks and grid points are worked on there; `allow_partial` allows limits from part of the
    data. `code` is the user's Python code as it was when the run began.
    """

    steering: Steering
    base: Path
    folder: Path
    cache: StageCache
    tell: Tell
    executor: Executor | None = None
    allow_partial: bool = False
    code: UserCode = field(init=False)

    def __post_init__(self) -> None:
        content = self.steering.model_dump(mode="json")
        self.cache.configuration = digest(content)
        object.__setattr__(self, "code", freeze(python_names(content), self.base))
        if self.executor is not None:
            self.executor.tell = self.tell
            self.cache.companions |= self.executor.companions

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return self.steering.analysis.seed

    @property
    def max_in_memory(self) -> int:
        """How many pairs, simulated photons or single leptons a stage may hold."""
        return 0 if self.steering.select is None else self.steering.select.max_in_memory

    def own_sources(self) -> tuple[OwnSource, ...]:
        """Return the sources of uncertainty that the user brings along, [systematics] own."""
        sources = []
        for name in self.steering.systematics.own:
            source = resolve(name, self.code)
            if not isinstance(source, OwnSource):
                msg = f"systematics.own: {name!r} is {type(source).__name__}, not core.sources.OwnSource"
                raise SteeringError(msg)
            sources.append(source)
        return tuple(sources)

    def own_files(self) -> dict[str, str]:
        """Return the digests of the files behind these sources, by their names."""
        shas = self.code.shas(python_names(self.steering.systematics.own))
        return {f"[systematics] {file}": sha for file, sha in shas.items()}

    def each(
        self, function: Callable[[int], Any], n: int, stage: str, describe: Callable[[int], str]
    ) -> list[Any]:
        """Return ``function(i)`` of 0 … n − 1, from the executor if any; it takes `stream` of its item."""
        if self.executor is not None:
            return self.executor.map(function, range(n), stage=stage)
        results = []
        for i in range(n):
            results.append(function(i))
            self.tell(stage, (i + 1) / n, describe(i))
        return results


def detector_files(names: Sequence[str], base: Path, key: str) -> dict[str, Path]:
    """Return the files of detectors by their stems, under which results are kept."""
    files: dict[str, Path] = {}
    for path in (shipped(name, base, "detectors") for name in names):
        if path.stem in files:
            raise SteeringError(
                f"{key}: {files[path.stem]} and {path} are both named {path.stem!r}; rename one of the files"
            )
        files[path.stem] = path
    return files


def axes_of(*sections: Any) -> tuple[Any, ...]:
    """Return the axes mass, pt and energy, each of the first section that gives it."""
    given = {name: [getattr(section, name, None) for section in sections] for name in (MASS, PT, ENERGY)}
    edges = (next(edges for edges in found if edges is not None) for found in given.values())
    return tuple(variable(name, list(e)) for name, e in zip(KINEMATICS, edges, strict=True))


def pack_spectrum(spectrum: Spectrum) -> Arrays:
    """Return the arrays of a spectrum, to be kept by the cache."""
    return {"values": spectrum.values, "cov": spectrum.cov, "domain": spectrum.domain}


def unpack_spectrum(arrays: Arrays, axes: tuple[Any, ...]) -> Spectrum:
    """Return the counts of packed arrays."""
    hist = filled(axes, arrays["values"], arrays["cov"].diagonal())
    return Spectrum(hist, arrays["cov"], "counts", None, arrays["domain"])


@dataclass
class RunState:
    """What the stages of a run made, None before; `record` is the folder of a reinterpretation."""

    simulated: Arrays = field(default_factory=dict)
    inputs: Any = None  # what stages/read.py found
    pairs: Pairs | None = None
    cutflow: Arrays | None = None
    hists: PairHists | None = None
    subtracted: Spectrum | None = None
    subtraction: Arrays | None = None
    matched: MatchedPairs | None = None
    truth: Truth | None = None
    unfolded: Spectrum | None = None
    unfolding: Arrays | None = None
    spectrum: Spectrum | None = None
    in_situ: InSitu | None = None
    displaced: Any = None  # of stages/displaced.py
    domain: Domain | None = None
    forward: ForwardPower | None = None
    training: TrainingSet | Domain | None = None  # of a record only the domain
    trend: Trend | None = None
    mass_counts: MassCounts | None = None
    flow: KinematicFlow | None = None
    spin: SpinDensities | None = None
    record: Path | None = None
    learning: Arrays | None = None
    sampler: Sampler | None = None
    production: Production | None = None
    rate: Rate | None = None
    planes: dict[str, SignalPlane] | None = None
    searches: dict[str, Search] | None = None
    explored: dict[str, dict[str, Any]] = field(default_factory=dict)
    pair_rate: Rate | None = None
    charge_planes: dict[str, SignalPlane] | None = None
    charge_searches: dict[str, Search] | None = None
    known_limits: list[ExistingLimit] | None = None


def needed(value: Any, stage: str) -> Any:
    """Return a product; refuse the absence of the stage that makes it."""
    if value is None:
        raise SteeringError(f"the section [{stage}] is missing: a later stage needs its result")
    return value


def domain_of(ctx: Context, state: Any) -> Domain:
    """Return where dileptons were measured, found once."""
    if state.domain is None:
        section = needed(ctx.steering.unfold, "unfold")
        efficiency = efficiency_map(needed(state.truth, "unfold").parts)
        state.domain = Domain(efficiency, section.efficiency_floor)
    found: Domain = state.domain
    return found


def forward_of(ctx: Context, state: Any) -> ForwardPower:
    """Return how the density falls beyond what was measured, found once."""
    if state.forward is None:
        section, known = needed(ctx.steering.spectrum, "spectrum"), simulated_as_measured(state)
        power = section.forward_power, ctx.steering.systematics.forward_power
        edges = axes_of(ctx.steering.unfold, ctx.steering.select)[0].edges
        inside = domain_of(ctx, state).in_domain(*known.true.T)
        simulated = known.true, known.weight
        state.forward = forward_power(simulated, inside, edges, section.beam_energy, power)
        ctx.cache.methods["extrapolated density"] = (
            "simulated shape, scaled per bin of mass to the measured yield; in the forward hemisphere from "
            f"x_R = {state.forward.start.min():.2g} on dN/dy falls as (1 - x_R)^n, n = {power[0]:g} ± "
            f"{power[1]:g}"
        )
    found: ForwardPower = state.forward
    return found


def simulation_of(section: Unfold, truth: Truth) -> Truth:
    """Return the simulation as the preset sees it: the smeared one keeps the resolution in the mass."""
    from gammastar.unfold.simulation import unsmeared

    return truth.seen_as(unsmeared) if section.preset.startswith("smeared") else truth


def simulated_as_measured(state: Any) -> MatchedPairs:
    """Return the simulated photons with the pt and energies that the unfolding found."""
    return with_measured_kinematics(needed(state.truth, "unfold"), state.unfolding or {}).sample


def with_measured_kinematics(known: Truth, unfolding: Arrays) -> Truth:
    """Return the simulation with the pt and energies that the unfolding found, round by round."""
    from gammastar.unfold.simulation import COLUMN, with_kinematics

    for k in range(len(unfolding)):
        curves = {n: unfolding[f"factor_{n}_{k}"] for n in COLUMN if f"factor_{n}_{k}" in unfolding}
        if not curves:
            break
        known = known.seen_as(with_kinematics(curves))
    return known
