"""Published tables, in any form that HEPData gives out, and what becomes of them."""

from __future__ import annotations

from gammastar.read.published.opening import (
    TableListing,
    describe_tables,
    hepdata,
    is_published,
    table_names,
)
from gammastar.read.published.spectra import (
    Conventions,
    MeasuredTable,
    beam_energies,
    check_beam,
    published_spectrum,
)
from gammastar.read.published.table import Column, Origin, PublishedTable, TableAxis, TableError

__all__ = [
    "Column",
    "Conventions",
    "MeasuredTable",
    "Origin",
    "PublishedTable",
    "TableAxis",
    "TableError",
    "TableListing",
    "beam_energies",
    "check_beam",
    "describe_tables",
    "hepdata",
    "is_published",
    "published_spectrum",
    "table_names",
]
