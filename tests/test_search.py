"""A search over a real repository: hybrid retrieval, filters, blending, pages, and what it says where a part lacks."""

import re
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from client_catalogue import WHEN, WordEncoder, copy_of
from conftest import Catalogue
from hypothesis import given
from hypothesis import strategies as st
from test_client_scores import student

from feature_repo.errors import UsageError
from materialize.plan import plan
from materialize.releases import current_release, publish_release
from materialize.run import RunOptions, materialize
from materialize.spaces import load_space, save_space
from materialize.stores.port import CollectionSpec, Point, VectorSpec
from materialize.stores.publication import open_writer
from serving_client import PinClient
from serving_client.degraded import UnavailableError, code_of

pytest_plugins = ("client_repo",)


def ids(found):
    return [hit.pin_id for hit in found.hits]


def order(hits):
    return [(hit.score, hit.similarity, hit.pin_id) for hit in hits]


def codes(found):
    return [code_of(text) for text in found.degraded]


# --- candidates ---


def test_words_find_what_the_vector_misses_and_the_other_way_round(client_shop, tower):
    space = load_space(client_shop, current_release(client_shop).live_space)
    near = WordEncoder().encode(["zanzibar"])[0]
    with open_writer(client_shop.online) as writer:  # no words, but the very vector of the query
        writer.upsert(space.name, [copy_of(f"near{number}", near) for number in range(3)])
        writer.publish()
    asked = {"candidates": 4, "limit": 4, "scorer": "zero-shot"}
    with PinClient(client_shop.root, encoder=tower) as client:
        by_vector = client.search("zanzibar hammock", retrieval="vector", **asked)
        assert ids(by_vector)[:3] == ["near0", "near1", "near2"]
        assert ids(client.search("zanzibar hanging", retrieval="lexical", **asked)) == ["fern3"]
        both = client.search("zanzibar hanging", **asked)
        assert set(ids(both)) >= {"fern3", "near0", "near1"}
        assert both.candidates == 4
        nothing_known = client.search("zanzibar hammock", **asked)
        assert (ids(nothing_known), nothing_known.degraded) == (ids(by_vector), ())
        assert client.search("zanzibar hammock", retrieval="lexical", **asked).hits == ()
    with pytest.raises(UsageError, match="no retrieval 'both'; there are: hybrid, vector, lexical"):
        client.search("sofa", retrieval="both")


def test_words_alone_need_no_model(client, tower):
    found = client.search("velvet sofa", scorer="bm25", retrieval="lexical", limit=3)
    assert found.hits[0].pin_id in {"sofa0", "sofa3"}
    assert tower.encoded == []
    assert all(np.isnan(hit.similarity) for hit in found.hits)


def test_without_a_query_vector_words_find_and_score(built):
    with PinClient(built, encoder=WordEncoder("a stranger")) as client:
        found = client.search("velvet sofa", limit=3)
        assert found.scorer == "bm25"
        assert codes(found)[-1] == "no_embedding"
        assert set(ids(found)) <= {"sofa0", "sofa1", "sofa2", "sofa3", "sofa4", "sofa-de", "twin", "twin-same"}
        assert ids(client.search("velvet sofa", limit=3, retrieval="vector")) == ids(found)


@pytest.fixture
def old_space(client_shop):
    """The repository as one whose live space was made before points held words and the field ``safe``."""
    name = current_release(client_shop).live_space
    space = load_space(client_shop, name)
    with open_writer(client_shop.online) as writer:
        points, _ = writer.scroll(name, limit=100, with_vectors=True)
        writer.drop(name)
        indexes = {"lang": "keyword", "country": "keyword", "created_at": "integer"}
        writer.create(name, CollectionSpec({"vector": VectorSpec(space.dimension)}, indexes=indexes))
        writer.upsert(name, points)
        writer.publish()
    return client_shop


def test_a_space_without_words_is_searched_by_vector_and_says_so(old_space, tower):
    with PinClient(old_space.root, encoder=tower) as client:
        found = client.search("velvet sofa", scorer="zero-shot")
        assert codes(found) == ["no_lexical"]
        assert ids(found) == ids(client.search("velvet sofa", scorer="zero-shot", retrieval="vector"))
        assert client.search("velvet sofa", scorer="zero-shot", retrieval="vector").degraded == ()
        with pytest.raises(UsageError, match="before pins were found by words"):
            client.search("velvet sofa", retrieval="lexical")
        with pytest.raises(UsageError, match=r"cannot be filtered by 'safe'.*pinfeather materialize"):
            client.search("velvet sofa", safe=True)
        assert client.search("velvet sofa", scorer="zero-shot", created_after=WHEN).hits
    stranger = PinClient(old_space.root, encoder=WordEncoder("a stranger"))
    with stranger as client, pytest.raises(UnavailableError, match="Nothing can be found") as raised:
        client.search("velvet sofa")
    assert raised.value.code == "no_embedding"


