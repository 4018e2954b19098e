"""Files: atomic writes, digests, spectra, histograms, events."""

from gammastar.store.events import write_tree
from gammastar.store.manifest import atomic, digest, file_sha256, read_json, versions, write_json, write_text
from gammastar.store.records import read_spectrum, write_histograms, write_spectrum, write_table

__all__ = [
    "atomic",
    "digest",
    "file_sha256",
    "read_json",
    "read_spectrum",
    "versions",
    "write_histograms",
    "write_json",
    "write_spectrum",
    "write_table",
    "write_text",
    "write_tree",
]
