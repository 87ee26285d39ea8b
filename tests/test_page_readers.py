"""The web page in headless Chromium: what goes wrong, and whether everybody can read it."""

import re

import pytest
from client_catalogue import WordEncoder
from page_reader import Page
from served import KEY, KEYS, served

from benchmarks.browser import look_through
from serving_client import PinClient
from serving_client.http.settings import Settings

pytest_plugins = ("client_repo", "page_fixtures")
ENTER = "\ue007"


# --- what goes wrong ---


def test_an_error_says_what_the_service_said_and_offers_to_try_again(page):
    page.open(q="velvet sofa", space="nope").one(".notice.bad")
    assert "no space 'nope'; there are: live" in page.text(".message")
    assert re.search(r"Code bad_request, request \S{8,}", page.text(".notice.bad .muted"))
    assert page.js("return document.querySelector('.notice.bad').role") == "alert"
    page.js("history.replaceState(null, '', '?q=velvet+sofa'); dispatchEvent(new PopStateEvent('popstate'))")
    page.told("10 pins for")


def test_a_service_that_is_gone_is_said_and_comes_back(chromium, page_shop):
    look_through(chromium, 1200, 900)
    with PinClient(page_shop.root, encoder=WordEncoder()) as client:
        with served(client) as (url, _):
            page = Page(chromium, url).open()
            page.one("#answer .empty")
        page.type("#q", "velvet sofa", ENTER)
        assert "does not answer" in page.one(".notice.bad").text
        with served(client) as (again, _):
            page.url = again
            page.open(q="velvet sofa").told("10 pins for")


def test_a_degraded_answer_says_so(chromium, built):
    look_through(chromium, 1200, 900)
    with PinClient(built, encoder=WordEncoder()) as client, served(client) as (url, _):
        page = Page(chromium, url).open(q="velvet sofa")
        assert "no_student: release 2 names no student bundle" in page.one("#answer .notice.warn").text
        assert page.pins()


def test_a_key_is_asked_for_and_kept_in_this_tab_only(chromium, page_shop):
    look_through(chromium, 1200, 900)
    settings = Settings(keys=KEYS)
    with PinClient(page_shop.root, encoder=WordEncoder()) as client, served(client, settings) as (url, _):
        page = Page(chromium, url).open(q="velvet sofa")
        page.until(lambda: page.js("return document.activeElement.id") == "key-text", "the key has no focus")
        assert page.pins() == []
        page.press("wröng", ENTER)
        page.until(lambda: "beyond ASCII" in page.text("#key-why"), "a key that no header takes is sent")
        page.type("#key-text", "a-wrong-key-0000000", ENTER)
        page.until(lambda: "not known" in page.text("#key-why"), "a wrong key is not said")
        page.type("#key-text", KEY, ENTER)
        page.told("10 pins for")
        page.gone("#key")
        assert page.js("return [localStorage.length, Object.values(sessionStorage)]") == [0, [KEY]]
        assert page.js("return document.cookie") == ""
        assert KEY not in page.driver.current_url
        page.driver.refresh()
        page.told("10 pins for")
        page.one("#status button").click()
        page.one("#key")
        assert page.js("return sessionStorage.length") == 0
        assert page.pins() == []


def test_only_web_addresses_become_links_or_pictures(page):
    page.open()
    hostile = [
        "javascript:alert(1)",
        "JAVASCRIPT:x",
        "data:text/html,x",
        "file:///etc/passwd",
        "//x.org",
        "x",
        "",
        None,
    ]
    kept = page.use("dom.js", "a[0].map((t) => m.webAddress(t)?.href ?? null)", [*hostile, "http://a.org/b c"])
    assert kept == [None] * len(hostile) + ["http://a.org/b%20c"]
    draw = """(document.querySelector('#answer').replaceChildren(...a[0].map((pin_text__image_uri, n) => m.card(
      {pin_id: `p${n}`, content: {pin_text__title: 'sofa', pin_text__image_uri}}, {rank: 1, onRelated() {}}))), 0)"""
    page.use("cards.js", draw, [f"{page.url}/page/icon.svg", f"{page.url}/page/none.png", "javascript:x"])
    page.until(lambda: page.text("[data-pin=p0] .picture") == "", "the picture has not taken the drawn one's place")
    page.until(lambda: page.js("return document.querySelector('[data-pin=p1] img') === null"), "a broken picture stays")
    assert page.text("[data-pin=p1] .picture") == "S"
    assert page.all("[data-pin=p2] img") == []


# --- for everybody ---


