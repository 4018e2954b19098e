"""The reference of all keys is complete, true to the models, and the page of the docs is the printed one."""

import dataclasses
import tomllib

import pytest
from builders import ROOT

from gammastar.config import Steering, parse, read_toml, steering
from gammastar.core.errors import SteeringError, UserError
from gammastar.read.schema import Schema, Truth

TABLES = {table.name: table for table in steering.tables()}


def models(model=Steering, prefix=""):
    """Yield every table of the steering by its dotted name, found without the reference."""
    for name, field in model.model_fields.items():
        for kind in str(field.annotation).replace("[", " ").replace("]", " ").replace(",", " ").split():
            found = {sub.__name__: sub for sub in _sections()}.get(kind.split(".")[-1].strip("'>"))
            if found is not None:
                yield f"{prefix}{name}", found
                yield from models(found, f"{prefix}{name}.")


def _sections():
    from gammastar.config.fields import Section

    return Section.__subclasses__()


def test_every_key_of_every_table_is_there_with_a_sentence():
    expected = {name: {f.alias or n for n, f in model.model_fields.items()} for name, model in models()}
    for name, table in TABLES.items():
        inner = {other.rpartition(".")[2] for other in TABLES if other.rpartition(".")[0] == name}
        assert {key.name for key in table.keys} | inner == expected[name], name
        assert len(table.about) > 20
        for key in table.keys:
            assert key.meaning.endswith("."), f"{name}.{key.name}"
            assert len(key.meaning) > 8
            assert "<class" not in key.kind
            assert "typing" not in key.kind
    assert set(TABLES) == set(expected)
    assert sum(len(table.keys) for table in TABLES.values()) > 190


def test_the_keys_of_a_schema_are_there():
    schema, truth, rows = steering.schema_tables()
    of_schema = {f.name for f in dataclasses.fields(Schema)} - {"truth", "row_filter"}
    assert {key.name for key in schema.keys} == of_schema
    assert {key.name for key in truth.keys} == {f.name for f in dataclasses.fields(Truth)}
    assert [key.name for key in rows.keys] == ["branch", "equals"]
    assert all(len(key.meaning) > 8 for table in (schema, truth, rows) for key in table.keys)
    printed = steering.text("schema")
    assert 'weight = ""  (text)' in printed
    assert "[schema.truth]" in printed
    assert "kinematics" in steering.text("schema.kinematics")


def test_defaults_are_those_that_the_models_take():
    """Each printed default, put into a file, gives the steering without it."""
    base = read_toml(ROOT / "analysis" / "na60_dimuon" / "small.toml")
    plain = parse(base)
    for section in ("infer", "accept", "predict", "select", "flow"):
        given = {
            key.name: tomllib.loads(f"x = {key.default}")["x"]
            for key in TABLES[section].keys
            if key.default not in ("", "needed") and key.name not in base[section]
        }
        found = parse(base | {section: base[section] | given})
        assert given
        for name in given:
            value, wanted = getattr(getattr(found, section), name), getattr(getattr(plain, section), name)
            assert value == (pytest.approx(wanted, rel=1e-5) if isinstance(wanted, float) else wanted), name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("infer.cl", "cl = 0.9  (0.5 < number < 1)\n      Confidence level"),
        ("spectrum", "beam_energy  (number > 0; GeV; needed)\n      Energy of the proton beam."),
        ("select", "mass  (edges; GeV; needed)"),
        ("charm", "'simulation' with [simulate]"),  # a section in brackets is no unit
        ("corrections", "[[subtract.corrections]]"),
        ("alpha", "number or list of [number ≥ 0, number]"),
    ],
)
def test_what_is_printed(name, words):
    assert words in steering.text(name)


def test_a_mistyped_name_gets_the_nearest_one():
    with pytest.raises(UserError, match=r"did you mean mass_range"):
        steering.text("mass_rnge")
    with pytest.raises(UserError, match=r"the sections are analysis, simulate"):
        steering.text("qqqq")


def test_the_page_of_the_docs_is_the_printed_one():
    page = (ROOT / "docs" / "reference" / "keys.md").read_text()
    assert page == steering.markdown(), "stale: gammastar keys --markdown > docs/reference/keys.md"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, r"analysis: the section \[analysis\] is missing$"),
        ({"analysis": {"name": "x"}, "seed": 3}, r"seed: unknown section; 'seed' is a key of \[analysis\]$"),
        ({"analysis": 3}, r"analysis: must be a table, \[analysis\], not 3$"),
        (
            {"analysis": {"name": "x"}, "accept": {"ctau": [1.0, 2.0]}},
            r"accept: detectors: name at least one, or one under millicharge_detectors$",
        ),
    ],
)
def test_a_section_is_named_and_not_dumped(content, message):
    with pytest.raises(SteeringError, match=message):
        parse(content)
