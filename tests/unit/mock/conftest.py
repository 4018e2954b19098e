"""What tests of the mock share."""

import pytest

from gammastar.mock import samples


@pytest.fixture
def small_pilots(monkeypatch):
    """Rates from a fifth of the dimuons and interactions, where their errors are not asked for."""
    monkeypatch.setattr(samples, "PILOT", 40_000)
    monkeypatch.setattr(samples, "SMALLEST_POOL", 10_000)
    return monkeypatch
