"""A finished run as an object: its spectrum, rate, kinematics, reaches and likelihoods.

Nothing is read before it is asked for; what is read is compared with the manifest of the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel

from gammastar.core.errors import InputFileError, UserError, require
from gammastar.core.files import Pathlike
from gammastar.core.records import PreformattedText
from gammastar.core.signal import Rate, SignalPlane, SignalPlanes
from gammastar.results import views
from gammastar.store.folder import check_results, of_this_version, read_result
from gammastar.store.manifest import MANIFEST, read_manifest

if TYPE_CHECKING:
    from gammastar.config import Steering


ALL, MAIN = "all", "reach.json"
OTHERS = (views.IN_SITU, views.DISPLACED)  # searches in the measured pairs, which say their own numbers
PHOTONS = "virtual photons per POT"


class _Explored(BaseModel):
    """Limits over the plane: one for each confidence level, or rows of them."""

    cl: list[float]
    limit: list[Any]
    measured: bool


class _ReachFile(BaseModel):
    """What ``reach.json`` holds, as far as it is taken: texts and numbers where they belong."""

    label: str
    rows: list[dict[str, float | str | bool | None]]
    model: dict[str, str] = {}
    mass_intervals: dict[str, list[dict[str, Any]]] = {}
    explored: _Explored | None = None
    expected_limit: list[float] = []
    detector: dict[str, Any] = {}


class Results:
    """A finished run. Every part is read when it is asked for, and kept.

    Parameters
    ----------
    folder : path
        Of the results, with their ``manifest.json``.

    Raises
    ------
    UserError
        If the folder holds no results.
    StoreError
        If the manifest is not as the run wrote it; a part that was changed is refused when it is read.

    Examples
    --------
    >>> import gammastar as gs
    >>> found = gs.load("results/na60_small")  # doctest: +SKIP
    >>> found.reach["na62_dump"].plot()  # doctest: +SKIP
    """

    def __init__(self, folder: Pathlike) -> None:
        self.folder = Path(folder)
        if not (self.folder / MANIFEST).is_file():
            near = sorted(path.parent.name for path in self.folder.glob(f"*/{MANIFEST}"))[:5]
            hint = f"; it holds the results {', '.join(near)}" if near else ""
            raise UserError(f"{self.folder}: no {MANIFEST}; is this the folder of results of a run?{hint}")
        self.manifest = read_manifest(self.folder)

    @property
    def mock(self) -> bool:
        """Whether the data were simulated."""
        return bool(self.manifest["mock"])

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that the run wrote."""
        return tuple(self.manifest["files"])

    @cached_property
    def steering(self) -> Steering:
        """The sections of the steering that a reinterpretation needs; ``steering.json`` has all."""
        from gammastar.pipeline.record import kept_steering

        self._written("steering.json")
        return kept_steering(self.folder)

    @cached_property
    def spectrum(self) -> views.LoadedSpectrum:
        """Virtual photons per proton on target, in cells of mass, q_T and energy, with their covariance."""
        from gammastar.store.manifest import read_spectrum

        self._written("spectrum.json")
        spectrum = read_spectrum(self.folder / "spectrum.json")
        found: views.LoadedSpectrum = views.copied(views.LoadedSpectrum, spectrum, mock=self.mock)
        return found

    @cached_property
    def rate(self) -> views.LoadedRate:
        """Dark particles per proton on target and squared coupling, at the masses of the run."""
        arrays = self._stage("predict")
        with of_this_version(arrays.path):
            found: views.LoadedRate = views.copied(views.LoadedRate, Rate.from_arrays(arrays), mock=self.mock)
        return found

    @cached_property
    def signal(self) -> Mapping[str, SignalPlane]:
        """Expected events over mass and coupling, by detector."""
        arrays = self._stage("accept")
        with of_this_version(arrays.path):
            return SignalPlanes.from_arrays(arrays).by_detector

    @cached_property
    def flow(self) -> views.Kinematics:
        """The kinematics of virtual photons at a mass, as the flow learned them."""
        from gammastar import flow

        self._written("flow.json", "flow.safetensors")
        found = flow.load(self.folder / "flow")
        return views.Kinematics(found, found.mass_range, self.mock)

    @cached_property
    def reach(self) -> Mapping[str, views.DetectorReach]:
        """The reach of each detector by the stem of its file; "in_situ" and "displaced" where they ran."""
        known = [name for name in self.files if name.startswith("reach_") and name.endswith(".json")]
        named = {MAIN: self._main} if MAIN in self.files else {}
        named |= {file: file.removeprefix("reach_").removesuffix(".json") for file in known}
        return _Lazy({name: partial(self._reach, file, name) for file, name in named.items()})

    @property
    def workspace(self) -> views.Workspace:
        """The likelihood of the first detector without signal."""
        return self.likelihood()[0]

    @property
    def patches(self) -> views.Patches:
        """The signals of the first detector, one JSON patch each."""
        return self.likelihood()[1]

    def likelihood(
        self, detector: str | None = None, *, mass: float | None = None
    ) -> tuple[views.Workspace, views.Patches]:
        """Return workspace and signals of a detector, the first one by default.

        Parameters
        ----------
        detector : str, optional
            Stem of its file.
        mass : float, optional
            Of a run with a joint likelihood, which has one for each mass: that next to this one [GeV].

        Raises
        ------
        UserError
            If the run wrote none, or one for each mass and none is given.
        """
        suffix = "" if detector in (None, self._main) else f"_{detector}"
        folder = self._joint(f"joint_{detector or self._main}/", mass)
        names = [f"{kind}{'' if folder else suffix}.json" for kind in ("workspace", "patchset")]
        names = [f"{folder}{name}" for name in names]
        missing = [name for name in names if name not in self.files]
        if missing:
            known = ", ".join(self.reach) or "none"
            what = " and no ".join(missing)
            raise UserError(f"{self.folder}: the run wrote no {what}; it has the reaches {known}")
        workspace = views.Workspace(read_result(self.folder, names[0]))
        workspace.mock = self.mock
        with of_this_version(self.folder / names[1]):
            return workspace, views.Patches(read_result(self.folder, names[1]), mock=self.mock)

    def _joint(self, folder: str, mass: float | None) -> str:
        """Return the folder of the joint likelihood next to a mass; nothing where there is none."""
        labels = {name.split("/")[1] for name in self.files if name.startswith(folder)}
        known = {float(label[1:].replace("p", ".")): f"{folder}{label}/" for label in labels}
        if not known:
            return ""
        if mass is None:
            listed = ", ".join(f"{value:g}" for value in sorted(known))
            which = f"give mass, one of {listed}"
            raise UserError(f"{self.folder}: a joint likelihood has one for each mass; {which}")
        return known[min(known, key=lambda value: abs(value - mass))]

    def summary(self) -> PreformattedText:
        """Return the reaches and the numbers of the run, one per line, and its notes."""
        lines = [f"{self.folder}" + ("  (MOCK data)" if self.mock else "")]
        lines += [f"  {found.sentence}" for name, found in self.reach.items() if name not in OTHERS]
        numbers = dict(self.manifest["numbers"])
        if PHOTONS not in numbers and "spectrum.json" in self.files:
            numbers = {PHOTONS: f"{float(self.spectrum.values.sum()):.4g}"} | numbers
        width = max(map(len, numbers), default=0)
        lines += [f"  {name:{min(width, 48)}s}  {value}" for name, value in numbers.items()]
        return PreformattedText("\n".join([*lines, *(f"  note: {note}" for note in self.manifest["notes"])]))

    @property
    def report(self) -> Path:
        """The page of the run, ``report.html``."""
        return self.folder / "report.html"

    def __repr__(self) -> str:
        parts = {
            "spectrum": "spectrum.json" in self.files,
            "rate": (self.folder / "stages" / "predict.npz").is_file(),
            "flow": "flow.json" in self.files,
            "signal": (self.folder / "stages" / "accept.npz").is_file(),
            "reach": bool(self.reach),
            "workspace, patches": "workspace.json" in self.files,
        }
        if any(name.startswith("joint_") for name in self.files):
            del parts["workspace, patches"]
            parts["likelihood(mass=…)"] = True
        lines = [f"Results of {self.folder}" + (" (MOCK data)" if self.mock else "")]
        for name, there in parts.items():
            more = f" of {', '.join(self.reach)}" if name == "reach" and there else ""
            lines.append(f"  .{name}{more}" if there else f"  no {name}")
        return "\n".join([*lines, "  .summary(), .steering, .manifest, .report"])

    def _repr_html_(self) -> str:
        """Return the same with a link to the page of the run, for notebooks."""
        text = PreformattedText(repr(self))._repr_html_()
        return f'{text}<a href="{self.report.as_posix()}">report.html</a>'

    @cached_property
    def _main(self) -> str:
        """Stem of the first detector; results of older runs have it in their steering alone."""
        known = read_result(self.folder, MAIN).get("detector") if MAIN in self.files else None
        if known is not None:
            with of_this_version(self.folder / MAIN):
                return str(known["name"])
        section = self.steering.accept if "steering.json" in self.files else None
        names = () if section is None else section.detectors
        return Path(names[0]).stem if names else "reach"

    def _written(self, *names: str) -> None:
        missing = [name for name in names if name not in self.files]
        require(not missing, f"{self.folder}: the run wrote no {' and no '.join(missing)}", UserError)
        check_results(self.folder, names)

    def _stage(self, name: str) -> Any:
        from gammastar.pipeline.cache import kept_arrays

        path = self.folder / "stages" / f"{name}.npz"
        if not path.is_file():
            raise InputFileError(f"{path}: is not here: the run had no [{name}], or only its record is here")
        return kept_arrays(self.folder, name)

    def _reach(self, file: str, name: str) -> views.DetectorReach:
        content = read_result(self.folder, file)
        with of_this_version(self.folder / file):
            return self._reach_of(content, name)

    def _reach_of(self, content: Mapping[str, Any], name: str) -> views.DetectorReach:
        from gammastar.infer.counting_search import reach_of_rows
        from gammastar.predict.models import DarkPhoton, r_table

        _ReachFile.model_validate(content, strict=True)

        rows = content["rows"]
        columns = [key.removesuffix("_low") for key in rows[0] if key.endswith("_low")]
        coupling = columns[0]
        intervals = content.get("mass_intervals", {})
        named = dict.fromkeys(row["part"] for row in rows)
        of_part = {part: [row for row in rows if row["part"] == part] for part in named}
        parts = {part: reach_of_rows(of_part[part], intervals.get(part, ()), coupling) for part in named}
        names = [f"fraction_in_domain_{side}" for side in ("low", "high")]
        shares = [[row.get(name) for name in names] for row in rows if row["part"] == ALL]
        fraction = np.array(shares, dtype=np.float64)
        about = {
            "model": content.get("model") or asdict(DarkPhoton(r_table()).labels),
            "pot": self._pot(content, name),
            "cl": rows[0]["cl"],
            "fraction": fraction if np.isfinite(fraction).any() else None,
            "explored": content.get("explored"),
            "plane": partial(self._plane, name),
        }
        found: views.DetectorReach = views.copied(
            views.DetectorReach,
            parts[ALL],
            name=name,
            label=content["label"],
            parts=parts,
            rows=tuple(rows),
            expected_limit=tuple(content.get("expected_limit", ())),
            about=about,
            mock=self.mock,
        )
        return found

    def _plane(self, name: str) -> SignalPlane | None:
        """Return the signal of a detector over the plane; None where the stage was not kept."""
        try:
            return self.signal.get(name)
        except InputFileError:
            return None

    def _pot(self, content: Mapping[str, Any], name: str) -> float:
        """Return the protons on target of a search: of its detector, or in situ of the measurement."""
        if "detector" in content:
            return float(content["detector"].get("pot", content["detector"].get("luminosity", np.nan)))
        exposure = self.spectrum.exposure if name in (views.IN_SITU, views.DISPLACED) else None
        if exposure is not None:
            return exposure.pot
        from gammastar.physics.detector import load_detector
        from gammastar.pipeline.record import kept_detector

        return load_detector(kept_detector(self.folder, name)).exposure


