"""Files of other tools: numbers of FORESEE by public calls; what is written, read back by plain numpy.

With ``GAMMASTAR_FORESEE`` naming a clone of FORESEE its own mesons are carried to the numbers of its tests.
"""

from __future__ import annotations

import csv
import importlib.util
import operator
import os
import re
import sys
import tempfile
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyhf
from scipy.integrate import trapezoid

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import foresee_recipe  # noqa: E402
from validation._rows import row  # noqa: E402
from validation.eventcalc_tables import EventCalcTables  # noqa: E402

from gammastar import accept, infer, predict  # noqa: E402
from gammastar.core.constants import ALPHA, BRANCHING, GEV2_MB, M_E, mass  # noqa: E402
from gammastar.core.files import data_path  # noqa: E402
from gammastar.core.sampling import stream  # noqa: E402
from gammastar.infer.histfactory.cards import read_card, to_card  # noqa: E402
from gammastar.physics.bremsstrahlung import preset  # noqa: E402
from gammastar.physics.detector import Detector, load_detector  # noqa: E402
from gammastar.physics.geometry import Cylinder  # noqa: E402
from gammastar.physics.mesons import MesonTable, read_cells  # noqa: E402
from gammastar.physics.millicharge import Front, MillichargeDetector, Recoil, vector_branching  # noqa: E402
from gammastar.predict.millicharge import chi_from_resonances  # noqa: E402
from gammastar.predict.models import r_table  # noqa: E402
from gammastar.predict.theory import ForeseeSpectra  # noqa: E402
from gammastar.results.exchange import (  # noqa: E402  # noqa: E402
    Point,
    Produced,
    Stand,
    write_decays,
    write_eventcalc,
    write_foresee,
)

MODEL = predict.DarkPhoton(r_table())
RECIPE = "FORESEE's recipe by numpy alone, arXiv:2105.07077"
WINDOW, ELECTRONS = (0.03, 1.0), 3.754e29 * 7 * 1e-4  # thresholds [GeV]; electrons per cm² of 7 m argon


def rows(*, quick: bool) -> Iterator[dict]:
    n = 50_000 if quick else 400_000
    yield from recipes(n, 25 if quick else 400)
    yield from foresees_own(n)
    yield from get_events(n)
    yield from written(20_000 if quick else 100_000)
    yield from cards()


def pointlike(table: MesonTable) -> MesonTable:
    return replace(table, decays=tuple(replace(decay, form_factor="pointlike") for decay in table.decays))


def dark_photons(channel, m, epsilon, *, beam, n, place=(620.0, 630.0, 1.0), luminosity=3e6) -> tuple:
    """Return events and their error in a cylinder about the axis."""
    first, last, radius = place
    detector = Detector(
        name="FASER",
        source="arXiv:2105.07077",
        beam_energy=beam,
        luminosity=luminosity,
        volume=Cylinder(kind="cylinder", radius=radius, z0=first, z1=last),
        accept_on="parent",
        efficiency={"ee": 1.0},
        sources={},
    )
    sample = channel.produce(m, n=n, rng=stream(1, "mesons"))
    asked = {"final_states": ("ee",), "rng": stream(1, "decays")}
    found = accept.yields(sample, m, [epsilon], MODEL, detector, **asked)
    return float(found.signal[0]), float(found.mc_error[0])


def recoils(table: MesonTable, n: int) -> tuple:
    """Return recoils of millicharged particles between two thresholds, and their error."""
    detector = MillichargeDetector(
        name="argon, 1 m × 1 m × 7 m",
        source="arXiv:2010.07941",
        illustrative=False,
        beam_energy=7000.0,
        luminosity=3e6,
        front=Front(z=620.0, half_x=0.5, half_y=0.5),
        detection=Recoil(kind="recoil", electrons=ELECTRONS, t_min=WINDOW[0], t_max=WINDOW[1]),
        sources={},
    )
    photons = chi_from_resonances(predict.JPsi(table, 7000.0), 1.0, n=2 * n, rng=stream(1, "jpsi"))
    particles = predict.chi_pairs(photons, 1.0, rng=stream(1, "chi"))
    found = accept.millicharge_yields(particles, 1.0, [1e-2], detector)
    return float(found.signal[0]), float(found.mc_error[0])


