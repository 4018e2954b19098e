"""Submissions to HEPData: valid to its own validator, offline, and refusing what that accepts."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import yaml
from builders import counted

from gammastar import read
from gammastar.core.errors import PhysicsError, StoreError
from gammastar.core.records import variable
from gammastar.infer import patchset, reach, read_likelihood, upper_limit, workspace
from gammastar.report.hepdata import Submission, write_spectrum_record, write_submission

SAYS = Submission(
    title="Expected reach of a beam dump (MOCK)",
    abstract="From MOCK dimuons.",
    coupling="kinetic mixing epsilon",
    qualifiers={"CL": 0.9, "POT": 1.4e17, "SQRT(S) [GeV]": 27.4},
    reaction="P NUCLEUS --> DARKPHOTON X",
    method="Exact CLs, 90 % CL",
)
MASS, COUPLING = np.linspace(0.2, 0.8, 12), np.geomspace(1e-8, 1e-5, 40)


def found():
    signal = 2e28 * np.exp(-MASS[:, None] / 0.12) * COUPLING**4
    signal = signal * np.exp(-(COUPLING**2) * MASS[:, None] ** 2 / 1e-13)
    return reach(MASS, COUPLING, signal, upper_limit(0.5, 0.3, "masked", signal_sigma=0.18))


def written(tmp_path):
    space = workspace("dimuons", 0.5, 0.3, pot_search_sigma=0.18)
    patches = patchset(space, MASS, np.full(12, 1e-6), np.full(12, 2.0))
    return write_submission(tmp_path, found(), SAYS, likelihoods={"": (space, patches)})


def test_likelihood_travels_with_the_tables(tmp_path):
    written(tmp_path)
    again = read_likelihood(tmp_path / "likelihood.tar.gz")
    assert len(again.patches) == 12
    table = json.loads((tmp_path / "contour.yaml").read_text())
    masses = [entry["value"] for entry in table["independent_variables"][0]["values"]]
    assert masses == sorted(masses)
    assert len(masses) == np.isfinite(found().edges[:, 0]).sum()
    assert len(table["dependent_variables"]) == 12
    first = (tmp_path / "likelihood.tar.gz").read_bytes()
    written(tmp_path)
    assert (tmp_path / "likelihood.tar.gz").read_bytes() == first
    with tarfile.open(tmp_path / "likelihood.tar.gz") as archive:
        assert archive.getnames() == ["BkgOnly.json", "patchset.json"]


def test_tables_of_another_submission_are_neither_taken_along_nor_removed(tmp_path):
    others = {"in the measured domain": found()}
    write_submission(tmp_path, found(), SAYS, others=others)
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(StoreError, match=r"contour1\.yaml of another submission"):
        write_submission(tmp_path, found(), SAYS)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the validator leaves files open
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_valid_to_the_validator_of_hepdata(tmp_path):
    validator = pytest.importorskip("hepdata_validator.full_submission_validator")
    written(tmp_path)
    check = validator.FullSubmissionValidator(autoload_remote_schemas=False)
    valid, messages = check.validate(directory=str(tmp_path)), check.get_messages()
    assert valid, messages


def test_what_the_validator_accepts_is_refused(tmp_path):
    good = found()
    with pytest.raises(PhysicsError, match="in order"):
        write_submission(tmp_path, replace(good, mass=good.mass[::-1]), SAYS)
    with pytest.raises(PhysicsError, match="above its upper"):
        write_submission(tmp_path, replace(good, edges=good.edges[:, ::-1]), SAYS)
    with pytest.raises(PhysicsError, match="POT"):
        write_submission(tmp_path, good, replace(SAYS, qualifiers={"POT": np.inf}))
    with pytest.raises(PhysicsError, match="nothing is reached"):
        write_submission(tmp_path, replace(good, edges=np.full_like(good.edges, np.nan)), SAYS)
    assert not list(tmp_path.iterdir())


def test_errors_of_a_contour_in_decades_are_errors_of_the_coupling(tmp_path):
    """0.03 and 0.04 of a decade are 0.05, which is a factor 10^0.05."""
    whole = found()
    known = replace(whole, errors=np.tile([0.03, 0.04], (*whole.edges.shape, 1)))
    write_submission(tmp_path, known, SAYS)
    table = yaml.safe_load((tmp_path / "contour.yaml").read_text())
    for column in table["dependent_variables"][:2]:
        for entry in column["values"]:
            (error,) = entry["errors"]
            assert error["symerror"] == pytest.approx(0.05 * np.log(10) * entry["value"])


def test_a_spectrum_comes_back_with_its_errors(tmp_path):
    """Contents and covariance of bins of unequal width; what is beside the source is statistical."""
    axis, shift = variable("mass", [0.2, 0.3, 0.6]), np.array([3.0, -4.0])
    stat = np.array([[16.0, 2.0], [2.0, 25.0]])
    cov = stat + np.outer(shift, shift)
    counts = counted([100.0, 200.0], (axis,), cov=cov)
    write_spectrum_record(tmp_path, replace(counts, shifts={"charm": shift}), SAYS)
    table = read.hepdata(tmp_path, 1)
    again = read.published_spectrum(table).spectrum
    np.testing.assert_allclose(again.values, counts.values)
    np.testing.assert_allclose(again.cov, cov)
    errors = {error.label: error.plus for error in table.columns[0].errors}
    np.testing.assert_allclose(errors["stat"], np.sqrt(np.diag(stat)) / [0.1, 0.3])