class _Lazy(Mapping[str, Any]):
    """A mapping whose values are made when they are first asked for."""

    def __init__(self, makers: Mapping[str, Callable[[], Any]]) -> None:
        self._makers = makers
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._makers:
            raise KeyError(f"no reach of {name!r}; there are {', '.join(self._makers) or 'none'}")
        if name not in self._made:
            self._made[name] = self._makers[name]()
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)

    def __repr__(self) -> str:
        return f"reaches of {', '.join(self._makers) or 'nothing'}"

    def _ipython_key_completions_(self) -> list[str]:
        return list(self._makers)


def load(folder: Pathlike) -> Results:
    """Return a finished run as an object whose parts are read when they are asked for.

    Parameters
    ----------
    folder : path
        Of the results.
    """
    return Results(folder)


def run(steering: Pathlike, *, output: Pathlike | None = None, **options: Any) -> Results:
    """Run a steering file, or a shipped analysis such as ``na60_dimuon/small``, and return its results.

    Parameters
    ----------
    output : path, optional
        Folder of the results; ``results/<analysis>`` of the working directory by default.
    **options
        ``resume``, ``only``, ``tell``, ``executor`` and ``allow_partial`` of `gammastar.pipeline.run.run`.
    """
    from gammastar.core.files import analysis_path
    from gammastar.pipeline.run import run as run_stages

    path = Path(steering)
    path = path if path.is_file() or path.suffix else analysis_path(str(steering))
    return Results(run_stages(path, output=None if output is None else Path(output), **options))


def reinterpret(
    results: Results | Pathlike,
    *,
    detector: Pathlike | None = None,
    model: str | None = None,
    output: Pathlike | None = None,
    **options: Any,
) -> Results:
    """Compute the reach of another detector or model from a finished run alone, and return it.

    Parameters
    ----------
    detector : path, optional
        Detector file; those of the run by default.
    model : str, optional
        ``file.py:Name`` or the name of a built-in model; that of the run by default.
    output : path, optional
        Folder of the new results; beside `results`, with the names of detector and model, by default.
    **options
        ``tell``, ``allow_partial`` and ``trust_code`` of `gammastar.results.start.reinterpret`.
    """
    from gammastar.pipeline.run import silent
    from gammastar.results.start import reinterpret as again

    folder = results.folder if isinstance(results, Results) else Path(results)
    if output is None:
        names = [Path(detector).stem] if detector is not None else []
        names += [model.rpartition(":")[2]] if model is not None else []
        output = folder.with_name("_".join([folder.resolve().name, *(names or ["again"])]))
    given = None if detector is None else Path(detector)
    again(folder, detector=given, model=model, output=Path(output), **{"tell": silent} | options)
    return Results(output)