def recipes(n: int, each: int) -> Iterator[dict]:
    """Tables of mesons from a formula, through public calls and by the recipe of FORESEE."""
    with tempfile.TemporaryDirectory() as name:
        folder, m, eta = Path(name), 0.3, mass(221)
        columns = foresee_recipe.forward(1.7e11)
        foresee_recipe.write(folder, 221, columns)
        factor = 2 * BRANCHING["eta -> gamma gamma"].value * (1 - (m / eta) ** 2) ** 3 * 1e-12 * 3e6
        factor *= MODEL.branching(m)["ee"]
        ctau = float(np.ravel(MODEL.ctau(m, [1e-6]))[0])
        wanted, error = foresee_recipe.decays(columns, eta, m, ctau, np.random.default_rng(2), each)
        channel = predict.PseudoscalarDalitz(pointlike(MesonTable.read(folder)), 7000.0)
        found, own = dark_photons(channel, m, 1e-6, beam=7000.0, n=n)
        label = "FASER2, η of a formula as a FORESEE table → γA′ → ee at 0.3 GeV, ε = 1e-6 [events]"
        yield row(label, found, factor * wanted, 4 * np.hypot(own, factor * error), RECIPE)

        columns = foresee_recipe.forward(1.4e6, pt=1.5, slope=800.0)
        foresee_recipe.write(folder, 443, columns)
        factor = 2 * float(vector_branching([1.0], mass(443), BRANCHING["jpsi -> e e"].value)[0])
        factor *= 1e-8 * 3e6 * ELECTRONS * GEV2_MB * 1e-27 * 2 * np.pi * ALPHA**2 / M_E
        wanted, error = foresee_recipe.recoils(
            columns, mass(443), 1.0, WINDOW, np.random.default_rng(3), each
        )
        found, own = recoils(MesonTable.read(folder), n)
        tolerance = 4 * np.hypot(own, factor * error) + 0.01 * factor * wanted
        label = "J/ψ of a formula → χχ̄ at 1 GeV, Q = 0.01, recoils of 30 MeV to 1 GeV [events]"
        yield row(label, found, factor * wanted, tolerance, f"{RECIPE}; without T²/2E²")

        lines = data_path("measurements/eta_14tev_sibyll.csv").read_text().splitlines()
        table = list(csv.DictReader(line for line in lines if not line.startswith("#")))
        keys = ("log10_angle", "log10_momentum", "sigma_pb")
        columns = [np.array([float(entry[key]) for entry in table]) for key in keys]
        foresee_recipe.write(folder / "sibyll", 221, columns, generator="SIBYLL")
        channel = predict.PseudoscalarDalitz(pointlike(MesonTable.read(folder / "sibyll")), 7000.0)
        found, _ = dark_photons(channel, m, 1e-6, beam=7000.0, n=n)
        source = "FORESEE's test with its SIBYLL table; ours own SIBYLL 2.3d events: another version"
        yield row("FASER2, η of SIBYLL as a FORESEE table → γA′ → ee at 0.3 GeV", found, 19.333, 1.9, source)


class _FourVector(list):
    """What FORESEE uses of scikit-hep's LorentzVector, a package that is no longer kept."""

    pt = property(lambda self: float(np.hypot(self[0], self[1])))
    pz = property(operator.itemgetter(2))
    p = property(lambda self: float(np.linalg.norm(self[:3])))


def get_events(n: int) -> Iterator[dict]:
    """`get_events` of FORESEE's clone on what is written, with its own cut off."""
    path = Path(os.environ.get("GAMMASTAR_FORESEE", "")) / "src" / "foresee.py"
    places = ((0.3, 30.0, 20.0, 1.5), (0.4, 480.0, 5.0, 1.0), (0.3, 30.0, 50.0, 6.0))
    for m, front, length, radius in places:
        label = f"get_events of FORESEE: {m} GeV, {length:g} m behind {front:g} m, within {radius:g} m"
        if not path.is_file():
            text = "GAMMASTAR_FORESEE names no clone"
            yield row(label, np.nan, 1.0, 0.01, "") | {"skipped": text}
            continue
        vectors = types.ModuleType("skhep.math.vectors")
        vectors.LorentzVector, vectors.Vector3D = lambda *x: _FourVector(x), list
        names = ("skhep", "skhep.math", "skhep.math.vectors")
        sys.modules |= {name: types.ModuleType(name) for name in names[:2]} | {names[2]: vectors}
        spec = importlib.util.spec_from_file_location("foresee", path)
        foresee = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(foresee)
        produced = Produced(predict.Bremsstrahlung(preset("na62"), 400.0, 0.4), 400.0, 0.4, n=n)
        with tempfile.TemporaryDirectory() as name:
            write_foresee(produced, [0.25, 0.3, 0.4], Path(name), protons={"dump": 2e20})
            text = (Path(name) / "README.txt").read_text()
            model = foresee.Model("gammastar", path=f"{name}/")
            model.add_production_direct("gammastar", "0.4", coupling_ref=1, masses=[0.25, 0.3, 0.4])
            model.get_ctau = lambda *_: 5.0
            tool = foresee.Foresee.__new__(foresee.Foresee)
            tool.rng = np.random.default_rng(3)
            tool.set_model(model)
            tool.set_detector(
                distance=front,
                length=length,
                selection=f"np.sqrt(x.x**2+x.y**2)<{radius}",
                luminosity=float(re.search(r"dump: luminosity = (\S+)", text)[1]),
            )
            events = tool.get_events(m, "0.4", couplings=[1.0], nsample=20, preselectioncuts="th<2")[2]
        angle, p, _, weight = produced.particles(m)
        mean = 5.0 * p * np.cos(angle) / m
        terms = weight * (front * np.tan(angle) < radius) * 2e20
        terms *= np.exp(-front / mean) - np.exp(-(front + length) / mean)
        error = 3 * np.sqrt(np.sum(terms**2)) / terms.sum()
        source = "sum over particles by numpy; 3 errors of the sample"
        yield row(f"{label}, over ours", float(np.sum(events)) / terms.sum(), 1.0, error, source)


