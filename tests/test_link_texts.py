"""Texts of linked pages: nulled where they say nothing, as fresh as the page was read, looked at once."""

import pytest
from board_recompute import expected_links
from board_shop import at, pin, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_repo.aggregates import links
from feature_repo.aggregates.link_gate import refusals
from feature_repo.paths import RepoPaths


@pytest.fixture
def paths(tmp_path):
    return RepoPaths(tmp_path)


# Link texts ----------------------------------------------------------------------------------------------------------


def linked(paths, **columns):
    _, found, screened = run(paths, [pin(**columns)])
    (row,) = found["pin_link_text"]
    return row, dict(screened.get("pins", {}))


GOOD = "Terracotta pots for the balcony"


@pytest.mark.parametrize(
    ("columns", "reasons"),
    [
        ({"link_title": GOOD, "link_description": "A shop of pots and plants for the home"}, []),
        ({"link_title": "404 Not Found | Pots", "link_description": GOOD}, ["link title: error page"]),
        (
            {"link_title": "Home", "link_description": "We use cookies to improve."},
            ["link title: boilerplate", "link description: boilerplate"],
        ),
        ({"link_title": "Etsy", "link_url": "https://www.etsy.com/listing/3"}, ["link title: site name"]),
        ({"link_title": "www.pots.example", "link_url": "http://pots.example/x"}, ["link title: site name"]),
        ({"link_title": "Login · Pots", "link_url": "https://pots.example"}, ["link title: boilerplate"]),
        ({"link_title": f"{GOOD} | Pots", "link_url": "https://pots.example"}, []),
        ({"link_title": GOOD, "lang": "de"}, ["link title: other language"]),
        ({"link_title": GOOD, "lang": "en-GB"}, []),
        ({"link_title": GOOD, "lang": "EN_us"}, []),
        ({"link_title": GOOD, "lang": "eng"}, []),
        ({"link_title": "Recept za kolač s jabukama i orasima koji se radi na brz način", "lang": "hr"}, []),
        ({"link_title": GOOD, "lang": "spa"}, []),  # no two-letter code: not known for certain
        ({"link_title": "Terracotta", "lang": "de"}, []),  # nobody can be sure
        ({"link_title": "Jord og potter til den lille altan og haven", "lang": "nb"}, []),  # too close to tell
        ({"link_title": GOOD.upper(), "title": f"{GOOD}!"}, ["link title: repeats the pin"]),
        ({"link_title": GOOD, "link_description": f"{GOOD}."}, ["link description: repeats the pin"]),
        ({"link_title": "bullshit pots"}, ["link title: profanity"]),
        ({"link_title": "shop.example is for sale"}, ["link title: domain for sale"]),
        ({"link_title": GOOD, "link_url": "http://[no address"}, []),
        ({"link_title": "call +49 170 1234567"}, []),  # a page is public
    ],
)  # fmt: skip
def test_link_texts_that_say_nothing_are_nulled_one_by_one_and_counted(paths, columns, reasons):
    row, screened = linked(paths, **columns)
    assert screened == dict.fromkeys(reasons, 1)
    left_out = {reason.partition(":")[0].replace(" ", "_") for reason in reasons}
    for name in ("link_title", "link_description"):
        assert row[name] == (None if name in left_out else columns.get(name)), name


def test_a_blank_text_is_nulled_and_not_counted_and_the_row_stays(paths):
    assert linked(paths, link_title=" \u200b") == (
        {"pin_id": "p", "link_url": None, "link_title": None, "link_description": None}
        | dict.fromkeys(("event_timestamp", "created_timestamp"), at(-50)),
        {},
    )


def test_link_texts_are_as_fresh_as_their_page_was_read(paths):
    for fetched, wanted in {-60: -60, -50: -50, None: -50, -40: -40}.items():
        row, _ = linked(paths, link_title=GOOD, link_fetched_at=None if fetched is None else at(fetched))
        assert row["event_timestamp"] == at(wanted), fetched


def test_link_texts_are_not_known_before_their_page_was_read(paths):
    read_later = {"link_title": GOOD, "link_description": "404", "link_fetched_at": at(1)}
    pins = [pin("a", **read_later), pin("b", link_url="https://oak.example", **read_later)]
    _, found, screened = run(paths, pins)
    assert found["pin_link_text"] == expected_links({"b": pin("b", link_url="https://oak.example")})
    assert not screened.get("pins")


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {
                "link_title": st.sampled_from([None, GOOD, "Home", "404", "Oak", ""]),
                "link_description": st.sampled_from([None, GOOD, "Oak"]),
                "title": st.sampled_from([None, "oak!", GOOD]),
                "lang": st.sampled_from([None, "de", "en"]),
                "link_url": st.sampled_from([None, "https://oak.example"]),
                "link_fetched_at": st.sampled_from([None, at(-60), at(-1)]),
            }
        ),
        max_size=6,
    )
)
def test_links_equal_a_recompute_row_by_row(paths, monkeypatch, rows):
    monkeypatch.setattr(links, "BATCH_TEXTS", 2)
    pins = [pin(f"p{number}", **row) for number, row in enumerate(rows)]
    assert run(paths, pins)[1]["pin_link_text"] == expected_links({row["pin_id"]: row for row in pins})


@pytest.fixture
def judged(monkeypatch):
    """How many link texts are looked at, pin by pin."""
    counted = []

    def counting(*about):
        counted.append(about[1])
        return refusals(*about)

    monkeypatch.setattr(links, "refusals", counting)
    return counted


def test_a_link_text_is_looked_at_once_until_it_or_the_rules_change(paths, judged):
    def looked(pins):
        judged.clear()
        found = run(paths, pins)[1:]
        assert found[0]["pin_link_text"] == expected_links({row["pin_id"]: row for row in pins}, paths.root)
        return len(judged), found[1].get("pins", {})

    pins = [pin(f"p{number}", link_title=f"Oak {number % 3} | Error") for number in range(6)]
    assert looked(pins) == (3, {"link title: error page": 6})
    assert looked(pins) == (0, {"link title: error page": 6})
    pins[0]["title"] = "Elm"  # what the text is compared with
    pins[1]["event_timestamp"] = at(-1)
    assert looked(pins) == (1, {"link title: error page": 6})
    (paths.root / "screening.yaml").write_text("error_pages: {remove: [error]}\n")
    assert looked(pins) == (4, {})
    assert len(list((paths.aggregates / "links").iterdir())) == 1
    for file in (paths.aggregates / "links").iterdir():
        file.write_bytes(b"PAR1 nonsense PAR1")
    assert looked(pins) == (4, {})
    assert looked(pins) == (0, {})
