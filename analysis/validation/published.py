"""Rows of the topic `published`: what others measured and printed, read and used."""

from __future__ import annotations

from collections.abc import Iterator

from validation.published_analyses import analysis_rows
from validation.published_records import record_rows
from validation.published_tables import table_rows


def rows(*, quick: bool) -> Iterator[dict]:  # noqa: ARG001
    yield from table_rows()
    yield from analysis_rows()
    yield from record_rows()
