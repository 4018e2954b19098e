"""Errors that users meet: each says what, where, which value and what to do."""

from __future__ import annotations


class GammastarError(Exception):
    """Base of all errors raised on purpose; a failure that is not the user's mistake (exit code 1)."""

    exit_code = 1


class UserError(GammastarError):
    """A mistake in what the user gave (exit code 2)."""

    exit_code = 2


class SteeringError(UserError):
    """A steering file or card that cannot be used; the message names the key."""


class InputFileError(UserError):
    """An input file that is missing, damaged or empty; the message names the file."""


class BranchError(UserError):
    """A tree or branch that a schema names and the file lacks; the message lists near names."""


class PhysicsError(UserError):
    """A value outside the domain of a formula; the message names the quantity and the value."""


class PortabilityError(PhysicsError):
    """A spectrum used at a beam energy or target where it was not measured."""


class EmptyWindowError(PhysicsError):
    """A mass window of a joint likelihood in which nothing is left to fit; the mass is left out."""


class NegativeYieldError(UserError):
    """A template with a negative yield; the message names channel and bin."""


class StoreError(GammastarError):
    """A result that cannot be written or that fails its digest."""


def require(condition: object, message: str, error: type[Exception] = PhysicsError) -> None:
    """Raise the error with its message if the condition does not hold."""
    if not condition:
        raise error(message)
