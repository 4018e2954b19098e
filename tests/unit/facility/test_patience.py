"""Who is stuck, and for how long nobody is."""

import time

import pytest

from gammastar.facility.crew import LONGEST_STEP, Clock, Idle, Patience


@pytest.mark.parametrize(
    ("seconds", "attempt", "expected"),
    [([], 0, 600.0), ([1.0, 1.0], 1, 1200.0), ([1.0, 2.0, 900.0], 0, 60.0), ([30.0] * 5, 2, 1200.0)],
)
def test_the_limit_follows_the_median_and_doubles(seconds, attempt, expected):
    assert Patience().limit(seconds, attempt) == expected


def test_short_patience_with_silence_is_never_undercut():
    assert Patience(silence=100.0, unknown=5.0).limit([]) == 100.0


def test_a_sign_of_life_begins_again():
    idle = Idle()
    assert idle.seconds("a", "chunk 1", 0.0) == 0.0
    assert idle.seconds("a", "chunk 1", 50.0) == 50.0
    assert idle.seconds("a", None, 60.0) == 0.0
    assert idle.seconds("a", "chunk 1", 61.0) == 0.0
    assert idle.seconds("a", "chunk 1", 71.0) == 10.0
    assert idle.seconds("a", "chunk 2", 80.0) == 0.0
    assert idle.seconds("b", "chunk 2", 80.0) == 0.0


def test_time_in_which_this_process_was_stopped_does_not_count(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = Clock()
    now[0] += 3.0
    assert clock.tick() == 3.0
    now[0] += 3600.0
    assert clock.tick() == 3.0 + LONGEST_STEP
