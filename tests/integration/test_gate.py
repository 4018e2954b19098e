"""A table mistake × alarm: each mistake in files or steering fires its check, and the right files fire none.

The files are written here, with numpy and uproot, and share nothing with the MOCK data.
"""

import awkward as ak
import numpy as np
import pytest
import uproot

from gammastar.cli import show_checks
from gammastar.core.errors import SteeringError
from gammastar.pipeline.run import run
from gammastar.store.manifest import read_manifest, write_manifest

M_MU, POT = 0.1056583755, 1e9
LINES = {0.78266: 0.25, 1.01946: 0.2}
STEERING = """
[analysis]
name = "gate"
mock = true
[read]
files = ["data.root"]
response = ["simulation.root"]
schema = "schema.toml"
[select]
keep_pairs = true
mass = {{ bins = 10, low = 0.3, high = 1.2 }}
pt = [0.0, 3.0]
energy = [{low}, 40.0, 200.0]
{select}
[subtract]
weights = "signed"
method = "{background}"
r_factor = {r_factor}
[unfold]
method = "{unfolding}"
[spectrum]
beam_energy = {beam}
target_a = 12.0
target_z = 6.0
thickness = 0.01
pot = {pot}
lepton = "mu"
"""
SCHEMA = """
tree = "events"
layout = "jagged"
lepton = "mu"
charge = "q"
event = ["event"]
{more}
[kinematics]
px = "px"
py = "py"
pz = "pz"
[event_columns]
run = "run"
flag = "flag"
[truth]
mass = "gen_mass"
pt = "gen_pt"
energy = "gen_energy"
"""
PLAIN = {"low": 15.0, "select": "", "r_factor": 1.0, "beam": 200.0, "pot": POT, "more": ""}
DEFAULT = {"background": "likelihood", "unfolding": "likelihood"}
FASTER = {"background": "regions", "unfolding": "least squares"}  # nothing of the checks depends on them


def photons(n, rng):
    """Return four-momenta and masses of photons: an exponential, ω and φ."""
    mass = np.clip(0.25 + rng.exponential(0.3, n), None, 1.5)
    kind = rng.random(n)
    for pole, share in LINES.items():
        mass[kind < share] = pole
        kind = np.where(kind < share, 2.0, kind - share)
    pt, pz, phi = (
        0.5 * rng.rayleigh(1.0, n),
        np.clip(15 + rng.exponential(25, n), None, 150),
        rng.uniform(0, 7, n),
    )
    return mass, np.stack([pt * np.cos(phi), pt * np.sin(phi), pz], axis=1)


def decayed(mass, p, rng):
    """Return measured momenta (n, 2, 3) of muons that leave a photon in its rest frame in any direction."""
    k = np.sqrt(mass**2 / 4 - M_MU**2)[:, None]
    cosine, turn = rng.uniform(-1, 1, len(mass)), rng.uniform(0, 2 * np.pi, len(mass))
    sine = np.sqrt(1 - cosine**2)
    rest = k * np.stack([sine * np.cos(turn), sine * np.sin(turn), cosine], axis=1)
    energy = np.sqrt(mass**2 + (p**2).sum(axis=1))
    legs = []
    for leg in (rest, -rest):
        along = (leg * p).sum(axis=1) / (mass * (energy + mass)) + 0.5
        legs.append(leg + along[:, None] * p)
    legs = np.stack(legs, axis=1)
    return legs * rng.normal(1, 0.015, legs.shape[:2])[..., None]


def seen(p):
    """Return which pairs of muons are in the acceptance."""
    return (p[..., 2] > 6).all(axis=-1)


