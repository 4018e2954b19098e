"""How tasks are called on Dask's dashboard."""

from types import SimpleNamespace

import pytest
from dask.utils import key_split

from gammastar.facility.crew import DaskCrew


@pytest.mark.parametrize(
    ("name", "bar"), [("pairs", "gammastar-pairs"), ("in_situ", "gammastar-insitu"), ("", "gammastar-tasks")]
)
def test_dashboards_show_what_is_done(name, bar):
    """Dask draws one bar per name in front of numbers."""
    keys = []
    client = SimpleNamespace(submit=lambda *_, key, **__: keys.append(key))
    crew = DaskCrew.__new__(DaskCrew)
    crew.client = client
    crew._submit(len, 3, [], name)
    assert key_split(keys[0]) == bar
