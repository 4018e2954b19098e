"""One home for constants: the table is the PDG's, and no number of it stands a second time."""

from __future__ import annotations

import io
import re
import tokenize
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from builders import ROOT

from gammastar.core import constants
from gammastar.core.constants import ALPHA, BRANCHING, CTAU_PER_GEV, EDITION, GEV2_MB, branching, mass, width
from gammastar.core.errors import PhysicsError, SteeringError
from gammastar.core.files import from_toml, sources_of
from gammastar.physics.mesons import MesonTable

HOME = "src/gammastar/core/constants.py"
NAMED = {"M_E": 11, "M_MU": 13, "M_TAU": 15, "M_PROTON": 2212, "M_PI0": 111, "M_PI_CHARGED": 211}
MESONS = {"rho": 113, "omega": 223, "phi": 333}
MASSES = (*MESONS.values(), 221, 331, 443, 311, 321)
CONSTANTS = {
    "1/ALPHA": 1 / ALPHA,
    "CTAU_PER_GEV": CTAU_PER_GEV,
    "GEV2_MB": GEV2_MB,
    **{name: getattr(constants, name) for name in NAMED},
    **{f"mass({code})": mass(code) for code in MASSES},
    **{f"width({code})": width(code) for code in MESONS.values()},
}
FRACTIONS = {name: row.value for name, row in BRANCHING.items()}
# Numbers that look like one of these, by file and text: what they are.
OTHERS = {
    ("src/gammastar/physics/hadrons.py", "0.77526"): "mass of the published parametrisation",
    ("src/gammastar/physics/hadrons.py", "0.78266"): "mass of the published parametrisation",
    ("src/gammastar/physics/hadrons.py", "0.1474"): "width of the published parametrisation",
    ("src/gammastar/physics/hadrons.py", "0.161"): "effective temperature of the ρ",
    ("data/cards/na60_mock.toml", "0.161"): "effective temperature of the ρ",
    ("data/cards/na60_full.toml", "0.161"): "effective temperature of the ρ",
    ("data/cards/na45_mock.toml", "0.161"): "effective temperature of the ρ",
    ("data/cards/seaquest_mock.toml", "0.161"): "effective temperature of the ρ",
    ("data/cards/na60_telescope.toml", "450e-6"): "scattering of the tracks",
    ("data/measurements/mesons_400gev.toml", "0.161"): "effective temperature of the ρ",
    ("data/measurements/mesons_70gev.toml", "0.161"): "effective temperature of the ρ",
    ("data/cards/na60_full.toml", "0.493677"): "a card holds its masses; compared below",
    ("data/cards/na60_full.toml", "0.497611"): "a card holds its masses; compared below",
    ("data/cards/na60_full.toml", "0.547862"): "a card holds its masses; compared below",
    ("data/cards/na60_full.toml", "1.019461"): "a card holds its masses; compared below",
    ("analysis/hadronic_ratio/measured.py", "0.7827"): "where the smoothing is finer",
    ("analysis/hadronic_ratio/build.py", "0.332"): "scale of the strong coupling",
    ("analysis/validation/mistaken_sample.py", "0.7827"): "centre of a MOCK line",
    ("analysis/validation/mistaken_sample.py", "1.0195"): "centre of a MOCK line",
    ("analysis/validation/unfolding_codes.py", "1.019"): "centre of a MOCK line",
    ("analysis/validation/predict_theory.py", "1.328e-3"): "rate of bremsstrahlung of another code",
    ("docs/howto/measured.md", "1.00"): "a unit",
    **{
        ("analysis/validation/foreign_experiments.py", number): "an experiment without a line of the package"
        for number in (
            *("0.938272", "0.1056583755", "0.00051099895", "3.0969", "0.5479", "0.7827", "1.0195"),
            *("0.149", "0.0087", "0.0042"),
        )
    },
    ("analysis/validation/edges_campaigns.py", "0.7827"): "a mass of the scan",
    ("analysis/validation/edges_campaigns.py", "1.0195"): "a mass of the scan",
    ("analysis/validation/edges_truth.py", "0.51099895e-3"): "a truth without a line of the package",
    ("analysis/validation/edges_truth.py", "0.1056583755"): "a truth without a line of the package",
    ("analysis/validation/mistakes.py", "0.1056583755"): "a file without a line of the package",
    **{
        ("analysis/validation/predict_lines.py", number): "a truth without a line of the package"
        for number in (
            *("0.1056584", "0.1395704", "0.547862", "0.77526", "0.1474", "0.78266", "0.004249", "0.161"),
            *("0.95778", "0.1349768", "1.019461"),
        )
    },
}
NUMBER = re.compile(r"(?<![\w.])\d+\.?\d*(?:[eE][-+]?\d+)?(?![\w.])")
LITERAL = re.compile(r"\d[\d_]*\.?[\d_]*(?:[eE][-+]?\d+)?|\.\d[\d_]*(?:[eE][-+]?\d+)?")
PDG = re.compile(r"PDG|Particle Data")
FILES = (
    *sorted(ROOT.glob("src/**/*.py")),
    *sorted(ROOT.glob("analysis/**/*.py")),
    *sorted(ROOT.glob("docs/howto/*.md")),
    *(
        path
        for name in ("cards", "measurements", "detectors")
        for path in sorted(ROOT.glob(f"data/{name}/*.toml"))
    ),
)


