"""The web page in headless Chromium, over the real service."""

import re

import pytest
from client_catalogue import WordEncoder
from page_reader import HOSTILE

from feature_repo.errors import UsageError
from materialize.releases import current_release
from serving_client import PinClient
from serving_client.http.page import FILES, FOLDER, INDEX, read_file

pytest_plugins = ("client_repo", "page_fixtures")
ENTER, ESCAPE = "\ue007", "\ue00c"


# --- its files ---


def test_every_file_is_listed_and_nothing_names_another_host():
    assert {path.name for path in FOLDER.iterdir() if path.suffix in (".html", ".css", ".js", ".svg")} == set(FILES)
    texts = {name: read_file(name).decode() for name in FILES}
    addresses = {address for text in texts.values() for address in re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text)}
    assert addresses == {"http://www.w3.org"}  # the name of SVG
    imported = {name for text in texts.values() for name in re.findall(r'from "\./([^"]+)"', text)}
    assert imported | set(re.findall(r'"page/([^"]+)"', texts[INDEX])) == set(FILES) - {INDEX}
    with pytest.raises(UsageError, match=r"no file '\.\./settings\.py'"):
        read_file("../settings.py")


def test_no_text_can_become_markup(page):
    page.open()
    assert "TrustedHTML" in page.js("try { document.body.innerHTML = 'x' } catch (e) { return String(e) }")
    assert not [name for name in FILES if re.search(r"innerHTML|outerHTML|insertAdjacent", read_file(name).decode())]


# --- search ---


def test_search_why_and_related_by_keyboard_alone(page):
    page.open()
    page.one("#answer .empty")
    page.tab_to("#q")
    page.press("velvet sofa", ENTER)
    page.told("10 pins for “velvet sofa”")
    page.shown("q=velvet+sofa")
    page.tab_to(".why summary")
    page.press(ENTER)
    assert page.one(".why[open] tfoot").text.startswith("expected level")
    page.tab_to("[data-related]")
    pin = page.js("return document.activeElement.dataset.related")
    page.press(ENTER)
    page.one("dialog[open] .pin")
    assert pin not in page.pins("dialog")
    page.press(ESCAPE)
    page.gone("dialog")
    assert page.js("return document.activeElement.dataset.related") == pin
    assert page.foreign() == []


def test_the_skip_link_comes_first_and_leads_to_the_results(page):
    page.open()
    page.tab_to(".skip", most=1)
    page.type("#q", "half a que")
    page.js("document.querySelector('.skip').focus()")
    page.press(ENTER)
    page.until(lambda: page.js("return document.activeElement.id") == "results", "the results have no focus")
    assert page.js("return document.querySelector('#q').value") == "half a que"


def test_a_level_is_words_and_the_bars_are_its_sum(page):
    page.open(q="velvet sofa").told("pins for")
    level, expected = page.text(".level"), float(page.text(".measure b"))
    assert level == f"{int(expected + 0.5)} " + level.split()[1]
    assert level.split()[1] in ("irrelevant", "poor", "complementary", "good", "excellent")
    figures = page.js("return [...document.querySelectorAll('.pin:first-child .figure')].map((e) => e.textContent)")
    *added, total = [float(figure.replace("−", "-")) for figure in figures]
    assert total == expected
    assert sum(added) == pytest.approx(total, abs=0.005 * len(added))
    page.one(".why summary").click()
    page.one(".why[open] .bar")
    bars = page.js(
        """return [...document.querySelectorAll('.pin:first-child .bar')].map((bar) => {
             const box = bar.getBoundingClientRect(), track = bar.parentElement.getBoundingClientRect();
             return [box.width, box.left >= track.left - 1 && box.right <= track.right + 1, bar.className];
           })"""
    )
    assert len(bars) == len(added) - 1
    unit = bars[0][0] / abs(added[1])
    for (width, inside, kind), value in zip(bars, added[1:], strict=True):
        assert inside
        assert kind == ("bar minus" if value < 0 else "bar plus")
        assert width == pytest.approx(max(2, abs(value) * unit), abs=0.02 * bars[0][0] + 1)


def test_hostile_titles_and_links_are_shown_as_text(page):
    page.open(q="velvet sofa title script again", lang="en").told("for “")
    titles = page.js("return [...document.querySelectorAll('.title')].map((e) => e.textContent)")
    assert HOSTILE in titles
    assert f"{HOSTILE} again" in titles
    assert page.text("[data-pin=hostile2] .body") == "<b onclick=x>bold</b>"
    assert page.all(".pin img, .pin script, [data-pin=hostile] a") == []
    links = page.js("return [...document.querySelectorAll('.pin a')].map((a) => [a.href, a.rel])")
    assert ["https://example.org/sofa", "noopener noreferrer"] in links
    assert page.js("return window.hacked ?? null") is None
    page.open(q=HOSTILE, related="hostile").one("dialog[open] .pin")
    assert page.text("#q") == ""
    assert page.js("return document.querySelector('#q').value") == HOSTILE
    assert page.js("return window.hacked ?? null") is None