INTERACTIVE = {"button", "checkbox", "combobox", "DisclosureTriangle", "link", "searchbox", "textbox", "Date"}


def named(page):
    """(role, name) of all nodes of the accessibility tree that are not ignored."""
    nodes = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    return [
        (node["role"]["value"], node.get("name", {}).get("value", "").strip()) for node in nodes if not node["ignored"]
    ]


def test_everything_has_a_name(page):
    page.open(q="velvet sofa", compare="yes", scorer2="bm25").told("Two lists")
    page.one(".why summary").click()
    page.one("#status dl")
    nodes = named(page)
    assert {role for role, name in nodes if role in INTERACTIVE and not name} == set()
    roles = [role for role, _ in nodes]
    assert INTERACTIVE - {"textbox"} <= {*roles}
    for landmark in ("banner", "search", "main", "contentinfo"):
        assert roles.count(landmark) == 1
    buttons = [name for role, name in nodes if role == "button" and name.startswith("Related pins")]
    assert "Related pins of green velvet sofa" in buttons
    page.one("[data-related]").click()
    page.one("dialog[open] .pin")
    assert any(role == "dialog" and name.startswith("Related to") for role, name in named(page))


CONTRAST = """
const c = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
const rgb = (text) => { c.clearRect(0, 0, 1, 1); c.fillStyle = text; c.fillRect(0, 0, 1, 1);
  return [...c.getImageData(0, 0, 1, 1).data]; };
const light = ([r, g, b]) => { const l = [r, g, b].map((v) => v / 255)
  .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * l[0] + 0.7152 * l[1] + 0.0722 * l[2]; };
const ground = (e) => { for (; e; e = e.parentElement) { const color = rgb(getComputedStyle(e).backgroundColor);
  if (color[3] === 255) return color; } return [255, 255, 255, 255]; };
const seen = [];
for (const e of document.querySelectorAll('body *')) {
  const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  if (!own || !e.checkVisibility() || e.matches('.hidden, .picture, option')) continue;
  const [one, two] = [light(rgb(getComputedStyle(e).color)), light(ground(e))];
  const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
  seen.push([ratio, `${e.tagName}.${e.className}: ${e.textContent.slice(0, 30)}`]);
}
return seen;
"""


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_ground(page, dark):
    look_through(page.driver, 1200, 900, dark=dark)
    for state in (
        {"q": "velvet sofa", "compare": "yes", "space2": "nope"},
        {"q": "velvet sofa", "scorer2": "bm25", "compare": "yes"},
    ):
        page.open(**state).told("Two lists")
        page.one(".why summary").click()
        page.one("#status dl")
        seen = page.js(CONTRAST)
        assert len(seen) > 100
        assert [text for ratio, text in seen if ratio < 4.5] == []


def test_a_phone_scrolls_one_way_only(page):
    look_through(page.driver, 360, 740, phone=True)
    wide = "return [document.documentElement.scrollWidth, document.querySelector('dialog').scrollWidth]"
    page.open().one("#answer .empty")
    assert page.js(wide)[0] == 360
    page.open(q="velvet sofa title script again").told("for “")
    page.one(".why summary").click()
    page.one("#settings summary").click()
    assert page.one("[name=since]").is_displayed()
    assert page.js(wide)[0] == 360
    page.one("#answer [data-related]").click()
    page.one("dialog[open] .pin")
    assert max(page.js(wide)) <= 360
    page.open(q="velvet sofa", compare="yes", scorer2="bm25").told("Two lists")
    assert page.js(wide)[0] == 360


def test_nothing_moves_for_who_does_not_want_it(page):
    moving = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": moving})
    page.open()
    page.js("document.querySelector('#answer').setAttribute('aria-busy', 'true')")
    assert page.js("return getComputedStyle(document.querySelector('#answer')).transitionProperty") == "none"


def test_the_foot_says_which_release_answers(page, page_shop):
    page.open(q="velvet sofa").told("10 pins for")
    text = page.one("#status dl").text
    assert "All is well" in page.text("#status")
    with PinClient(page_shop.root, encoder=WordEncoder()) as client:
        status = client.status()
    assert f"Release\n{status.release}\n" in text
    assert f"Space\n{status.live_space}\n" in text
    assert "Bundle\nmade-up\n" in text
    assert re.search(rf"Publication\n{status.publication}, \d+ (s|min|h|days) ago\n", text)
    assert re.search(r"Query cache\n\d+ % hits of \d+", text)
    values = page.js("return [...document.forms.search.elements.space.options].map((o) => o.value)")
    assert status.live_space in values