def numbers(text: str, suffix: str) -> Iterator[tuple[int, str, str]]:
    """Yield line, literal, and the comment on its line or, of Python, the line before."""
    if suffix == ".py":
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
        comments = {t.start[0]: t.string for t in tokens if t.type == tokenize.COMMENT}
        for t in tokens:
            if t.type == tokenize.NUMBER:
                line = t.start[0]
                yield line, t.string, comments.get(line, comments.get(line - 1, ""))
        return
    for i, line in enumerate(text.splitlines(), 1):
        code, _, comment = line.partition("#")
        for found in NUMBER.finditer(code):
            yield i, found.group(), comment


def digits(text: str) -> int:
    """Return how many digits a literal gives."""
    return len(re.sub(r"[eE].*", "", text).replace(".", "").replace("_", "").lstrip("0"))


@cache
def rounded(n: int) -> dict[float, list[str]]:
    """Return the names of constants by their values rounded to so many digits."""
    found: dict[float, list[str]] = {}
    for values, least in ((FRACTIONS, 3), (CONSTANTS, 4)):
        for name, value in values.items() if n >= least else ():
            found.setdefault(float(f"{value:.{n - 1}e}"), []).append(name)
    return found


@cache
def constants_of(text: str) -> list[str]:
    """Return the constants that a literal is, rounded to its own digits."""
    return rounded(digits(text)).get(float(text.replace("_", "")), [])


def seconds(text: str, suffix: str, where: str) -> list[str]:
    """Return what is written a second time: constants by their digits, and numbers said to be the PDG's."""
    found = []
    if not PDG.search(text) and not any(constants_of(literal) for literal in set(LITERAL.findall(text))):
        return found  # whatever is a number here
    for line, literal, comment in numbers(text, suffix):
        if (where, literal) in OTHERS or not LITERAL.fullmatch(literal):
            continue
        names = constants_of(literal)
        if not names and "." in literal and PDG.search(comment) and "PDG 2026, S" not in comment:
            names = ["a number of the PDG"]
        found += [f"{where}:{line}: {literal} is {' or '.join(names)}; refer to {HOME}"] if names else []
    return found


def test_no_constant_stands_a_second_time() -> None:
    found = [
        line
        for path in FILES
        if (where := path.relative_to(ROOT).as_posix()) != HOME
        for line in seconds(path.read_text(encoding="utf-8"), path.suffix, where)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "suffix", "named"),
    [
        ("RATIO = 5.8e-6 / 3.1e-4  # BR(η → μμ) over BR(η → μμγ), PDG 2024", ".py", "a number of the PDG"),
        ("# BR(η → μμγ), PDG 2024\nRATIO = 3.1e-4", ".py", "a number of the PDG"),
        ("def f():\n    return 2 * 0.3936", ".py", "eta -> gamma gamma"),
        ("mass = 0.1056584", ".py", "M_MU"),
        ("RHO = (0.77526, 0.1491)", ".py", "mass(113)"),
        ('branching = { value = 7.41e-5, tag = "published", source = "pdg" }', ".toml", "omega -> e e"),
        ("PION, N = 0.1349768, 4.0", ".md", "M_PI0"),
    ],
)
def test_a_second_one_is_found(text: str, suffix: str, named: str) -> None:
    found = seconds(text, suffix, "planted")
    assert found
    assert named in found[0]


def test_known_others_are_still_there() -> None:
    gone = [
        (where, literal)
        for where, literal in OTHERS
        if literal not in {text for _, text, _ in numbers((ROOT / where).read_text(), Path(where).suffix)}
    ]
    assert not gone


