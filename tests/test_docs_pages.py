"""The explorer in a browser, and the pages as built: by `make docs`."""

import html
import json
import os
import pathlib
import random
import re
import shutil
import subprocess

import larq_filters as lqf

import numpy as np
import pytest

DOCS = pathlib.Path(__file__).parent.parent / "docs"
BUILT = DOCS.parent / "build" / "docs"
STRICT = os.environ.get("LQF_CI") == "1"  # where everything is installed, nothing may be missing


def need(there, sentence):
    if not there:
        (pytest.fail if STRICT else pytest.skip)(sentence)


def dom(page):
    """A page as it is after its scripts ran, in a headless browser."""
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    need(browser, "No Chromium is installed: apt-get install chromium.")
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000")
    done = subprocess.run(
        [browser, *options, f"--user-data-dir={page.parent}/profile", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# What moves the sliders, and notes what the page then shows and draws.
DRIVER = """
const root = document.querySelector(".explorer");
const answers = SETTINGS.map((moves) => {
  for (const [name, value] of Object.entries(moves)) {
    const control = root.querySelector(`[data-name="${name}"]`);
    control.value = value;
    control.dispatchEvent(new Event("input"));
  }
  const shown = JSON.parse(root.dataset.shown);
  const pair = explained(shown).pair;
  const ages = [0, 1, 2, 5, 30, 400], frequencies = [1e-4, 1e-2, 0.5, 3];
  const text = {};
  root.querySelectorAll("[data-name]").forEach((e) => { text[e.dataset.name] = e.textContent; });
  return {
    shown,
    text,
    impulse: ages.map((n) => impulse(pair, n) / impulse(pair, 1)),
    gain: frequencies.map((w) => gain(pair, w) / gain(pair, 0.1)),
    curves: [...root.querySelectorAll(".curve")].map((c) => c.getAttribute("points")),
  };
});
const out = document.createElement("pre");
out.id = "answers";
out.textContent = JSON.stringify(answers);
document.body.append(out);
"""


def settings():
    """20 positions of the sliders; of the first 12 a filter is set, of the last 8 latent SGD."""
    draw = random.Random(5)
    rows = []
    for i in range(20):
        latent = {"eta": draw.randint(0, 120), "lambda": draw.randint(-1, 100)}
        latent |= {"beta": draw.randint(0, 60), "coupled": "coupled" if i % 2 else "decoupled"}
        times = {"perEpoch": draw.randint(1, 2000), "epochs": draw.randint(1, 300)}
        ends = {"alpha": draw.randint(20, 159), "gamma": draw.randint(0, 60)}
        rows.append(times | latent if i >= 8 else times | {"coupled": "decoupled"} | ends)
    rows[8] |= {"lambda": -1}
    rows[9] |= {"eta": 120, "lambda": 95, "beta": 45}  # rings
    rows[10] |= {"beta": 0}
    return rows


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    page = tmp_path_factory.mktemp("explorer") / "page.html"
    script = (DOCS / "_static" / "explorer.js").read_text("utf-8")
    driver = f"const SETTINGS = {json.dumps(settings())};{DRIVER}"
    page.write_text(
        f'<!doctype html><meta charset="utf-8"><body>{(DOCS / "explorer.html").read_text("utf-8")}'
        f"<script>{script}</script><script>{driver}</script>",
        "utf-8",
    )
    found = re.search(r'<pre id="answers">(.*?)</pre>', dom(page), re.DOTALL)
    return json.loads(html.unescape(found[1]))


def expected(shown):
    return lqf.recipes.explain(
        shown["eta"],
        shown["beta"],
        shown["lambda"],
        decoupled=not shown["coupled"],
        steps=shown["steps"],
        steps_per_epoch=shown["perEpoch"],
        print_fn=None,
    )


@pytest.mark.parametrize("i", range(20))
def test_the_explorer_shows_what_explain_says(answers, i):
    shown, e = answers[i]["shown"], expected(answers[i]["shown"])
    for name in ("alpha", "gamma", "alpha_time_constant", "gamma_time_constant", "ringing_period"):
        value = float("inf") if shown[name] == "inf" else shown[name]
        assert value == (None if getattr(e, name) is None else pytest.approx(getattr(e, name)))
    forgotten = float("inf") if shown["forgotten_after"] == "inf" else shown["forgotten_after"]
    assert forgotten == pytest.approx(e.forgotten_after, abs=1)
    assert shown["remaining"] == pytest.approx(e.remaining, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("i", range(20))
def test_the_explorer_draws_the_filter_that_explain_gives(answers, i):
    e = expected(answers[i]["shown"])
    response = e.linear.impulse_response(401)[[0, 1, 2, 5, 30, 400]]
    np.testing.assert_allclose(
        answers[i]["impulse"], response / response[1], rtol=1e-5, atol=1e-7 * np.abs(response).max()
    )
    _, gain = e.linear.frequency_response([1e-4, 1e-2, 0.5, 3, 0.1])
    np.testing.assert_allclose(answers[i]["gain"], np.abs(gain[:4] / gain[4]), rtol=1e-5)
    for points in answers[i]["curves"]:
        assert "NaN" not in points and len(points.split()) > 20


def test_noise_flips_are_those_of_filtered_white_noise(answers):
    """The correlation of neighbouring outputs, from the impulse response where it can be summed."""
    summed = 0
    for answer in answers:
        shown, e = answer["shown"], expected(answer["shown"])
        if shown["lambda"] == 0:
            assert shown["noise_flips"] == 0
            continue
        n = min(3_000_000, int(40 * max(e.alpha_time_constant, e.gamma_time_constant, 1)) + 10)
        h = e.linear.impulse_response(n)
        if abs(h[-1]) < 1e-9 * np.abs(h).max():
            unlike = ((h - np.append(0, h[:-1])) ** 2).sum() + h[-1] ** 2  # 2(1 − ρ) of the energy
            angle = 2 * np.arcsin(np.sqrt(unlike / (h**2).sum() / 4))
            assert shown["noise_flips"] == pytest.approx(angle / np.pi, rel=1e-4)
            summed += 1
        else:  # too slow to sum, and so in closed form
            smoothed = 1 if shown["coupled"] else 1 - shown["beta"]
            unlike = shown["eta"] * shown["lambda"] * smoothed / (1 + shown["beta"])
            assert shown["noise_flips"] == pytest.approx(np.sqrt(2 * unlike) / np.pi, rel=0.01)
    assert summed > 8


def test_the_settings_are_of_all_kinds(answers):
    shown = [answer["shown"] for answer in answers]
    assert {one["coupled"] for one in shown} == {True, False}
    assert any(one["ringing_period"] and one["alpha"] is None for one in shown)
    assert any(one["lambda"] == 0 for one in shown) and any(one["beta"] == 0 for one in shown)
    assert sum(one["noise_flips"] > 1e-3 for one in shown) > 3
    assert all(answer["text"]["forgets"] and answer["text"]["filter"] for answer in answers)


@pytest.fixture(scope="module")
def pages():
    found = sorted(BUILT.rglob("*.html"))
    need(found, "The pages are not built: make docs.")
    sources = [*DOCS.rglob("*.*"), *pathlib.Path(lqf.__file__).parent.rglob("*.py")]
    newest = max(path.stat().st_mtime for path in sources)
    built = (BUILT / "index.html").stat().st_mtime
    need(built > newest, "The pages were built before the last change: make docs.")
    return found


def test_pages_load_nothing_from_elsewhere(pages):
    """They open without a network, and tell nobody that they were opened."""
    loads = re.compile(r"<(?:script|img|iframe|link)\b[^>]*?\b(?:src|href)=[\"'](https?:)?//[^>]*>")
    styles = re.compile(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//")
    for page in pages:
        found = [tag[0] for tag in loads.finditer(page.read_text("utf-8"))]
        assert [tag for tag in found if 'rel="canonical"' not in tag] == [], page
    for sheet in BUILT.rglob("*.css"):
        assert not styles.search(sheet.read_text("utf-8")), sheet


def test_no_page_shows_a_picture_twice(pages):
    for page in pages:
        pictures = re.findall(r'<img\b[^>]*\bsrc="([^"]+)"', page.read_text("utf-8"))
        assert len(pictures) == len(set(pictures)), page
        assert all((page.parent / picture).exists() for picture in pictures), page


def test_every_public_name_is_on_a_page_of_the_api(pages):
    text = "".join(page.read_text("utf-8") for page in pages if page.parent.name == "api")
    for module in [*(getattr(lqf, name) for name in lqf.__all__), lqf.tuning]:
        for name in module.__all__:
            assert f'id="{module.__name__}.{name}"' in text, f"{module.__name__}.{name}"


def test_the_explorer_as_built_runs(pages, tmp_path):
    shutil.copytree(BUILT, tmp_path / "docs")
    text = dom(tmp_path / "docs" / "explorer.html")
    assert "after 460,515 steps = 1,181 epochs" in text  # as README's command says
