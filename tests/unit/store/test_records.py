"""Files appear whole or not at all and come back unchanged."""

from dataclasses import replace

import numpy as np
import pytest
import uproot

from gammastar.core import errors
from gammastar.core.records import Exposure, Spectrum, filled, regular
from gammastar.store import manifest


def _spectrum():
    rng = np.random.default_rng(1)
    shape = (regular("mass", 3, 0.2, 0.5), regular("pt", 2, 0, 1))
    root = rng.normal(size=(6, 6))
    cov = root @ root.T
    values = rng.random(6)
    hist = filled(shape, values, np.diag(cov))
    exposure = Exposure(400.0, 207.2, 82, 0.01, 1e13, 0.1)
    shifts = {"open charm": rng.normal(size=6)}
    return Spectrum(hist, cov, "per_pot", exposure, np.ones((3, 2), bool), shifts=shifts)


def test_spectrum_round_trip_is_exact(tmp_path):
    spectrum = _spectrum()
    manifest.write_spectrum(tmp_path / "s.json", spectrum)
    back = manifest.read_spectrum(tmp_path / "s.json")
    np.testing.assert_array_equal(back.values, spectrum.values)
    np.testing.assert_array_equal(back.cov, spectrum.cov)
    assert back.exposure.pot == spectrum.exposure.pot
    np.testing.assert_array_equal(back.shifts["open charm"], spectrum.shifts["open charm"])
    assert (
        manifest.digest_of(back)
        == manifest.digest_of(spectrum)
        != manifest.digest_of(replace(spectrum, shifts={}))
    )


def test_root_histogram_round_trip(tmp_path):
    spectrum = _spectrum()
    manifest.write_histograms(tmp_path / "h.root", {"spectrum": spectrum.hist})
    with uproot.open(tmp_path / "h.root") as file:
        back = file["spectrum"].to_hist()
    np.testing.assert_array_equal(back.values(), spectrum.hist.values())
    np.testing.assert_array_equal(back.variances(), spectrum.hist.variances())


def _write_half(path):
    with manifest.atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    manifest.write_json(path, {"a": 1})
    with pytest.raises(errors.StoreError, match="not finite"):
        manifest.write_json(path, {"a": float("nan")})
    with pytest.raises(RuntimeError):
        _write_half(path)
    assert manifest.read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_digest_is_of_content():
    assert manifest.digest(np.arange(3.0)) == manifest.digest(np.arange(3.0))
    assert manifest.digest(np.arange(3.0)) != manifest.digest(np.arange(3))
    assert manifest.digest({"a": 1, "b": 2}) == manifest.digest({"b": 2, "a": 1})
