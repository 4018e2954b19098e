"""Pseudo-experiments of the main job: ``python3 analysis/na60_dimuon/pythia_campaigns.py [-n N | --quick]``.

Each campaign makes MOCK ntuples with hadrons of Pythia and a simulation of the toy engine under a prior of
its own, and runs the stages of ``steering.toml`` from these files to the rate at exact masses, in the full
phase space, with all errors. The truth is the card's mass spectrum in closed form. Protons on target are
stated with their error, as an experiment would. Finished campaigns are kept in ``results/campaigns/``.

Hadrons come from one pool of generated events, as large as that of the main job: a campaign draws its mesons
and its muons from decays in flight from it with replacement; decays, azimuths, numbers of pairs and detector
are new. What the pool lacks in events is common to all campaigns.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).parent
sys.path[:0] = [str(ROOT / "analysis"), str(FOLDER)]

from _venv import reenter  # noqa: E402

VARIANTS = {
    "pythia, thrown prior": "of every campaign thrown around the card's, with its prior of [simulate] as 1 σ",
    "pythia, prior of the steering": "of [simulate], the same for all",
}
KEPT = ("mass", "extrapolation", "extrapolation_step", "measured_part")
POOL_SEED, R_SEED, FIRST_SEED = 500, 501, 5000
N_R_FACTOR = 100_000
N_CAMPAIGNS, N_QUICK = 40, 8
WIDE = 40  # masses, beside those on and beside the lines


@dataclass(frozen=True)
class Common:
    """What all campaigns share.

    Attributes
    ----------
    steering : dict
        Of the main job.
    card : Card
    engine : PythiaEngine
    r_factor : (float, float)
        Charge ratio of combinatorial pairs of other generated events, and its error.
    """

    steering: dict[str, Any]
    card: Any
    engine: Any
    r_factor: tuple[float, float]


@cache
def common() -> Common:
    """Return the main job's steering, its card and one pool of Pythia events, generated once and kept."""
    from pythia_pools import kept_engine

    from gammastar import mock
    from gammastar.core.files import data_path
    from gammastar.mock.samples import Request, events_wanted

    steering = tomllib.loads((FOLDER / "steering.toml").read_text())
    section = steering["simulate"]
    card = mock.load_card(data_path(f"cards/{section['card']}.toml"), leave_out=section.get("leave_out", ()))
    pool = ROOT / "results" / "campaigns" / "pool"
    n = events_wanted(card, section["n_pairs"], Request(card, section["n_pairs"], seed=POOL_SEED))
    engine = kept_engine(card, n, pool, seed=POOL_SEED, workers=2)
    other = kept_engine(card, N_R_FACTOR, pool, seed=R_SEED, workers=2)
    background = mock.simulate_events(
        card, section["n_pairs"], kind="background", engine=other, n_events=N_R_FACTOR, seed=R_SEED
    )
    r = (background.meta["r_factor"], background.meta["r_factor_sigma"])
    return Common(steering, card, engine, r)


def masses(low: float, high: float) -> list[float]:
    """Return the masses of the rate [GeV]: even ones, and those on and beside ω and φ."""
    import numpy as np

    from gammastar.core import constants

    lines = [constants.mass(pdg) + step for pdg in (223, 333) for step in (-0.02, -0.005, 0.0, 0.005, 0.02)]
    return sorted([*np.linspace(low, high, WIDE).tolist(), *lines])


def response_card(card: Any, name: str, prior: str, seed: int) -> Any:
    """Return the card of the simulation under the prior of a campaign."""
    from campaign_parts import with_prior

    from gammastar.core.sampling import stream

    if name == "pythia, prior of the steering":
        return card.with_prior(prior)
    rng, sigma = stream(seed, "prior"), card.priors[prior]
    return with_prior(
        card,
        p0=sigma.p0 ** rng.normal(),
        y_width=sigma.y_width ** rng.normal(),
        yields={key: value ** rng.normal() for key, value in sorted(sigma.yields.items())},
    )


def steering_of(shared: Common, pot: float, seed: int) -> dict[str, Any]:
    """Return the steering of the main job for given files, up to the rate."""
    stages = ("analysis", "read", "select", "subtract", "unfold", "spectrum", "predict", "systematics")
    made = {key: dict(shared.steering[key]) for key in stages}
    made["analysis"]["seed"] = seed
    schema = str(FOLDER / made["read"]["schema"])
    made["read"] |= {"files": ["data.root"], "response": ["mc.root"], "schema": schema}
    if made["subtract"].get("r_factor") == "simulation":
        made["subtract"] |= {"r_factor": shared.r_factor[0], "r_factor_sigma": shared.r_factor[1]}
    if made["subtract"].get("charm", {}).get("template") == "simulation":
        made["subtract"]["charm"] = made["subtract"]["charm"] | {"template": ["charm.root"]}
    if not {"charm", "corrections"} & set(made["subtract"]):
        made["subtract"]["weights"] = "signed"  # a classifier takes a minute, and serves the trend alone
    made["spectrum"]["pot"] = pot
    edges = made["select"]["mass"]
    low, high = (edges["low"], edges["high"]) if isinstance(edges, dict) else (edges[0], edges[-1])
    made["predict"] |= {"sampler": "histogram", "masses": masses(low + 0.0125, high - 0.0125)}
    return made