OWN = (  # label, file below files/hadrons, number of FORESEE, share that one sample of FORESEE may be off
    ("FASER2, η of EPOS-LHC, 0.3 GeV, ε = 1e-6", "14TeV/EPOSLHC/EPOSLHC_14TeV_221.txt", 14.962, 0.05),
    ("FASER, π⁰ of EPOS-LHC, 50 MeV, ε = 1e-5", "13.6TeV/EPOSLHC/EPOSLHC_13.6TeV_111.txt", 134.9, 0.03),
    ("argon, J/ψ of Pythia, χ of 1 GeV, Q = 0.01", "14TeV/Pythia8/Pythia8_14TeV_443.txt", 4670.767, 0.03),
)


def foresees_own(n: int) -> Iterator[dict]:
    """FORESEE's own tables, where a clone is named.

    134.9 ± 1.3 is FORESEE with many samples per cell; its test quotes 118.51 from ten of them.
    """
    clone = os.environ.get("GAMMASTAR_FORESEE")
    for label, name, expected, share in OWN:
        path = Path(clone or "") / "files" / "hadrons" / name
        quantity = f"{label}: FORESEE's own table [events]"
        if not (clone and path.is_file()):
            text = "GAMMASTAR_FORESEE names no clone with this table"
            yield row(quantity, np.nan, expected, share * expected, "") | {"skipped": text}
            continue
        with tempfile.TemporaryDirectory() as folder:  # one meson alone, cells that can reach the detector
            meson = int(path.stem.rsplit("_", 1)[1])
            far = (
                {"max_angle": 0.2, "min_momentum": 2.0}
                if meson == 443
                else {"max_angle": 0.02, "min_momentum": 20.0}
            )
            cells = read_cells(path).within(**far)
            columns = cells.log_angle, cells.log_momentum, cells.weight
            foresee_recipe.write(Path(folder), meson, columns)
            table = pointlike(MesonTable.read(Path(folder)))
        if meson == 443:
            found, own = recoils(table, n)
        elif meson == 221:
            eta = predict.PseudoscalarDalitz(table, 7000.0)
            found, own = dark_photons(eta, 0.3, 1e-6, beam=7000.0, n=n)
        else:
            pion, place = predict.PionDalitz(table, 6800.0), (480.0, 481.0, 0.1)
            found, own = dark_photons(pion, 0.05, 1e-5, beam=6800.0, n=10 * n, place=place, luminosity=3e5)
        yield row(quantity, found, expected, share * expected + 3 * own, "a test of FORESEE, or converged")