def test_pages_follow_each_other_without_repeating_a_pin(page):
    page.open(q="velvet sofa").told("10 pins for")
    first = page.pins()
    page.one("#pages a[rel=next]").click()
    page.told("Pins 11 to 20")
    second = page.pins()
    assert len({*first, *second}) == 20
    assert page.text(".rank") == "11"
    assert page.js("return document.activeElement.id") == "results"
    page.driver.refresh()
    page.told("Pins 11 to 20")
    assert page.pins() == second
    page.driver.back()
    page.told("10 pins for")
    assert page.pins() == first


def test_the_address_carries_what_is_shown(page):
    page.open(q="grünes sofa", lang="de", scorer="zero-shot").told("1 pin for “grünes sofa”")
    assert page.pins() == ["sofa-de"]
    assert "cosine" in page.text(".measure")
    assert page.all(".level") == []
    values = page.js("const f = document.forms.search.elements; return [f.q.value, f.lang.value, f.scorer.value]")
    assert values == ["grünes sofa", "de", "zero-shot"]
    assert "language de, scorer zero-shot" in page.text("#settings-note")
    page.type("#q", "fern", ENTER)
    page.shown("q=fern&lang=de")
    page.driver.back()
    page.told("for “grünes sofa”")
    assert page.js("return document.forms.search.elements.q.value") == "grünes sofa"
    assert "grünes sofa" in page.driver.title


def test_filters_hold_for_the_results_and_for_related_pins(page):
    page.open(q="velvet sofa", since="2026-05-02").told("1 pin for")
    assert page.pins() == ["linked"]
    page.open(q="velvet sofa", safe="no").told("2 pins for")
    assert set(page.pins()) == {"hostile", "hostile2"}
    page.open(q="velvet sofa", country="FR, DE", lang="fr").told("10 pins for")
    assert all(pin.startswith("more") for pin in page.pins())
    page.open(related="sofa0", safe="no").one("dialog[open] .pin")
    assert set(page.pins("dialog")) <= {"hostile", "hostile2"}


def test_filters_that_nothing_passes_can_be_cleared(page):
    page.open(q="sofa", lang="xx").told("No pins found.")
    page.one(".empty button").click()
    page.told("10 pins for “sofa”")
    assert "lang" not in page.driver.current_url
    assert page.js("return document.activeElement.id") == "q"


# --- related pins and comparing ---


def test_related_pins_walk_on_and_close_in_one_step(page):
    page.open(q="velvet sofa").told("10 pins for")
    page.one("#answer [data-related]").click()
    page.one("dialog[open] .pin")
    first = page.text("#related-title")
    page.one("dialog [data-related]").click()
    page.until(lambda: page.text("#related-title") != first, "the panel shows the same pin")
    page.one("dialog .pin")
    page.driver.back()
    page.until(lambda: page.text("#related-title") == first, "back does not lead to the first pin")
    page.driver.forward()
    page.until(lambda: page.text("#related-title") != first, "forward does not lead to the second pin")
    page.one("#related-close").click()
    page.gone("dialog")
    page.until(lambda: "related" not in page.driver.current_url, "the address still names a pin")
    assert len(page.pins()) == 10


def test_the_panel_closes_once_and_only_beside_it(page):
    from selenium.webdriver.common.actions.action_builder import ActionBuilder

    def click(x):
        builder = ActionBuilder(page.driver)
        builder.pointer_action.move_to_location(x, 500).click()
        builder.perform()

    page.open(q="fern").told("for “fern”")
    page.type("#q", "velvet sofa", ENTER)
    page.told("for “velvet sofa”")
    page.one("#answer [data-related]").click()
    page.one("dialog[open] .pin")
    left = int(page.js("return document.querySelector('dialog').getBoundingClientRect().left"))
    click(left + 6)  # its padding
    assert page.js("return document.querySelector('dialog').open")
    click(left - 6)
    page.gone("dialog")
    page.until(lambda: "related" not in page.driver.current_url, "the address still names a pin")
    page.one("#answer [data-related]").click()
    page.one("dialog[open] .pin")
    page.js("const button = document.getElementById('related-close'); button.click(); button.click()")
    page.until(lambda: "related" not in page.driver.current_url, "the address still names a pin")
    page.driver.execute_async_script("setTimeout(arguments[0], 0)")
    page.shown("q=velvet+sofa")