# --- filters ---


@pytest.fixture
def flagged(written_pins):
    """Five pins: two safe, one not, two that nobody judged; one a day, the first the newest."""
    return written_pins(
        {
            f"p{number}": {
                "title": f"oak shelf {number}",
                "safe": safe,
                "created_at": Catalogue.NOW - timedelta(days=number),
                "lang": "de" if number == 1 else "en",
            }
            for number, safe in enumerate([True, True, False, None, None])
        },
        WordEncoder,
    )


def test_filters_hold_for_what_vector_and_words_find(flagged, tower):
    with PinClient(flagged.paths.root, encoder=tower) as client:

        def found(**filters):
            return [
                sorted(ids(client.search("oak shelf", scorer="zero-shot", retrieval=retrieval, **filters)))
                for retrieval in ("hybrid", "vector", "lexical")
            ]

        assert found(safe=True) == [["p0", "p1"]] * 3
        assert found(safe=False) == [["p2"]] * 3
        assert found() == [["p0", "p1", "p2", "p3", "p4"]] * 3
        assert found(created_after=flagged.NOW - timedelta(days=1)) == [["p0", "p1"]] * 3
        assert found(created_after="2026-09-28", safe=True, lang="de") == [["p1"]] * 3
        assert found(created_after="2026-10-02") == [[]] * 3


def test_a_changed_flag_costs_no_encoding(flagged, tower):
    flagged.put("p3", "oak shelf 3", safe=True).save()
    assert (plan(flagged.paths).payload_only, plan(flagged.paths).texts_to_encode) == (1, 0)
    counts = materialize(flagged.paths, RunOptions(encoder=tower))
    assert (counts.payload_only, counts.upserted, counts.encoded_texts) == (1, 1, 0)
    with PinClient(flagged.paths.root, encoder=tower) as client:
        assert sorted(ids(client.search("oak shelf", scorer="zero-shot", safe=True))) == ["p0", "p1", "p3"]


def test_a_new_flag_can_be_asked_for_once_a_run_has_given_it_to_every_pin(flagged, tower):
    """Until then it would be found of some: a server's readers see each point at once, and a run may be limited."""
    name = current_release(flagged.paths).live_space

    def flags_are_promised(*_: object) -> bool:
        with open_writer(flagged.paths.online) as writer:
            return "safe" in writer.collections()[name].indexes

    with open_writer(flagged.paths.online) as writer:
        points, _ = writer.scroll(name, with_vectors=True)
        spec = writer.collections()[name]
        writer.drop(name)
        writer.create(name, replace(spec, indexes={key: kind for key, kind in spec.indexes.items() if key != "safe"}))
        writer.upsert(name, [Point(p.id, {**p.payload, "safe": None}, p.vectors) for p in points])
        writer.publish()
    for number in range(5):
        flagged.put(f"p{number}", f"oak shelf {number}", safe=number > 2)
    flagged.save()
    materialize(flagged.paths, RunOptions(encoder=tower, limit=2))
    with PinClient(flagged.paths.root, encoder=tower) as client:
        with pytest.raises(UsageError, match="cannot be filtered by 'safe'"):
            client.search("oak shelf", safe=True)
        seen = []
        materialize(flagged.paths, RunOptions(encoder=tower, progress=lambda *_: seen.append(flags_are_promised())))
        assert (seen, flags_are_promised()) == ([False], True)
        client.refresh()
        assert sorted(ids(client.search("oak shelf", scorer="zero-shot", safe=True))) == ["p3", "p4"]
        assert sorted(ids(client.search("oak shelf", scorer="zero-shot", safe=False))) == ["p0", "p1", "p2"]


def test_a_registry_from_before_the_flag_refuses_the_filter(flagged, tower):
    cache = flagged.paths.data / "definitions.json"
    cache.write_text(
        cache.read_text().replace('"safe": "bool"', '"kept": "bool"').replace('"safe": "safe"', '"kept": "safe"')
    )
    refused = pytest.raises(UsageError, match="cannot be filtered by 'safe'")
    with PinClient(flagged.paths.root, encoder=tower) as client, refused:
        client.search("oak shelf", safe=False)
    former = re.sub(r',\s*"kept": "(safe|bool)"', "", re.sub(r'"kept": "(safe|bool)",\s*', "", cache.read_text()))
    assert "kept" not in former
    cache.write_text(former)
    assert plan(flagged.paths).rejected == 0  # the scan goes without it


