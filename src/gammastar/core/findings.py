"""What a look at an input found: a record that says how bad it is, where, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gammastar.core.documents import plain

__all__ = ["Finding"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or that looks wrong.

    Attributes
    ----------
    level : {"error", "warning"}
        An error cannot give right numbers; a warning may be right, and the user has to judge.
    where : str
        File, key or section, e.g. ``"mine.root: unit"``.
    message : str
        What was seen, with numbers, and what to do.
    """

    level: Literal["error", "warning"]
    where: str
    message: str

    @property
    def key(self) -> str:
        """The last part of `where`, e.g. ``unit``."""
        return self.where.rsplit(": ", maxsplit=1)[-1]

    def __str__(self) -> str:
        return plain(f"{self.level}: {self.where}: {self.message}")
