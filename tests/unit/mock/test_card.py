"""Cards: every number has a source, mistakes name their key."""

import re

import numpy as np
import pytest

from gammastar.core.constants import branching
from gammastar.core.errors import InputFileError, PhysicsError, SteeringError
from gammastar.core.files import data_path
from gammastar.mock import load_card, measured_r, normalisation, simulate_events
from gammastar.mock.cocktail import mass_density
from gammastar.mock.combinatorial import like_sign_ratio

PATH = data_path("cards/na60_mock.toml")
TEXT = PATH.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def card():
    return load_card(PATH)


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def changed(tmp_path, old, new):
    assert old in TEXT
    path = tmp_path / "card.toml"
    path.write_text(TEXT.replace(old, new, 1), encoding="utf-8")
    return path


def test_every_number_has_tag_and_source(card):
    assert len(card.provenance) == len(re.findall(r"value = |^branching\w* = \"", TEXT, re.MULTILINE))
    assert {p.tag for p in card.provenance.values()} == {"published", "derived", "placeholder"}
    assert all(p.source for p in card.provenance.values())
    assert card.provenance["beam.energy"].tag == "published"


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("[beam]\nenergy = {", "[beam]\nenergie = {", "beam.energie: unknown key"),
        ('energy = { value = 400.0, tag = "published", source = "ab" }', "energy = 400.0", "has no source"),
        (
            'tag = "published", source = "ab"',
            'tag = "measured", source = "ab"',
            "beam.energy.tag = 'measured'",
        ),
        ('source = "ab" }', 'source = "nobody" }', "beam.energy.source = 'nobody'"),
        ('tag = "published", source = "ab"', 'source = "ab"', "exactly value, tag, source"),
        ("thickness = { value = 0.01", "thickness = { value = -0.01", "target.thickness"),
        ('meson = "eta"\nprocess = 2', 'meson = "eta_c"\nprocess = 2', "modes.eta_dalitz.meson = 'eta_c'"),
        ('kind = "rho"', 'kind = "rho_prime"', "modes.rho.kind"),
        ("temperature = {", "temperatur = {", "temperatur"),
        ("value = 400.0", "value = nan", "beam.energy"),
        (
            'branching = "eta -> mu mu gamma"',
            'branching = "eta -> mu mu gama"',
            "modes.eta_dalitz.branching: no branching fraction of 'eta -> mu mu gama'.*'eta -> mu mu gamma'",
        ),
    ],
)
def test_mistakes_name_their_key(tmp_path, old, new, match):
    with pytest.raises(SteeringError, match=match):
        load_card(changed(tmp_path, old, new))


def test_a_branching_fraction_is_named_or_has_its_own_source(tmp_path, card):
    named = card.provenance["modes.eta_dalitz.branching"]
    assert named == ("published", "PDG 2026, S014.13: eta -> mu mu gamma")
    assert card.modes["eta_dalitz"].branching == branching("eta -> mu mu gamma")
    own = '{ value = 3.0e-4, tag = "published", source = "na60" }'
    other = load_card(changed(tmp_path, '"eta -> mu mu gamma"', own))
    assert other.modes["eta_dalitz"].branching == 3.0e-4
    assert other.provenance["modes.eta_dalitz.branching"].source == "NA60, arXiv:1608.07898"


def test_unreadable_cards(tmp_path):
    with pytest.raises(InputFileError, match="cannot be read"):
        load_card(tmp_path / "absent.toml")
    (tmp_path / "broken.toml").write_text("name = [", encoding="utf-8")
    with pytest.raises(InputFileError, match="not valid TOML"):
        load_card(tmp_path / "broken.toml")


def test_digest_follows_values_not_sources(tmp_path, card):
    other = load_card(changed(tmp_path, "value = 400.0", "value = 401.0"))
    same = load_card(changed(tmp_path, 'value = 400.0, tag = "published"', 'value = 400.0, tag = "derived"'))
    assert other.digest != card.digest
    assert same.digest == card.digest


def test_prior_changes_spectra_and_yields(card):
    varied = card.with_prior("varied")
    assert card.with_prior("nominal") is card
    assert varied.mesons["eta"].p0 == pytest.approx(1.12 * card.mesons["eta"].p0)
    assert varied.modes["phi_2body"].branching == pytest.approx(1.3 * card.modes["phi_2body"].branching)
    assert varied.modes["omega_2body"].branching == card.modes["omega_2body"].branching
    assert varied.digest != card.digest


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"n": 0}, PhysicsError, "n = 0"),
        ({"n": -5}, PhysicsError, "n = -5"),
        ({"kind": "truth"}, PhysicsError, "kind = 'truth'"),
        ({"pairing": "random"}, PhysicsError, "pairing = 'random'"),
        ({"miss_prescale": 0}, PhysicsError, "miss_prescale = 0"),
        ({"prior": "flat"}, SteeringError, "prior 'flat' is not in the card"),
    ],
)
def test_wrong_requests(card, options, error, match):
    with pytest.raises(error, match=match):
        simulate_events(card, **{"n": 100, **options})


def test_blind_spectrometer_is_an_error(card, rng):
    blind = card.model_copy(update={"detector": card.detector.model_copy(update={"e_min": 399.0})})
    with pytest.raises(PhysicsError, match="none of 2000 dimuons is recorded"):
        normalisation(blind, rng, n=2000)


def test_ratio_needs_interactions(card, rng):
    with pytest.raises(PhysicsError, match="at least 50"):
        measured_r(card, 10, rng)
    with pytest.raises(PhysicsError, match="too few like-sign pairs"):
        like_sign_ratio(np.zeros((3, 50)))


def test_line_without_width_has_no_density(card):
    with pytest.raises(PhysicsError, match="without width"):
        mass_density(card.modes["eta_2body"], 221, 0.5)


def test_modes_that_are_left_out_are_not_made():
    full = data_path("cards/na60_full.toml")
    less = load_card(full, leave_out=("drell_yan", "jpsi"))
    assert [key for key, mode in less.modes.items() if not mode.enabled] == [
        *(
            key
            for key, mode in load_card(full).modes.items()
            if not mode.enabled or key in ("drell_yan", "jpsi")
        )
    ]
    assert less.digest != load_card(full).digest
    with pytest.raises(SteeringError, match="no mode drell_yang; the modes are eta_2body"):
        load_card(full, leave_out=("drell_yang",))
    with pytest.raises(SteeringError, match="no mode would be left"):
        load_card(full, leave_out=tuple(less.modes))