def test_a_run_before_the_flag_was_applied_does_not_promise_it(old_space, tower):
    save_space(old_space, replace(load_space(old_space, current_release(old_space).live_space), words=False))
    cache = old_space.data / "definitions.json"
    applied = cache.read_text()
    former = re.sub(r',\s*"safe": "(safe|bool)"', "", re.sub(r'"safe": "(safe|bool)",\s*', "", applied))
    assert '"safe": ' not in former and former != applied
    cache.write_text(former)
    materialize(old_space, RunOptions(encoder=tower))
    cache.write_text(applied)
    refused = pytest.raises(UsageError, match="cannot be filtered by 'safe'")
    with PinClient(old_space.root, encoder=tower) as client, refused:
        client.search("velvet sofa", safe=True)
    materialize(old_space, RunOptions(encoder=tower))
    with PinClient(old_space.root, encoder=tower) as client:
        assert ids(client.search("velvet sofa", scorer="zero-shot", safe=True)) == []  # nobody judged any


# --- blending ---


@pytest.fixture
def judged(client_shop):
    """The repository with a bundle in its release."""
    space = load_space(client_shop, current_release(client_shop).live_space)
    student(space).save(client_shop.bundles / "made-up")
    publish_release(client_shop, bundle="made-up")
    return client_shop


def test_engagement_lifts_pins_that_fit_by_the_formula(judged, tower):
    with PinClient(judged.root, encoder=tower) as client:
        plain = client.search("green velvet sofa", limit=19)
        assert plain.scorer == "student"
        assert [hit.score for hit in plain.hits] == [hit.expected_level for hit in plain.hits]
        assert all(hit.engagement is None for hit in plain.hits)
        floor = plain.hits[10].expected_level
        lifted = client.search("green velvet sofa", limit=19, engagement_weight=2, floor=floor)
        assert sorted(ids(lifted)) == sorted(ids(plain))
        for hit in lifted.hits:
            expected = 2 * hit.engagement if hit.expected_level >= floor else 0
            assert hit.score == pytest.approx(hit.expected_level + expected, abs=1e-9)
        assert ids(lifted)[11:] == ids(plain)[11:]
        clicked = next(hit for hit in lifted.hits if hit.pin_id == "sofa0")
        unseen = next(hit for hit in lifted.hits if hit.pin_id == "fern0")
        assert (clicked.engagement > 0.5, unseen.engagement) == (True, 0.5)
        assert client.search("green velvet sofa", limit=19, floor=5).hits == plain.hits


def test_a_page_is_explained_as_its_scores_are(judged, tower):
    with PinClient(judged.root, encoder=tower) as client:
        found = client.search("green velvet sofa", limit=4, explain=True)
        alone = client.score("green velvet sofa", ids(found), explain=True)
        assert [hit.explanation for hit in found.hits] == list(alone.explanations)
        assert all(hit.explanation is None for hit in client.search("green velvet sofa").hits)


def test_without_a_student_engagement_is_not_blended(client):
    found = client.search("velvet sofa", engagement_weight=1)
    assert found.scorer == "zero-shot"
    assert codes(found) == ["no_student", "no_student"]
    assert ids(found) == ids(client.search("velvet sofa", scorer="zero-shot"))
    with pytest.raises(UsageError, match="which 'bm25' does not give"):
        client.search("velvet sofa", engagement_weight=1, scorer="bm25")


# --- pages ---


@pytest.mark.parametrize("scorer", ["student", "zero-shot", "bm25"])
def test_pages_neither_repeat_nor_skip_a_pin(judged, tower, scorer):
    with PinClient(judged.root, encoder=tower) as client:
        whole = client.search("velvet sofa", limit=19, scorer=scorer)
        assert (whole.next_cursor, whole.release) == (None, current_release(judged).number)
        shown, cursor = [], None
        for limit in (3, 7, 1, 20):  # the length of a page may change
            page = client.search("velvet sofa", limit=limit, scorer=scorer, cursor=cursor)
            shown += page.hits
            cursor = page.next_cursor
            assert page.degraded == ()
        assert cursor is None
        assert order(shown) == order(whole.hits)
        assert [(-hit.score, -hit.similarity, hit.pin_id) for hit in shown] == sorted(
            (-hit.score, -hit.similarity, hit.pin_id) for hit in shown
        )
        few = client.search("velvet sofa", limit=3, candidates=5, scorer=scorer)
        rest = client.search("velvet sofa", limit=3, candidates=5, scorer=scorer, cursor=few.next_cursor)
        assert (len(rest.hits), rest.next_cursor) == (2, None)


