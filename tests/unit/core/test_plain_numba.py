"""Numba begins without other packages' extensions, but for code of the user."""

import numpy as np
from numba.core import entrypoints

from gammastar.core.files import skip_numba_entrypoints
from gammastar.select.pairing import usable


def test_extensions_stay_out_unless_a_file_names_code_of_the_user(tmp_path, monkeypatch):
    plain, own = tmp_path / "plain.toml", tmp_path / "own.toml"
    plain.write_text("[select]\nmass = [0.2, 1.0]\n")
    own.write_text('[select]\nevent_functions = ["cuts.py:good"]\n')
    loaded = []
    monkeypatch.setattr(
        entrypoints.importlib_metadata, "entry_points", lambda: loaded.append(1) or {}, raising=True
    )
    for files, expected in (((plain, own), 1), ((plain, tmp_path / "missing.toml"), 0)):
        monkeypatch.setattr(entrypoints, "_already_initialized", False)
        loaded.clear()
        skip_numba_entrypoints(*files)
        entrypoints.init_all()
        assert len(loaded) == expected
    one = np.ones(1)
    assert usable(one, one, one, one, one).all()  # the package's own loops need none of them
