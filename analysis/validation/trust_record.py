"""A result used without its ntuples: reinterpretation, tables, and the page with mass and coupling."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gammastar.core.files import data_path
from gammastar.core.signal import SignalPlanes
from gammastar.pipeline.cache import load_arrays
from gammastar.pipeline.run import run
from gammastar.results.start import reinterpret

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "results" / "trust"
DETECTOR = "ship_ecn3"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MODEL = """from gammastar.core.files import data_path
from gammastar.physics.qed import RTable
from gammastar.predict import DarkPhoton


def model():
    return DarkPhoton(RTable.read(data_path("measurements/r_ratio.csv")))
"""
POINTS = ((0.25, 1e-7), (0.4, 3e-7), (0.6, 1e-7), (0.8, 5e-8), (1.0, 2e-7))


def record_rows() -> Iterator[dict]:
    """From the record of the small run, which is made if it is not there."""
    results = FOLDER / "small"
    if not (results / "extrapolation.safetensors").is_file():
        run(ROOT / "analysis" / "na60_dimuon" / "small.toml", output=results)
    yield from reinterpretation(results)
    yield explored(results)


def reinterpretation(results: Path) -> Iterator[dict]:
    """Compare with the run itself: its own detector and model, given as files."""
    (FOLDER / "my_model.py").write_text(MODEL)
    shutil.copy(data_path(f"detectors/{DETECTOR}.toml"), FOLDER / "my_detector.toml")
    start = time.process_time()
    again = reinterpret(
        results,
        model=f"{FOLDER / 'my_model.py'}:model",
        detector=FOLDER / "my_detector.toml",
        output=FOLDER / "again",
        tell=lambda *_: None,
    )
    seconds = time.process_time() - start
    files = again / "reach.csv", results / f"reach_{DETECTOR}.csv"
    ours, theirs = (edges(file) for file in files)
    error = np.hypot(*(edges(file, "_error") for file in files))  # other detectors ask for other particles
    apart = np.abs(ours - theirs) / error
    yield {
        "quantity": f"reinterpretation, {DETECTOR}: largest distance of an edge to the original run, in σ of "
        "the finite samples",
        "ours": float(np.nanmax(apart)),
        "expected": 0.0,
        "tolerance": 4.0,
        "source": f"the run with ntuples; at most {np.nanmax(np.abs(ours / theirs - 1.0)):.2g} in ε",
    }
    yield {
        "quantity": "reinterpretation: masses with an edge in one of both only",
        "ours": float((np.isfinite(ours) != np.isfinite(theirs)).sum()),
        "expected": 0.0,
        "tolerance": 0.0,
        "source": "the run with ntuples",
    }
    yield {
        "quantity": "reinterpretation with report: CPU time [s], less than a minute",
        "ours": seconds,
        "expected": 30.0,
        "tolerance": 30.0,
        "source": "time.process_time",
    }


def edges(path: Path, suffix: str = "") -> np.ndarray:
    """Return both edges of every mass, or their errors."""
    with path.open(encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["part"] == "all"]
    return np.array(
        [[float(row[k + suffix] or "nan") for k in ("coupling_low", "coupling_high")] for row in rows]
    )


def explored(results: Path) -> dict:
    """Events that the page shows under the pointer, against the arrays of the run."""
    row = {
        "quantity": f"explorer in headless Chromium: largest |shown/computed − 1| of {len(POINTS)} points",
        "expected": 0.0,
        "tolerance": 0.01,
        "source": "stages/accept.npz; three digits are shown",
    }
    browser = next((name for name in BROWSERS if shutil.which(name)), None)
    if browser is None:
        return row | {"ours": np.nan, "skipped": "no Chromium at hand"}
    common = [browser, "--headless", "--no-sandbox", "--disable-gpu"]
    page = FOLDER / "explorer_of_detector.html"
    text = (results / "explorer.html").read_text()
    choose = f"""<script>pick("detector").selectedIndex = 1;
pick("detector").dispatchEvent(new Event("change"));
const a0 = axes(state().found), r0 = canvas.getBoundingClientRect(), k0 = r0.width / canvas.width;
const shown = {json.dumps(POINTS)}.map(([m, g]) => {{ canvas.dispatchEvent(new MouseEvent("mousemove", {{
  clientX: r0.left + k0 * a0.x(m), clientY: r0.top + k0 * a0.y(Math.log10(g))}}));
  return [point, pick("here").textContent]; }});
const kept = document.createElement("pre"); kept.id = "shown"; kept.hidden = true;
kept.textContent = JSON.stringify(shown); document.body.append(kept);</script></body>"""
    page.write_text(text.replace("</body>", choose))
    dom = subprocess.run(
        [*common, "--dump-dom", f"file://{page}"], capture_output=True, text=True, timeout=120, check=False
    ).stdout
    picture = [
        *common,
        "--window-size=1150,1000",
        f"--screenshot={FOLDER / 'explorer.png'}",
        f"file://{page}",
    ]
    subprocess.run(picture, capture_output=True, timeout=120, check=False)
    found = re.search(r'<pre id="shown"[^>]*>(.*?)</pre>', dom, re.DOTALL)
    planes = SignalPlanes.from_arrays(load_arrays(results / "stages" / "accept.npz"))
    signal = planes.by_detector[DETECTOR].signal
    if found is None or not (FOLDER / "explorer.png").is_file():
        print("explorer: the browser gave no answer", file=sys.stderr)
        return row | {"ours": np.nan}
    ratios = []
    for (i, k), words in json.loads(found[1]):
        events = float(re.search(r": ([0-9.e+]+) events", words)[1])
        ratios.append(events / signal[i, k] - 1.0)
    return row | {"ours": float(np.max(np.abs(ratios)))}
