"""What tests of the mock share."""

import pytest

from gammastar.mock import exposure


@pytest.fixture
def small_pilots(monkeypatch):
    """Rates from a fifth of the dimuons and interactions, where their errors are not asked for."""
    monkeypatch.setattr(exposure, "PILOT", 40_000)
    monkeypatch.setattr(exposure, "SMALLEST_POOL", 10_000)
    return monkeypatch
