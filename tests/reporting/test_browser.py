"""The page in a real browser: silent, without requests, no wider than the screen, sortable."""

import shutil

import pytest
from synthetic import comparison

from fmbpo.reporting.pages import write_report

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
DESK, PHONE = (1280, 900), (390, 844)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip(f"no browser is installed ({', '.join(names)})")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    from PIL import Image

    folder = tmp_path_factory.mktemp("report")
    video = folder / "episode.gif"
    frames = [Image.new("RGB", (96, 72), (40 * i, 90, 160)) for i in range(3)]
    frames[0].save(video, save_all=True, append_images=frames[1:])
    return write_report(comparison(video), folder / "out")[0]


@pytest.fixture
def visit(browser, file):
    """``visit(size, scheme)``: the open page, and what it said, asked for and failed at."""
    pages = []

    def visit(size=DESK, scheme="light"):
        page = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
        pages.append(page)
        said, asked = [], []
        page.on("console", lambda message: said.append((message.type, message.text)))
        page.on("pageerror", lambda error: said.append(("pageerror", str(error))))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri(), wait_until="load")
        return page, said, asked

    yield visit
    for page in pages:
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE])
def test_silent_alone_and_no_wider_than_the_screen(visit, file, size, scheme):
    page, said, asked = visit(size, scheme)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    page.wait_for_function("Array.from(document.images).every(i => i.complete && i.naturalWidth)")
    assert said == []
    assert asked[0] == file.as_uri()
    assert [url for url in asked[1:] if not url.startswith("data:")] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert page.evaluate("getComputedStyle(document.body).overflowX") == "visible"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_are_told_from_the_ground(visit, scheme):
    page, _, _ = visit(DESK, scheme)
    low = page.evaluate(
        """() => {
          const light = (text) => {
            const rgb = text.match(/[\\d.]+/g).map(Number);
            const part = (x) => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
            const [r, g, b] = rgb.slice(0, 3).map((x) => part(x / 255));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const ground = (node) => {
            for (; node; node = node.parentElement) {
              const colour = getComputedStyle(node).backgroundColor;
              if (!/, 0\\)$/.test(colour)) return light(colour);
            }
          };
          const low = [];
          const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
          while (walker.nextNode()) {
            const node = walker.currentNode.parentElement;
            if (!walker.currentNode.textContent.trim()) continue;
            if (node.matches("script, title, desc")) continue;
            const style = getComputedStyle(node);
            const inside = node.closest("svg");
            const words = light(inside ? style.fill : style.color);
            const [a, b] = [words, ground(node)].sort((x, y) => y - x);
            const ratio = (a + 0.05) / (b + 0.05);
            if (ratio < 4.5) low.push([node.tagName, node.className, ratio]);
          }
          return low;
        }"""
    )
    assert low == []


def test_text_in_figures_can_be_read_on_a_telephone(visit):
    page, _, _ = visit(PHONE)
    heights = page.evaluate(
        """Array.from(document.querySelectorAll("main svg")).map((svg) =>
          Math.min(...Array.from(svg.querySelectorAll("text")).map((text) =>
            parseFloat(getComputedStyle(text).fontSize) * svg.getBoundingClientRect().width
              / svg.viewBox.baseVal.width)))"""
    )
    assert len(heights) == 12
    assert min(heights) > 10


def test_nothing_in_a_figure_leaves_it(visit):
    page, _, _ = visit(DESK)
    outside = page.evaluate(
        """Array.from(document.querySelectorAll("main svg")).flatMap((svg) => {
          const box = svg.getBoundingClientRect();
          return Array.from(svg.querySelectorAll("text")).filter((text) => {
            const own = text.getBoundingClientRect();
            return own.left < box.left - 1 || own.right > box.right + 1
              || own.top < box.top - 1 || own.bottom > box.bottom + 1;
          }).map((text) => text.textContent);
        })"""
    )
    assert outside == []


def test_the_first_screens_answer(visit):
    """Question, answers, differences, returns and caveats: one screen of a desk, two of a phone."""
    for size, screens in ((DESK, 1), (PHONE, 2.3)):
        page, _, _ = visit(size)
        first = page.locator(".first").first
        assert first.locator("figure").count() == 2
        for part in ("h1", ".first .answers", ".first .caveats", ".first svg >> nth=1"):
            box = page.locator(part).first.bounding_box()
            assert box["y"] + box["height"] <= screens * size[1], (size, part, box)


def column(page, table, place):
    return table.locator(f"tbody tr > :nth-child({place + 1})").evaluate_all(
        "cells => cells.map(c => c.dataset.value ?? c.textContent.trim())"
    )


def test_a_header_sorts_by_number(visit):
    page, said, _ = visit()
    table = page.locator("#s1 table.sortable", has_text="reacher-easy").first
    head = table.locator("thead th[data-column='1']")
    before = [float(x) for x in column(page, table, 1)]
    assert before != sorted(before)
    head.get_by_role("button").click()
    assert [float(x) for x in column(page, table, 1)] == sorted(before)
    assert head.get_attribute("aria-sort") == "ascending"
    head.get_by_role("button").click()
    assert [float(x) for x in column(page, table, 1)] == sorted(before, reverse=True)
    assert head.get_attribute("aria-sort") == "descending"
    # What has no number comes last, upwards and downwards; rows stay whole.
    pwm = table.locator("thead th[data-column='9']")
    for order in ([414.5, 991.7, 995.4], [995.4, 991.7, 414.5]):
        pwm.get_by_role("button").click()
        found = column(page, table, 9)
        assert [float(x) for x in found[:3]] == order
        assert found[3] == "–"
    assert column(page, table, 0)[0] == "walker-stand"
    assert table.locator("[aria-sort]").count() == 1
    assert said == []


def test_negative_numbers_are_sorted_as_numbers(visit):
    page, _, _ = visit()
    table = page.get_by_role("table", name="Effects by task, in returns").first
    before = [float(x) for x in column(page, table, 2)]
    assert min(before) < 0 < max(before)
    table.locator("thead th[data-column='2']").get_by_role("button").click()
    assert [float(x) for x in column(page, table, 2)] == sorted(before)


def test_a_header_sorts_by_keyboard_and_by_word(visit):
    page, _, _ = visit()
    table = page.locator("#s1 table.sortable", has_text="reacher-easy").first
    button = table.locator("thead th[data-column='0']").get_by_role("button")
    button.focus()
    page.keyboard.press("Enter")
    names = column(page, table, 0)
    assert [name[:4] for name in names] == ["chee", "pend", "reac", "walk"]
    page.keyboard.press("Space")
    assert column(page, table, 0) == names[::-1]
    assert button.evaluate("b => b === document.activeElement")
