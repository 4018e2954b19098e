"""[in_situ] of a steering file: what is refused, and what the check finds before a run."""

from __future__ import annotations

import tomllib

import pytest
from builders import ROOT

from gammastar.config import parse
from gammastar.config.checks import check_steering
from gammastar.core.errors import SteeringError

FOLDER = ROOT / "analysis" / "na60_dimuon"
SMALL = tomllib.loads((FOLDER / "small.toml").read_text())


def told(section: dict, **more: dict) -> str:
    steering = parse(SMALL | {"in_situ": section} | more)
    return "\n".join(
        f"{f.level} {f.where}: {f.message}" for f in check_steering(steering, FOLDER, stages=["in_situ"])
    )


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"masses": [0.2, 0.5]}, "error in_situ.masses: 0.2 GeV: not above the threshold"),
        ({"masses": [0.5, 1.2]}, "error in_situ.masses: 1.2 GeV: select.mass goes from 0.2125 to 1.1125"),
        ({"mass_range": [0.3, 1.5]}, "error in_situ.mass_range: 1.5 GeV"),
        ({"resolution": 0.2}, "error in_situ.half_window: 6 resolutions of 0.2 GeV"),
        ({"resolution": [[0.3, 0.01], [1.0, 0.1]]}, "error in_situ.half_window: 6 resolutions of 0.1 GeV"),
        ({"observed": "data"}, "error in_situ.observed: 'data', but mock data exclude nothing"),
    ],
)
def test_mistakes_are_found_before_the_run(section, message):
    assert message in told(section)


def test_a_sound_section_is_silent_and_says_that_it_is_for_dark_photons():
    assert told({"masses": [0.3, 0.5], "resolution": 0.03}) == ""
    other = SMALL["predict"] | {"model": "b_minus_l"}
    assert "warning in_situ: the search in situ is for dark photons" in told({}, predict=other)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"resolution": 0.0}, "in_situ.resolution"),
        ({"resolution": [[0.5, 0.01], [0.4, 0.02]]}, "must increase in mass"),
        ({"masses": [0.5], "mass_range": [0.3, 0.6]}, "give one of them"),
        ({"masses": [0.5, 0.4]}, "must increase"),
        ({"degree": 9}, "in_situ.degree"),
        ({"window": 3}, "in_situ.window: unknown key"),
    ],
)
def test_what_cannot_be_meant_is_refused(section, message):
    with pytest.raises(SteeringError, match=message):
        parse(SMALL | {"in_situ": section})


def test_it_needs_the_spectrum():
    content = {k: v for k, v in SMALL.items() if k in ("analysis", "read", "select", "subtract", "unfold")}
    with pytest.raises(SteeringError, match=r"\[in_situ\] needs the section \[spectrum\]"):
        parse(content | {"in_situ": {}})