def test_a_cursor_belongs_to_its_search(client):
    cursor = client.search("velvet sofa", limit=3, scorer="bm25").next_cursor
    assert "sofa" not in cursor
    for other in (
        {"query": "linen sofa"},
        {"lang": "en"},
        {"scorer": "zero-shot"},
        {"candidates": 10},
        {"retrieval": "vector"},
        {"safe": True},
        {"floor": 4},
    ):
        with pytest.raises(UsageError, match="another search"):
            client.search(**{"query": "velvet sofa", "limit": 3, "scorer": "bm25", "cursor": cursor, **other})
    same = client.search("  Velvet SOFA ", limit=3, scorer="bm25", cursor=cursor)
    assert len(same.hits) == 3


def test_over_a_newer_publication_pages_go_on_below_the_last_pin_and_say_so(client_shop, tower):
    with PinClient(client_shop.root, encoder=tower) as client:
        whole = ids(client.search("velvet sofa", limit=30, scorer="zero-shot"))
        first = client.search("velvet sofa", limit=5, scorer="zero-shot")
        best = WordEncoder().encode(["velvet sofa"])[0]
        with open_writer(client_shop.online) as writer:
            writer.upsert(current_release(client_shop).live_space, [copy_of("newest", best)])
            writer.publish()
        assert client.refresh()
        second = client.search("velvet sofa", limit=5, scorer="zero-shot", cursor=first.next_cursor)
        assert codes(second) == ["stale"]
        assert ids(second) == whole[5:10]
        third = client.search("velvet sofa", limit=5, scorer="zero-shot", cursor=second.next_cursor)
        assert codes(third) == ["stale"]  # of the first page, still
        assert ids(client.search("velvet sofa", limit=1, scorer="zero-shot")) == ["newest"]


def test_where_another_scorer_must_do_pages_go_on_by_count(judged, tower):
    with PinClient(judged.root, encoder=tower) as client:
        first = client.search("velvet sofa", limit=4)
        assert first.scorer == "student"
        release = current_release(judged)
        with open_writer(judged.online) as writer:
            writer.publish(replace(release, number=release.number + 1, bundle=None).to_json())
        assert client.refresh()
        second = client.search("velvet sofa", limit=4, cursor=first.next_cursor)
        assert (second.scorer, codes(second)) == ("zero-shot", ["no_student", "stale"])
        assert ids(second) == ids(client.search("velvet sofa", limit=8))[4:]


# --- bad input ---

VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.lists(st.none(), max_size=2)
)
OPTIONS = ("limit", "candidates", "engagement_weight", "floor", "cursor", "retrieval", "scorer", "space")


@given(st.dictionaries(st.sampled_from(OPTIONS), VALUES, max_size=3), st.text(max_size=20) | VALUES)
def test_whatever_is_asked_is_answered_or_refused(shared_client, options, query):
    try:
        found = shared_client.search(query, **options)
    except (UsageError, UnavailableError):
        return
    assert len(found.hits) <= options.get("limit", 10)


class AnyTextEncoder(WordEncoder):
    """Has a vector for a text without words, too, as a real tower has."""

    def encode(self, texts, progress=None):
        return super().encode([f"{text} text" for text in texts])


@pytest.fixture(scope="module")
def shared_client(built):
    with PinClient(built, encoder=AnyTextEncoder()) as opened:
        yield opened


def test_numbers_out_of_range_are_refused(client):
    for wrong in (
        {"limit": 0},
        {"limit": 2.5},
        {"candidates": 100_000},
        {"engagement_weight": -1},
        {"engagement_weight": float("nan")},
        {"engagement_weight": float("inf")},
        {"floor": 0},
        {"floor": "high"},
    ):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            client.search("sofa", **wrong)
    assert client.search("sofa " * 20_000, scorer="bm25").query == ("sofa " * 200).strip()
    assert client.search("\x00\x1b\n", scorer="bm25").hits == ()


# --- another space ---


def test_a_search_may_name_its_space(client):
    live = client.search("velvet sofa", scorer="zero-shot")
    named = client.search("velvet sofa", scorer="zero-shot", space=live.space)
    assert order(named.hits) == order(live.hits)
    assert named.space == live.space
    with pytest.raises(UsageError, match="no space 'nope'"):
        client.search("velvet sofa", space="nope")