def written(n: int) -> Iterator[dict]:
    """Bremsstrahlung at 400 GeV as files of each tool, read as that tool reads them."""
    m, model = 0.3, preset("na62")
    produced = Produced(predict.Bremsstrahlung(model, 400.0, 0.4), 400.0, 0.4, n=n, note="validation")
    energy, pt, weight = model.sample(m, 400.0, 4 * n, np.random.default_rng(5))
    p = np.sqrt(energy**2 - m**2)
    rate, angle = float(model.rate(m, 400.0)), np.arcsin(pt / p)
    error = 1 / np.sqrt(n)
    source = "kernel integrals and their sample"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        masses = [0.25, m, 0.4]
        write_foresee(produced, masses, folder, protons={"dump": 2e20})
        cells = np.load(folder / "model" / "LLP_spectra" / f"0.4TeV_gammastar_gammastar_m_{m}.npy")
        text = (folder / "README.txt").read_text()
        luminosity = float(re.search(r"dump: luminosity = (\S+)", text)[1])
        total = cells[2].sum() * 1000 * luminosity
        yield row("FORESEE: Σ weights × luminosity × 1000", total, rate * 2e20, 3e-3 * rate * 2e20, source)
        for label, column, values in (("angle", cells[0], angle), ("momentum", cells[1], p)):
            wanted, spread = np.average(np.log10(values), weights=weight), np.log10(values).std()
            found = np.average(column, weights=cells[2])
            yield row(f"FORESEE: mean log10 of the {label}", found, wanted, 5 * spread * error + 2e-3, source)
        # the window takes angles up to 0.05 rad; by itself FORESEE leaves out those above 0.01
        volume = {"ctau": 1.0, "front": 30.0, "length": 20.0, "radius": 1.5}
        mean = volume["ctau"] * p * np.cos(angle) / m
        decays = np.exp(-30.0 / mean) - np.exp(-50.0 / mean)
        terms = weight * (30.0 * np.tan(angle) < 1.5) * decays * 2e20
        wanted, spread = terms.sum(), np.sqrt(np.sum(terms**2))
        plain = foresee_recipe.decays_in_flight(
            folder,
            m,
            energy="0.4",
            label="gammastar",
            luminosity=luminosity,
            n=20,
            cut=2.0,
            rng=np.random.default_rng(7),
            **volume,
        )
        one_by_one = "particles that decay one by one; 3 errors of the sample in the cells"
        label = "FORESEE's recipe of today on our files: decays in 20 m behind 30 m, window of 1.5 m"
        yield row(label, plain, wanted, 3 * 2.3 * spread + 2e-3 * wanted, one_by_one)
        again = ForeseeSpectra.read(folder / "model" / "LLP_spectra", sigma_inelastic=32.3)
        back = float(again.rate([m])[0][0])
        yield row("FORESEE: A′ per proton of the channel that reads it", back, rate, 3e-3 * rate, source)

        write_eventcalc(produced, masses, folder, fine=np.linspace(0.25, 0.4, 31))
        table = np.loadtxt(folder / "DoubleDistr-DP-central.txt", delimiter="\t").T
        table = table[:, table[0] == m]
        axes = np.unique(table[1]), np.unique(table[2])
        plane = table[3].reshape(len(axes[0]), len(axes[1]))
        one = trapezoid(trapezoid(plane, axes[1]), axes[0])
        yield row("EventCalc: integral of the density over angle and energy", one, 1.0, 1e-6, "one")
        mean = trapezoid(trapezoid(plane * axes[1], axes[1]), axes[0])
        wanted = np.average(energy, weights=weight)
        yield row("EventCalc: mean energy [GeV]", mean, wanted, 0.02 * wanted, source)
        found = np.interp(m, *np.loadtxt(folder / "Total-yield-DP-central.txt").T)
        yield row("EventCalc: yield per proton", found, rate, 1e-5 * rate, source)
        back = float(EventCalcTables.read(folder / "DP-central").rate([m])[0][0])
        yield row(
            "EventCalc: A′ per proton of the channel that reads it", back, rate, 0.01 * rate, "its integral"
        )

        yield from _decays(folder, produced, (energy, pt, weight, rate))