def test_a_title_that_is_a_bracket_has_a_picture_too(page):
    page.open()
    hit = {"pin_id": "x", "content": {"pin_text__title": "("}}
    assert "(" in page.use("cards.js", "m.card(a[0], {rank: 1}).textContent", hit)


def test_a_link_opens_the_panel_and_says_where_there_is_no_vector(page):
    page.open(related="wordless").one("dialog[open]")
    page.until(lambda: "wordless has no vector" in page.text("#related-told"), "nothing says that there is no vector")
    page.press(ESCAPE)
    page.gone("dialog")
    page.until(lambda: "related" not in page.driver.current_url, "the address still names a pin")


def test_two_scorers_stand_side_by_side_with_marks_of_what_moved(page, page_shop):
    page.open(q="velvet sofa").told("10 pins for")
    page.one("[name=compare]").click()
    assert page.js("return document.forms.search.elements.scorer2.value") == "zero-shot"
    page.one("#search button").click()
    page.told("Two lists")
    one, other = page.pins(".column:first-child"), page.pins(".column:last-child")
    with PinClient(page_shop.root, encoder=WordEncoder()) as client:
        for pins, scorer in ((one, "student"), (other, "zero-shot")):
            assert pins == [hit.pin_id for hit in client.search("velvet sofa", scorer=scorer).hits]
    marks = page.js("return [...document.querySelectorAll('.column:first-child .mark')].map((e) => e.textContent)")
    assert marks == [_mark(here, other.index(pin) if pin in other else None) for here, pin in enumerate(one)]
    both = len(set(one) & set(other))
    assert page.text(".summary").startswith(f"{both} of {20 - both} pins are in both lists")
    page.shown("scorer2=zero-shot")


def test_two_lists_grow_together_and_marks_hold_for_all_of_them(page, page_shop):
    page.open(q="velvet sofa", compare="yes", scorer2="zero-shot").told("Two lists for")
    first = page.pins(".column:first-child")
    page.one("#pages a[rel=next]").click()
    page.told("Two lists of up to 20 pins for")
    one, other = page.pins(".column:first-child"), page.pins(".column:last-child")
    with PinClient(page_shop.root, encoder=WordEncoder()) as client:
        for pins, scorer in ((one, "student"), (other, "zero-shot")):
            assert pins == [hit.pin_id for hit in client.search("velvet sofa", 20, scorer=scorer).hits]
    assert one[:10] == first
    marks = page.js("return [...document.querySelectorAll('.column:first-child .mark')].map((e) => e.textContent)")
    assert marks == [_mark(here, other.index(pin) if pin in other else None) for here, pin in enumerate(one)]
    assert page.js("return document.activeElement.dataset.related") == one[10]
    page.driver.refresh()
    page.told("Two lists of up to 20 pins for")
    page.one("#pages a:not([rel])").click()
    page.told("Two lists for")
    assert page.pins(".column:first-child") == first
    page.open(q="velvet sofa", compare="yes", scorer2="zero-shot", rank="-3").told("Two lists for")
    page.open(q="velvet sofa", compare="yes", scorer2="zero-shot", rank="999999").told("Two lists of up to 1000 pins")
    page.gone("#pages a[rel=next]")


def test_pins_of_the_second_list_are_related_in_its_space(page, page_shop):
    live = current_release(page_shop).live_space
    page.open(q="velvet sofa", compare="yes", scorer2="zero-shot", space2=live).told("Two lists")
    page.one(".column:last-child [data-related]").click()
    page.one("dialog[open] .pin")
    page.shown("side=B")
    assert page.asked("related-pins") == [live]
    page.one("dialog [data-related]").click()  # on from there in the same space
    page.until(lambda: page.asked("related-pins") == [live, live], "the panel left the space of its list")
    page.one("#related-close").click()
    page.gone("dialog")
    page.one(".column:first-child [data-related]").click()
    page.one("dialog[open] .pin")
    assert page.asked("related-pins")[2:] == [None]


def _mark(here, there):
    if there is None:
        return "only in A"
    places = f"{abs(there - here)} place{'' if abs(there - here) == 1 else 's'}"
    if there == here:
        return "= same place as in B"
    return (
        f"▲ {there - here} {places} higher than in B" if there > here else f"▼ {here - there} {places} lower than in B"
    )


def test_one_side_that_fails_leaves_the_other(page):
    page.open(q="velvet sofa", compare="yes", space2="nope").told("Two lists")
    assert len(page.pins(".column:first-child")) == 10
    assert "no space 'nope'" in page.text(".column:last-child .message")
