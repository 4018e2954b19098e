"""What a result tells about where it came from, and that `verify` notices every change."""

import json
import os
import shutil

import pytest
from builders import ROOT
from injection import kills

from gammastar import facility
from gammastar.core.errors import StoreError
from gammastar.pipeline.run import run
from gammastar.results.show import verify_results
from gammastar.store.manifest import package_digest, write_manifest


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Results of a selection on chunks, with a copy of the data of its own."""
    base = tmp_path_factory.mktemp("run")
    data = base / "data.root"
    data.write_bytes((ROOT / "data" / "mock" / "na60_data.root").read_bytes())
    steering = kills.steering(base / "steering.toml")
    text = steering.read_text().split("[unfold]")[0]
    start = text.index("files = [")
    steering.write_text(text[:start] + f'files = ["{data}"]' + text[text.index("]", start) + 1 :])
    seen = []
    with facility.open_executor() as executor:
        run(steering, output=base / "out", executor=executor, tell=lambda *what: seen.append(what))
    assert seen[-1][0] == "subtract"
    n = len(list((base / "out" / "chunks" / "pairs").glob("*.parquet")))
    assert ("read", 1.0, f"{n} of {n} chunks, this process") in seen
    return base / "out"


def test_verify_tells_configuration_code_inputs_and_results(folder):
    lines = list(verify_results(folder))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["code"] == package_digest()
    assert len(manifest["configuration"]) == 64
    assert "code: " + package_digest()[:16] + ", that of this installation" in lines
    assert any(line.startswith(f"input {folder.parent / 'data.root'}: ok") for line in lines)
    assert any(line.startswith("chunks: ") for line in lines)
    assert not [line for line in lines if "CHANGED" in line]


@pytest.mark.parametrize("what", ["input", "stage", "chunk", "file"])
def test_verify_notices_every_change(folder, what):
    path = {
        "input": folder.parent / "data.root",
        "stage": folder / "stages" / "select.npz",
        "chunk": next((folder / "chunks" / "pairs").glob("*.parquet")),
        "file": next(path for path in folder.iterdir() if path.is_file() and path.name != "manifest.json"),
    }[what]
    sound = path.read_bytes()
    damaged = bytearray(sound)
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(bytes(damaged))
    try:
        with pytest.raises(StoreError, match=path.name):
            list(verify_results(folder))
    finally:
        path.write_bytes(sound)
    list(verify_results(folder))


@pytest.mark.parametrize("at", [0.0, 4e9])
def test_clocks_that_jump_change_nothing_of_a_resumed_run(folder, at):
    """All files of the results, or the input, from before or after everything else; then it is taken."""
    before = kills.contents(folder)
    for paths in ([folder.parent / "data.root"], [path for path in folder.rglob("*") if path.is_file()]):
        for path in paths:
            os.utime(path, (at, at))
        run(folder.parent / "steering.toml", output=folder, resume=True)
        assert kills.contents(folder) == before
    assert {path.stat().st_mtime for path in folder.glob("stages/*.npz")} == {at}
    list(verify_results(folder))


def test_a_manifest_of_another_version_is_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "old")
    path = tmp_path / "old" / "manifest.json"
    content = json.loads(path.read_text())
    del content["checks"]
    for wrong in (content, content | {"checks": {}, "configuration": 3}):
        path.write_text(json.dumps(wrong))
        with pytest.raises(StoreError, match=r"(?s)manifest\.json: .* or run without --resume"):
            run(folder.parent / "steering.toml", output=tmp_path / "old", resume=True)


@pytest.mark.parametrize("version", ["0.0.1", "99.0"])
def test_kept_stages_of_other_versions_are_told(folder, tmp_path, version):
    """An older or newer library, with a manifest that knows more: the stages are taken, and named."""
    shutil.copytree(folder, tmp_path / "old")
    path = tmp_path / "old" / "manifest.json"
    content = json.loads(path.read_text())
    content["versions"] |= {"numpy": version, "of later": version}
    write_manifest(tmp_path / "old", content)
    run(folder.parent / "steering.toml", output=tmp_path / "old", resume=True)
    after = json.loads(path.read_text())
    assert after["stages"] == content["stages"]
    assert [note for note in after["notes"] if f"of other versions: numpy {version}" in note]


def test_a_run_resumed_with_other_code_says_so(folder, monkeypatch):
    monkeypatch.setattr("gammastar.store.manifest.package_digest", lambda: "0" * 64)
    for path in folder.glob("stages/*.npz"):
        os.utime(path, (0.0, 0.0))
    run(folder.parent / "steering.toml", output=folder, resume=True)
    assert all(path.stat().st_mtime > 0 for path in folder.glob("stages/*.npz"))  # done again
    manifest = json.loads((folder / "manifest.json").read_text())
    assert any("code of gammastar changed" in note for note in manifest["notes"])
    assert any("another one" in line for line in verify_results(folder))
    monkeypatch.undo()
    run(folder.parent / "steering.toml", output=folder)
    assert json.loads((folder / "manifest.json").read_text())["notes"] == []
