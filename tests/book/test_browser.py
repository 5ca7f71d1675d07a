"""The built pages in a real browser, cut off from every other host."""

import functools
import http.server
import io
import shutil
import threading

import pandas as pd
import pytest
from bookfiles import read_pages
from PIL import Image

import imd_helpers as imd

pytestmark = pytest.mark.browser
PAGES = [page.name for page in read_pages()]
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = [
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # WebGL in software, for machines without a graphics card
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]
PATIENCE_MS = 120_000  # a loaded machine draws WebGL in software slowly
each_page = pytest.mark.parametrize("name", PAGES)


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium here: install one to run the browser tests (apt install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def server(html):
    """The site on the loopback, as a web server would give it."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(html))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()


class Visit:
    """One page, opened with all other hosts blocked; remembers what went wrong."""

    def __init__(self, browser, root, name, **options):
        self.outside, self.failed, self.errors = [], [], []
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(PATIENCE_MS)
        self.context.route("**/*", functools.partial(self.guard, root))
        self.page = self.context.new_page()
        self.page.on("requestfailed", lambda request: self.failed.append(request.url))
        self.page.on("response", self.note_status)
        self.page.on("console", self.note_message)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(f"{root}{name}.html", wait_until="load", timeout=PATIENCE_MS)

    def guard(self, root, route):
        if route.request.url.startswith((root, "data:", "blob:")):
            route.continue_()
        else:
            self.outside.append(route.request.url)
            route.abort()

    def note_status(self, response):
        if response.status >= 400:
            self.failed.append(f"{response.status} {response.url}")

    def note_message(self, message):
        if message.type == "error":
            self.errors.append(message.text)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()

    def check_silence(self):
        assert self.outside == [], "asked another host"
        assert self.failed == [], "requests failed"
        assert self.errors == [], "the console shows errors"

    def check_mathematics(self):
        written = self.page.locator("article .math").count()
        if written:
            self.page.wait_for_function(
                "n => document.querySelectorAll('article mjx-container').length >= n", arg=written
            )
        raw = self.page.evaluate(
            """() => { const copy = document.querySelector('article').cloneNode(true);
                 copy.querySelectorAll('pre, code, mjx-container, script').forEach(e => e.remove());
                 return copy.textContent; }"""
        )
        assert "\\(" not in raw
        assert "\\[" not in raw

    def check_viewers(self):
        viewers = self.page.locator("[id^='3dmolviewer_']")
        for index in range(viewers.count()):
            viewer = viewers.nth(index)
            viewer.scroll_into_view_if_needed()
            canvas = viewer.locator("canvas").first
            canvas.wait_for(state="visible")
            self.page.wait_for_timeout(500)
            picture = Image.open(io.BytesIO(canvas.screenshot())).convert("RGB")
            colours = picture.getcolors(maxcolors=picture.width * picture.height)
            assert len(colours) > 100, "the 3-D view is blank"
            label = viewer.locator("xpath=ancestor::*[@role='img'][1]").get_attribute("aria-label")
            assert label, "the 3-D view has no description"


def luminance(page, element, what):
    """Brightness from 0 to 1 of a colour that the browser computed."""
    colour = page.evaluate(
        f"getComputedStyle(document.querySelector('{element}')).{what}.match(/[0-9.]+/g).map(Number)"
    )
    return (0.2126 * colour[0] + 0.7152 * colour[1] + 0.0722 * colour[2]) / 255


@each_page
@pytest.mark.parametrize("origin", ["file", "http"])
def test_a_page_draws_everything_by_itself(browser, html, server, name, origin):
    root = server if origin == "http" else f"{html.as_uri()}/"
    with Visit(browser, root, name, viewport={"width": 1300, "height": 900}) as visit:
        visit.check_mathematics()
        visit.check_viewers()
        assert luminance(visit.page, "body", "backgroundColor") > 0.9
        visit.check_silence()


@each_page
def test_a_page_fits_a_phone_in_the_dark(browser, html, name):
    phone = {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"}
    with Visit(browser, f"{html.as_uri()}/", name, **phone) as visit:
        visit.check_mathematics()
        wide = visit.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 390, "the page scrolls sideways"
        assert visit.page.evaluate("document.documentElement.dataset.theme") == "dark"
        assert luminance(visit.page, "body", "backgroundColor") < 0.2
        assert luminance(visit.page, "article p", "color") > 0.4
        visit.check_silence()


def test_search_finds_a_word_from_the_disk(browser, html):
    with Visit(browser, f"{html.as_uri()}/", "search") as visit:
        visit.page.goto(f"{html.as_uri()}/search.html?q=crystal")
        visit.page.wait_for_selector("ul.search li a")
        # from the disk the browser refuses to read other pages for the excerpts; results are there
        assert visit.outside == []


def test_a_table_reads_as_prose_speaks_of_it(browser, repo, tmp_path):
    """Words left, no row for the index's name alone, a dash for no number, no minus before zero."""
    frame = pd.DataFrame(
        {
            "made": ["in turn", "at once"],
            "share": ["0.97 (0.95 to 0.98)", "-0.00"],
            "runs": ["7.1 / 6.7", "0 / 12 % of 9"],
            "n": [float("inf"), None],
        },
        index=pd.Index(["GAN", "lot"], name="source"),
    )
    script = (repo / "book" / "_assets" / "imd.js").as_uri()
    file = tmp_path / "table.html"
    file.write_text(f"<meta charset=utf-8><script src='{script}'></script>{frame.to_html()}")
    page = browser.new_page()
    page.goto(file.as_uri())
    rows = page.locator("tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )
    assert rows == [
        ["source", "made", "share", "runs", "n"],
        ["GAN", "in turn", "0.97 (0.95 to 0.98)", "7.1\u00a0/\u00a06.7", "∞"],
        ["lot", "at once", "0.00", "0\u00a0/\u00a012 % of 9", "–"],
    ]
    assert page.locator(".imd-ends").all_text_contents() == ["(0.95 to 0.98)"]
    assert page.locator("td.imd-words").all_text_contents() == ["in turn", "at once"]
    page.close()


def test_a_slider_moves_by_key_and_by_touch(browser, monkeypatch, tmp_path):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda html: shown.append(html.data))
    imd.show.slides(lambda axes, i: axes[0].plot([0, i]), ["one", "two", "three"], alt="lines")
    file = tmp_path / "slides.html"
    file.write_text(f"<meta charset=utf-8>{shown[0]}")
    context = browser.new_context(offline=True, has_touch=True)
    page = context.new_page()
    page.goto(file.as_uri())
    slider, said, seen = page.locator("input"), page.locator("output"), page.locator("img:visible")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert said.inner_text() == seen.get_attribute("title") == "two"
    slider.tap(position={"x": 2, "y": 5})
    assert said.inner_text() == seen.get_attribute("title") == "one"
    context.close()