def written(path, p, q, columns, counts=None):
    """Write muons event by event."""
    counts = np.full(len(p) // 2, 2) if counts is None else counts
    lists = {
        name: ak.unflatten(column, counts)
        for name, column in zip(("px", "py", "pz", "q"), (*p.T, q), strict=True)
    }
    n = len(counts)
    with uproot.recreate(path) as file:
        own = {"run": np.arange(n) % 10, "flag": np.arange(n) % 10, "event": np.arange(n)}
        file["events"] = {**lists, **own, **columns}


def data(rng, *, soft=25.0, hard=25.0, n=3000):
    """Return momenta, charges and numbers of muons in the events of the data."""
    mass, p = photons(6000, rng)
    legs = decayed(mass, p, rng)
    legs = legs[seen(legs)]
    counts = np.concatenate([np.full(len(legs), 2), 2 + (np.arange(n) % 4 == 0)])
    q = rng.choice([-1, 1], counts[len(legs) :].sum())
    pz = 6 + rng.exponential(np.where(q > 0, soft, hard))
    others = np.stack([rng.normal(0, 0.35, len(q)), rng.normal(0, 0.35, len(q)), pz], axis=1)
    return (
        np.concatenate([legs.reshape(-1, 3), others]),
        np.concatenate([np.tile([1, -1], len(legs)), q]),
        counts,
    )


def simulation(rng, n=15_000):
    """Return what the simulation holds: truth, and the muons of the seen photons."""
    mass, p = photons(n, rng)
    legs = decayed(mass, p, rng)
    truth = {
        "gen_mass": mass,
        "gen_pt": np.hypot(*p.T[:2]),
        "gen_energy": np.sqrt(mass**2 + (p**2).sum(axis=1)),
    }
    return legs, seen(legs), truth


def of_events(muons, keep):
    """Return the muons of the chosen events."""
    p, q, counts = muons
    inside = np.repeat(keep, counts)
    return p[inside], q[inside], counts[keep]


def signs(muons):
    """Return the numbers of positive and of negative muons of the events."""
    event = np.repeat(np.arange(len(muons[2])), muons[2])
    return [np.bincount(event, muons[1] == sign, len(muons[2])).astype(int) for sign in (1, -1)]


def spoiled(mistake, rng):  # noqa: C901, PLR0912 - a table
    """Return muons and columns of the data, legs, seen and truth of the simulation, and the steering."""
    muons = data(rng, soft=10.0, hard=45.0, n=25_000) if mistake == "charges apart" else data(rng)
    plus, minus = signs(muons)
    legs, found, truth = simulation(rng)
    columns, steered, simulated = {}, PLAIN | (DEFAULT if mistake == "none" else FASTER), {}
    drawn = rng.random(len(plus))
    if mistake == "no like-sign events":
        muons = of_events(muons, (plus > 0) & (minus > 0))
    elif mistake == "no like-sign pairs":
        muons = of_events(muons, (plus == 1) & (minus == 1))
    elif mistake == "no --":
        muons = of_events(muons, minus < 2)
    elif mistake == "-- prescaled":
        muons = of_events(muons, (minus < 2) | (drawn < 0.05))
    elif mistake == "wrong R":
        steered["r_factor"] = 4.0
    elif mistake == "response without losses":
        legs, truth, found = legs[found], {key: x[found] for key, x in truth.items()}, found[found]
    elif mistake == "truth of other events":
        order = rng.permutation(len(legs))
        truth = {key: x[order] for key, x in truth.items()}
    elif mistake == "truth is the measured pair":
        p = legs.sum(axis=1)
        energy = np.sqrt((legs**2).sum(axis=2) + M_MU**2).sum(axis=1)
        truth = {
            "gen_mass": np.sqrt(energy**2 - (p**2).sum(axis=1)),
            "gen_pt": np.hypot(*p.T[:2]),
            "gen_energy": energy,
        }
    elif mistake == "axes too narrow":
        steered["low"] = 36.0
    elif mistake == "pot in units of 1e12":
        steered["pot"] = POT / 1e12
    elif mistake == "pot of a year":
        steered["pot"] = POT * 1e6
    elif mistake == "beam energy":
        steered["beam"] = 30.0
    elif mistake == "unnamed prescale":
        columns["trigger_prescale"] = np.where(drawn[: len(muons[2])] < 0.5, 1, 7)
    elif mistake == "unnamed weight of the simulation":
        simulated["genWeight"] = rng.uniform(0.5, 1.5, len(legs))
    elif mistake == "a count as a weight":
        steered["more"], columns["n"] = 'weight = "n"', muons[2]
        simulated["n"] = np.full(len(legs), 2)
    elif mistake == "a number as a weight":
        steered["more"] = 'weight = "event"'
    elif mistake == "muons twice":
        p, q, counts = muons
        muons = np.repeat(p, 2, axis=0), np.repeat(q, 2), 2 * counts
    elif mistake == "copies under new numbers":
        p, q, counts = muons
        muons = (
            np.concatenate([p, p[: 2 * 3000]]),
            np.concatenate([q, q[: 2 * 3000]]),
            np.concatenate([counts, counts[:3000]]),
        )
    elif mistake == "momentum scale":
        muons = (1.04 * muons[0], *muons[1:])
    elif mistake == "boosted":
        muons = (muons[0] * [1, 1, 2.2], *muons[1:])
    elif mistake.endswith("left out"):
        name = mistake.split("s ")[0]
        steered["select"], simulated[name] = f"pair = {{ {name} = [0, 5] }}", np.zeros(len(legs), int)
    return muons, columns, legs, found, truth | simulated, steered


def checked(mistake, folder):
    """Write the files of a mistake, run them, and return the checks that failed."""
    muons, columns, legs, found, truth, steered = spoiled(mistake, np.random.default_rng(5))
    written(folder / "data.root", muons[0], muons[1], columns, muons[2])
    counts = np.where(found, 2, 0)
    written(
        folder / "simulation.root", legs[found].reshape(-1, 3), np.tile([1, -1], found.sum()), truth, counts
    )
    (folder / "schema.toml").write_text(SCHEMA.format(**steered))
    (folder / "steering.toml").write_text(STEERING.format(**steered))
    run(folder / "steering.toml", output=folder / "out")
    manifest = read_manifest(folder / "out")
    failed = {row["name"] for row in manifest["checks"] if row["verdict"] != "ok"}
    assert all(any(note.startswith(name) for note in manifest["notes"]) for name in failed)
    return failed


def test_nothing_fires_on_the_right_files(tmp_path):
    assert checked("none", tmp_path) == set()
    first = read_manifest(tmp_path / "out")["checks"]
    run(tmp_path / "steering.toml", output=tmp_path / "out", resume=True)
    assert read_manifest(tmp_path / "out")["checks"] == first
    assert any(row["of_file"] for row in first)


def test_the_terminal_shows_what_failed_and_one_line_if_nothing_did(tmp_path, capsys):
    row = {
        "name": "a [σ]",
        "number": "7",
        "threshold": "≤ 4",
        "cure": "do",
        "verdict": "alarm",
        "of_file": False,
    }
    for rows, text in (([row], "1 of 1 checks before the spectrum"), ([row | {"verdict": "ok"}], "all ok")):
        write_manifest(tmp_path, {"checks": rows})
        show_checks(tmp_path)
        said = "".join(capsys.readouterr())
        assert text in said
        assert ("a [σ]" in said) == (rows[0] is row)


@pytest.mark.parametrize(
    ("mistake", "alarm"),
    [
        ("wrong R", "lowest cell"),
        ("wrong R", "lowest mass bin"),
        ("charges apart", "shift by R"),
        ("no like-sign events", "beside a +− pair"),
        ("no like-sign pairs", "like-sign over"),
        ("no --", "++ over −−"),
        ("-- prescaled", "++ over −−"),
        ("response without losses", "reconstructed share"),
        ("truth is the measured pair", "correlation"),
        ("axes too narrow", "outside in q_T or energy"),
        ("pot of a year", "photons per interaction"),
        ("unnamed prescale", "trigger_prescale"),
        ("unnamed weight of the simulation", "genWeight"),
        ("a count as a weight", "whole numbers"),
        ("a number as a weight", "mean weight"),
        ("copies under new numbers", "of another event"),
        ("momentum scale", "scale of ω and φ"),
        ("boosted", "rapidity"),
        ("flags left out", "pair flag keeps"),
    ],
)
def test_an_alarm_for_each_mistake(mistake, alarm, tmp_path):
    assert [name for name in checked(mistake, tmp_path) if alarm in name]


@pytest.mark.parametrize(
    ("mistake", "text"),
    [
        ("truth of other events", "correlation of true and reconstructed mass"),
        ("pot in units of 1e12", "photons per interaction"),
        ("beam energy", "above 1.2 of the beam energy"),
        ("muons twice", "twice in one event"),
        ("runs left out", r"select\.pair\.run: unknown quantity"),
    ],
)
def test_what_cannot_be_right_is_refused(mistake, text, tmp_path):
    with pytest.raises(SteeringError, match=text):
        checked(mistake, tmp_path)