def toml(value: Any) -> str:
    """Return a value as TOML; tables inline."""
    import json

    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml(one) for one in value) + "]"
    return json.dumps(value)


def campaign(shared: Common, name: str, seed: int) -> dict[str, Any]:
    """Return masses, rate and its error by source of one campaign."""
    from gammastar import mock
    from gammastar.core.constants import M_MU
    from gammastar.core.sampling import stream
    from gammastar.core.signal import Rate
    from gammastar.mock.cocktail import mass_spectrum
    from gammastar.mock.engines import normalised
    from gammastar.physics.qed import dark_photon_rate
    from gammastar.pipeline.cache import load_arrays
    from gammastar.pipeline.run import run
    from gammastar.store.events import tree_writer

    section = shared.steering["simulate"]
    card = response_card(shared.card, name, section["response_prior"], seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = mock.simulate_blocks(
            shared.card, section["n_pairs"], kind="data", engine=shared.engine, seed=seed
        )
        with tree_writer(folder / "data.root") as file:
            true_pot = mock.write_blocks(file, data, shared_engine=True)["N_POT"]
        with tree_writer(folder / "mc.root") as file:
            mock.write_blocks(file, mock.simulate_blocks(card, section["n_response"], kind="mc", seed=seed))
        charm = shared.steering["subtract"].get("charm", {})
        if charm.get("template") == "simulation":
            sample = mock.simulate_events(card, charm["n_template"], kind="charm", seed=seed + 2)
            with tree_writer(folder / "charm.root") as file:
                mock.write_blocks(file, [sample])
        sigma = shared.steering["systematics"]["pot"]
        pot = true_pot * (1.0 + sigma * stream(seed, "protons").normal())
        text = "".join(
            f"[{key}]\n" + "".join(f"{k} = {toml(v)}\n" for k, v in table.items())
            for key, table in steering_of(shared, pot, seed).items()
        )
        (folder / "steering.toml").write_text(text)
        run(folder / "steering.toml", output=folder / "out")
        rate = Rate.from_arrays(load_arrays(folder / "out" / "stages" / "predict.npz"))
        shutil.rmtree(folder / "out")
    parts = {f"error|{part.name}": part.cov.diagonal() ** 0.5 for part in rate.sources.parts}
    card = normalised(shared.card, shared.engine)
    true = dark_photon_rate(mass_spectrum(card, rate.mass), rate.mass, M_MU)
    more = {"truth": true, "error": rate.error(), "pot": pot / true_pot}
    return {key: getattr(rate, key) for key in KEPT} | {"rate": rate.value} | parts | more


def of_steering(output: Path) -> Path:
    """Return the folder of the campaigns of this steering: another one, or another card, makes others."""
    from gammastar import mock
    from gammastar.core.files import data_path
    from gammastar.store.manifest import digest

    text = (FOLDER / "steering.toml").read_text()
    section = tomllib.loads(text)["simulate"]
    card = mock.load_card(data_path(f"cards/{section['card']}.toml"), leave_out=section.get("leave_out", ()))
    return output / digest(text, card.digest)[:8]


def produce(names: list[str], n: int, output: Path) -> None:
    """Make campaigns until there are `n` of every variant."""
    import numpy as np
    from campaigns import place

    from gammastar.store.manifest import atomic

    output = of_steering(output)
    for name in names:
        for i in range(n):
            path = place(output, name, i)
            if path.is_file():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            found = campaign(common(), name, FIRST_SEED + i)
            with atomic(path) as temporary, temporary.open("wb") as stream:
                np.savez_compressed(stream, **found)
            print(f"\r{name}: {i}", end="", file=sys.stderr, flush=True)


def main() -> None:
    import campaigns

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variant", nargs="*", default=list(VARIANTS), help=", ".join(VARIANTS))
    parser.add_argument("-n", type=int, default=N_CAMPAIGNS)
    parser.add_argument("--quick", action="store_true", help=f"{N_QUICK} campaigns")
    options = parser.parse_args()
    produce(options.variant, N_QUICK if options.quick else options.n, campaigns.FOLDER)


if __name__ == "__main__":
    reenter("all")
    main()
