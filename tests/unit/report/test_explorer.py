"""The interactive plane: self-contained, complete, and alive in a browser."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import escape, unescape

import numpy as np
import pytest

from gammastar.core.errors import PhysicsError
from gammastar.infer import Search, upper_limit
from gammastar.infer.counting_search import SearchOptions
from gammastar.report import Plane2D, explorer

BROWSER = next(
    (name for name in ("chromium", "chromium-browser", "google-chrome") if shutil.which(name)), None
)


@pytest.fixture(scope="module")
def plane():
    mass, coupling = np.linspace(0.25, 1.05, 9), np.geomspace(1e-9, 1e-3, 61)
    peak = np.exp(-(np.log(coupling / 1e-6) ** 2))
    signal = 100 * (1.1 - mass)[:, None] * np.where(peak > 1e-6, peak, 0.0)
    return Plane2D(mass, coupling, signal, 0.25 * signal, (2.3, 3.0))


@pytest.fixture(scope="module")
def page(plane):
    return explorer("Reach <of> a mock", {"dump": plane}, cl=(0.9, 0.95), mock=True)


def test_page_is_self_contained_and_says_mock(page):
    assert "http" not in page
    assert "<b>MOCK</b>" in page
    assert "Reach &lt;of&gt; a mock" in page
    assert "$" + "title" not in page


def test_data_survive(page, plane):
    found = json.loads(re.search(r'id="data">(.*?)</script>', page).group(1))
    content = found["detectors"]["dump"]
    events = np.array([[np.nan if x is None else 10**x for x in row] for row in content["log_signal"]])
    known = plane.signal > 0
    assert np.allclose(events[known], plane.signal[known], rtol=2e-3)
    assert np.isnan(events[~known]).all()
    assert np.allclose(np.array(content["fraction"])[known], 0.25)


def test_limits_of_others_and_the_way_back(plane):
    corners = np.array([[0.3, 1e-6], [0.5, 2.00001e-6], [0.4, 1e-5]])
    text = explorer(
        "x", {"d": replace(plane, excluded=[("NA62", corners)])}, cl=(0.9, 0.95), mock=False, back="r.html"
    )
    (found,) = json.loads(re.search(r'id="data">(.*?)</script>', text).group(1))["detectors"].values()
    assert found["excluded"] == [["NA62", [[0.3, 1e-6], [0.5, 2e-6], [0.4, 1e-5]]]]
    assert '<a href="r.html">' in text


def test_wrong_planes_are_refused(plane):
    with pytest.raises(PhysicsError, match="no plane"):
        explorer("x", {}, cl=(0.9,), mock=False)
    with pytest.raises(PhysicsError, match="2 limits for 1"):
        explorer("x", {"dump": plane}, cl=(0.9,), mock=False)
    with pytest.raises(PhysicsError, match=r"Plane2D.limit has shape \(3,\)"):
        Plane2D(plane.mass, plane.coupling, plane.signal, plane.signal, (np.ones(3),))
    with pytest.raises(PhysicsError, match=r"Plane2D.signal has shape \(2, 2\)"):
        Plane2D(plane.mass, plane.coupling, np.ones((2, 2)), plane.signal, (2.3,))


def test_limits_of_a_run_follow_its_uncertainties():
    fields = {"background": 0.5, "background_sigma": 0.3, "signal_sigma": 0.18, "assumption": ""}
    unused = dict.fromkeys(("detector", "reach", "measured", "fraction"))
    limit = upper_limit(0.5, 0.3, "masked", signal_sigma=0.18, cl=0.9, method="exact")
    one = Search(**fields, **unused, limit=limit, options=SearchOptions(method="exact"))
    spread = np.array([[0.0, 0.1], [0.2, 0.4]])
    along = replace(one, spreads={"kinematics": spread}).median_limit(0.95)
    for found, sigma in zip(along.ravel(), np.hypot(0.18, spread).ravel(), strict=True):
        alone = upper_limit(0.5, 0.3, "masked", signal_sigma=sigma, cl=0.95, method="exact")
        assert found == pytest.approx(alone.expected[2], rel=1e-3)
    assert one.median_limit(0.95) == pytest.approx(along[0, 0])


def dom(address):
    """Return a page as Chromium has it after its scripts ran."""
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"file://{address}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False).stdout


ACTIONS = """
<script>
const found = [], r = canvas.getBoundingClientRect(), a0 = axes(state().found), k0 = r.width / canvas.width;
function point_at(m, g) {
  const place = {clientX: r.left + k0 * a0.x(m), clientY: r.top + k0 * a0.y(Math.log10(g)), bubbles: true};
  canvas.dispatchEvent(new MouseEvent("mousemove", place));
  found.push(pick("here").textContent);
}
function choose(id, index) {
  pick(id).selectedIndex = index;
  pick(id).dispatchEvent(new Event("change"));
  found.push(pick("here").textContent);
}
point_at(0.35, 1e-6); choose("mode", 1); choose("cl", 1);
canvas.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight"})); found.push(pick("here").textContent);
choose("detector", 1); point_at(0.35, 1e-6);
pick("names").querySelector('[data-name="dump"]').click();
found.push(pick("detector").value, pick("names").querySelector('[aria-pressed="true"]').textContent);
const seen = document.createElement("pre"); seen.id = "seen"; seen.textContent = JSON.stringify(found);
document.body.append(seen);
</script>
"""


GATHER = """
<script>
addEventListener("load", () => {
  for (const frame of document.querySelectorAll("iframe")) {
    if (frame.dataset.point) {
      frame.contentWindow.location.hash = frame.dataset.point;
      frame.contentWindow.dispatchEvent(new HashChangeEvent("hashchange"));
    }
    const seen = document.createElement("pre");
    seen.textContent = frame.contentDocument.documentElement.outerHTML;
    document.body.append(seen);
  }
});
</script>
"""


@pytest.fixture(scope="module")
def frames(page, plane, tmp_path_factory):
    """A page at a point and three in frames of it, as the browser has them: denser masses, two, theory."""
    mass = np.sort(np.append(plane.mass, [0.77, 0.775, 0.78]))
    signal = np.outer(1.1 - mass, 100 * np.exp(-(np.log(plane.coupling / 1e-6) ** 2)))
    limit = 2.3 + 10.0 * np.broadcast_to(mass[:, None], signal.shape)
    dense = Plane2D(mass, plane.coupling, signal, signal, (limit,))
    other = Plane2D(plane.mass, plane.coupling, 2 * plane.signal, plane.signal, (4.0, 5.0))
    theory = Plane2D(plane.mass, plane.coupling, plane.signal, None, (2.3, 3.0))
    two = explorer("Two detectors", {"dump": plane, "other": other}, cl=(0.9, 0.95), mock=True)
    pages = (
        ("0.775,1e-6", explorer("Denser", {"dump": dense}, cl=(0.9,), mock=True)),
        ("", two.replace("</body>", ACTIONS + "</body>")),
        ("0.35,1e-6", explorer("Theory", {"dump": theory}, cl=(0.9, 0.95), mock=False)),
    )
    shown = (
        f'<iframe width="1200" height="800" data-point="{point}" srcdoc="{escape(page)}"></iframe>'
        for point, page in pages
    )
    path = tmp_path_factory.mktemp("explorer") / "frames.html"
    path.write_text(page.replace("</body>", f"{''.join(shown)}{GATHER}</body>"))
    opened = dom(f"{path}#0.35,1e-6")
    found = [opened, *map(unescape, re.findall(r"<pre>(.*?)</pre>", opened, re.DOTALL))]
    return dict(zip(("opened", "denser", "two", "theory"), found, strict=True))


@pytest.mark.skipif(BROWSER is None, reason="no Chromium at hand")
def test_point_shows_events_limit_and_fraction(frames, plane):
    """The page that is opened at a point."""
    text = re.search(r"<output.*?>(.*?)</output>", frames["opened"], re.DOTALL).group(1)
    assert plane.signal[1, 30] == pytest.approx(75.0, rel=2e-3)
    assert "75.0 events expected" in text
    assert "limit 2.300" in text
    assert "25.0 % in the measured domain" in text
    assert "; reached" in text


@pytest.mark.skipif(BROWSER is None, reason="no Chromium at hand")
def test_limit_along_the_plane_and_denser_masses(frames):
    text = re.search(r"<output.*?>(.*?)</output>", frames["denser"], re.DOTALL).group(1)
    assert "0.775 GeV" in text
    assert "32.5 events expected, limit 10.050" in text  # 100 × (1.1 − 0.775); 2.3 + 7.75
    assert "; reached" in text


@pytest.mark.skipif(BROWSER is None, reason="no Chromium at hand")
def test_pointer_keys_and_switches(frames):
    text = re.search(r'<pre id="seen">(.*?)</pre>', frames["two"], re.DOTALL).group(1)
    hover, measured, stricter, right, switched, elsewhere, chosen, pressed = json.loads(text)
    assert "75.0 events expected, limit 2.300, 25.0 % in the measured domain; reached" in hover
    assert re.search(r"18\.[78] events expected, limit 2\.300", measured)  # 0.25 × 75
    assert re.search(r"18\.[78] events expected, limit 3\.000", stricter)  # 95 % CL
    assert re.search(r"0\.450 GeV.*16\.[23] events expected", right)  # 0.25 × 100 × (1.1 − 0.45)
    assert switched == ""  # another detector has another grid
    assert "limit 5.000, 50.0 % in the measured domain" in elsewhere
    assert chosen == pressed == "dump"  # by its name beside its line


@pytest.mark.skipif(BROWSER is None, reason="no Chromium at hand")
def test_theory_claims_no_measured_part(frames):
    shown = frames["theory"]
    text = re.search(r"<output.*?>(.*?)</output>", shown, re.DOTALL).group(1)
    assert "75.0 events expected, limit 2.300, production from theory; reached" in text
    assert "in the measured domain" not in text
    assert re.search(r'<label id="which" hidden', shown)  # nothing to switch to
    assert "no lepton pair was measured" in re.search(r'<span id="domain">(.*?)</span>', shown).group(1)
