"""Contract tests for user code: one line each, a schema, channel, volume, model, subtraction, unfolding.

They raise `ContractError`, an `AssertionError` that lists everything that is wrong, so that they fit into
any test suite::

    from gammastar.testing import check_model

    def test_my_model():
        check_model(MyModel())
"""

from gammastar.testing.contracts import (
    ContractError,
    check_channel,
    check_geometry,
    check_model,
    check_schema,
    check_subtraction,
    check_unfolder,
)

__all__ = [
    "ContractError",
    "check_channel",
    "check_geometry",
    "check_model",
    "check_schema",
    "check_subtraction",
    "check_unfolder",
]