def _decays(folder: Path, produced: Produced, truth: tuple) -> Iterator[dict]:
    """Decays as events: their number against chords by numpy, vertices against velocities."""
    m, epsilon = 0.3, 2e-7
    detector = load_detector(data_path("detectors/ship_ecn3.toml"))
    ready = Stand(MODEL, replace(detector, volume=Cylinder(kind="cylinder", radius=2.0, z0=32.0, z1=82.0)))
    total, effective = write_decays(
        folder / "d.csv", produced.channel, ready, Point(m, epsilon, "mumu"), n=4000
    )
    energy, pt, weight, rate = truth
    p = np.sqrt(energy**2 - m**2)
    pz, slope = np.sqrt(p**2 - pt**2), pt / np.sqrt(p**2 - pt**2)
    first, last, radius = 32.0, 82.0, 2.0
    end = np.minimum(last, radius / np.maximum(slope, 1e-12))
    length = float(np.ravel(MODEL.ctau(m, [epsilon]))[0]) * pz / m
    inside = np.where(end > first, np.exp(-first / length) - np.exp(-end / length), 0.0)
    scale = 0.4 * rate * epsilon**2 * MODEL.branching(m)["mumu"] * detector.pot
    wanted = scale * np.average(inside, weights=weight)
    source = "exponentials over chords of a cylinder, by numpy"
    yield row("geant: sum of weights", total, wanted, 5 * wanted / np.sqrt(effective), source)
    table = np.genfromtxt(folder / "d.csv", delimiter=",", names=True)
    yield row(
        "geant: Σ weight of the file", table["weight"].sum(), total, 1e-5 * total, "the number beside it"
    )
    way = np.sqrt(sum((table[f"decay_{x}"] - table[f"v{x}"]) ** 2 for x in "xyz"))
    momentum = np.sqrt(sum(table[f"p{x}"] ** 2 for x in "xyz"))
    ratio = table["decay_t"] * 299_792_458.0 * momentum / table["E"] / way
    yield row("geant: time × velocity over path, largest", ratio.max(), 1.0, 1e-6, "one")
    both = table["d1_E"] + table["d2_E"]
    yield row("geant: energy of both leptons over that of A′", (both / table["E"]).mean(), 1.0, 1e-6, "one")


CARD = """imax 1
jmax 1
kmax 2
bin SR
observation 0
bin SR SR
process mCP bkg
process 0 1
rate 2.0 0.0987
control gmN 3 - 0.0329
signal lnN 1.2 -
"""


def cards() -> Iterator[dict]:
    """Cards: the likelihood that stands in the text, by hand, beside pyhf."""
    spec = infer.workspace("dump", 0.5, 0.4, [2], pot_calibration_sigma=0.1, pot_search_sigma=0.05)
    spec["channels"][0]["samples"][0]["data"] = [3.0]
    lines = [line.split() for line in to_card(spec).text.splitlines()]
    kinds = [words[1] for words in lines if len(words) > 1]
    start = max(k for k, words in enumerate(lines) if words and words[0] == "rate")
    rates = np.array(lines[start][1:], dtype=float)
    order = np.array(lines[start - 1][1:], dtype=int)
    effects = {
        words[0]: [1.0 if x == "-" else float(x) for x in words[2:]]
        for words in lines[start + 1 :]
        if len(words) > 2 and words[1] == "lnN"
    }
    if "gmN" in kinds or any("/" in x for words in lines[start:] for x in words):
        msg = "the card has more than symmetric lnN: this row reads no more"
        raise ValueError(msg)

    def by_hand(r: float, shift: float) -> float:
        factor = np.prod([np.array(kappa) ** shift for kappa in effects.values()], axis=0)
        expected = float(np.sum(rates * factor * np.where(order <= 0, r, 1.0)))
        return 2 * np.log(expected) - expected - 0.5 * len(effects) * shift**2

    model = pyhf.Workspace(spec).model(modifier_settings={"normsys": {"interpcode": "code1"}})
    data = pyhf.Workspace(spec).data(model)

    def ours(r: float, shift: float) -> float:
        pars = np.full(len(model.config.suggested_init()), shift)
        pars[model.config.poi_index] = r
        return float(model.logpdf(pars, data)[0])

    for r, shift in ((2.5, 0.0), (1.0, 1.0), (0.3, -1.7)):
        yield row(
            f"Combine: ln L at μ = {r:g}, nuisances at {shift:g} over that at 1 and 0: pyhf and the card",
            ours(r, shift) - ours(1.0, 0.0),
            by_hand(r, shift) - by_hand(1.0, 0.0),
            1e-6,
            "Poisson and Gaussian terms of the card by hand",
        )

    model = pyhf.Workspace(read_card(CARD)).model(modifier_settings={"normsys": {"interpcode": "code1"}})
    data = pyhf.Workspace(read_card(CARD)).data(model)
    pars = np.array(model.config.suggested_init())
    at_one = float(model.logpdf(pars, data)[0])
    pars[model.config.par_slice("control")], pars[model.config.par_slice("signal")] = 1.5, -1.0
    pars[model.config.poi_index] = 2.0
    counts = -(2.0 * 2.0 / 1.2 + 4.5 * 0.0329) + 2.0987  # no event, and 4.5 where 3 were seen
    wanted = counts + (3 * np.log(4.5) - 4.5) - (3 * np.log(3.0) - 3.0) - 0.5
    found = float(model.logpdf(pars, data)[0]) - at_one
    yield row("Combine: ln L of a counting card that is read", found, wanted, 1e-6, "its terms by hand")