def _fractions(node: object, key: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(node, dict) and "value" not in node:
        for name, value in node.items():
            yield from _fractions(value, f"{key}.{name}" if key else name)
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from _fractions(value, f"{key}[{i}]")
    elif key.rpartition(".")[2] in {"branching", "branching_photon"} or key.startswith(
        ("two_ph", "radiative")
    ):
        yield key, node


def unnamed(path: Path) -> list[str]:
    """Return the branching fractions of a file that neither name a decay nor have a source but the PDG."""
    raw = from_toml(path)
    sources = raw.get("sources", {})
    found = []
    for key, node in _fractions({name: part for name, part in raw.items() if name != "sources"}):
        if isinstance(node, str):
            branching(node)
            continue
        source = sources_of(raw).get(node["source"], "") if isinstance(node, dict) and sources else ""
        if not source or re.search(r"PDG|Particle Data", source):
            found.append(f"{path.name}: {key} = {node}: name the decay, or a source of its own")
    return found


@pytest.mark.parametrize(
    "name", sorted(p.name for d in ("cards", "measurements") for p in ROOT.glob(f"data/{d}/*.toml"))
)
def test_branching_fractions_of_files_name_a_decay_or_their_source(name: str) -> None:
    (path,) = [p for d in ("cards", "measurements") for p in ROOT.glob(f"data/{d}/{name}")]
    assert not unnamed(path)


def test_an_unnamed_fraction_is_found(tmp_path: Path) -> None:
    card = (ROOT / "data" / "cards" / "na60_mock.toml").read_text(encoding="utf-8")
    path = tmp_path / "card.toml"
    for source, wrong in (("pdg", 1), ("na60", 0)):
        own = f'{{ value = 3.1e-4, tag = "published", source = "{source}" }}'
        path.write_text(card.replace('"eta -> mu mu gamma"', own), encoding="utf-8")
        assert len(unnamed(path)) == wrong
    path.write_text('[[decays]]\nparent = "eta"\nbranching = 3.24e-4\n', encoding="utf-8")
    assert "decays[0].branching = 0.000324" in unnamed(path)[0]


@pytest.fixture(scope="module")
def database():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the database's own library
        return pytest.importorskip("pdg").connect()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("decay", BRANCHING)
def test_the_table_is_that_of_the_pdg(database, decay: str) -> None:
    row = BRANCHING[decay]
    listed = database.get(f"{row.source}/{EDITION.removeprefix('PDG ')}")
    assert row.value == pytest.approx(listed.value, abs=0.06 * row.error)
    assert row.error == pytest.approx(max(listed.error_positive, listed.error_negative), rel=0.06)
    parent, ours = listed.description.split("-->")[0].replace("^'", "prime"), decay.partition("->")[0]
    assert re.sub(r"\W|_", "", parent.lower()).startswith(re.sub(r"\W|_", "", ours.lower()))


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("code", [*NAMED.values(), *MASSES])
def test_masses_are_those_of_the_pdg(database, code: int) -> None:
    listed = database.get_particle_by_mcid(code)
    assert mass(code) == pytest.approx(listed.mass, abs=max(listed.mass_error, 1e-7 * listed.mass))
    if code in MESONS.values():
        assert width(code) == pytest.approx(listed.width, abs=listed.width_error)


@pytest.mark.parametrize(("name", "code"), NAMED.items())
def test_named_masses_are_those_of_the_particle_package(name: str, code: int) -> None:
    assert getattr(constants, name) == pytest.approx(mass(code), rel=1e-7)


def test_masses_and_lifetimes_of_cards_are_those_of_the_particle_package() -> None:
    from particle import Particle

    raw = from_toml(ROOT / "data" / "cards" / "na60_full.toml")
    recoil = {"d_plus": (311, 313), "d_zero": (321, 323), "d_s": (221, 333), "lambda_c": (3122, 3122)}
    for name, hadron in raw["charm"]["hadrons"].items():
        assert hadron["recoil"]["value"] == pytest.approx(mass(recoil[name][0]), rel=2e-5)
        assert hadron["heavy_recoil"]["value"] == pytest.approx(mass(recoil[name][1]), rel=2e-5)
    hadrons = {**raw["charm"]["hadrons"], **raw["background"]["hadrons"]}
    for hadron in hadrons.values():
        ctau = float(Particle.from_pdgid(hadron["pdg"]).ctau) * 1e-3  # m
        assert hadron["ctau"]["value"] == pytest.approx(ctau, rel=2e-3)


def test_unknown_decays_list_near_names(tmp_path: Path) -> None:
    with pytest.raises(
        PhysicsError, match=r"'eta -> mumu gamma' in the table of PDG 2026; near: 'eta -> mu mu gamma'"
    ):
        branching("eta -> mumu gamma")
    text = (ROOT / "data" / "measurements" / "mesons_400gev.toml").read_text(encoding="utf-8")
    path = tmp_path / "mesons.toml"
    path.write_text(text.replace('"phi -> e e"', '"phi -> ee"'), encoding="utf-8")
    with pytest.raises(
        SteeringError, match=r"mesons.toml: decays.10.branching: .*'phi -> ee'.*near: 'phi -> e e'"
    ):
        MesonTable.read(path)
