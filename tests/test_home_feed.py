"""The home feed over a real repository: interests, decay, exploration, seen pins, and what it reads."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from client_catalogue import WHEN, WordEncoder, copy_of

from feature_repo.errors import UsageError
from materialize.releases import current_release
from materialize.stores.edge_collection import EdgeCollection
from materialize.stores.errors import StoreError
from materialize.stores.publication import open_writer
from serving_client import PinClient
from serving_client.lists import home_feed
from serving_client.lists.diversity import pin_of

pytest_plugins = ("client_repo",)

RECENT = ["couch0", "bracken0", "couch1", "bracken1", "couch2"]
NOW = datetime(2026, 11, 20, tzinfo=UTC)


def topics(hits) -> Counter:
    return Counter(hit.pin_id.rstrip("0123456789") for hit in hits)


@pytest.fixture
def searches(monkeypatch):
    """How many nearest each search of the engine asked for, and whether with vectors."""
    asked = []
    search = EdgeCollection.search

    def counted(self, vector, limit, using, condition, with_payload, with_vectors, exact):
        asked.append((limit, with_vectors))
        return search(self, vector, limit, using, condition, with_payload, with_vectors, exact)

    monkeypatch.setattr(EdgeCollection, "search", counted)
    return asked


@pytest.fixture(scope="module")
def broad(built, tmp_path_factory):
    """The catalogue with 2,600 more pins: 2,500 like sofa0, the nearer the lower their number, and 100 like fern0."""
    from client_catalogue import copy_repository

    from feature_repo.paths import RepoPaths

    shop = RepoPaths.open(copy_repository(built, tmp_path_factory.mktemp("broad") / "repo"))
    sofa, fern = WordEncoder().encode(["green velvet sofa", "fern in a pot"])
    random = np.random.default_rng(0)
    angles = np.linspace(0.25, 0.7, 2500)
    points = []
    for name, centre, leaning in (("couch", sofa, angles), ("bracken", fern, angles[::25])):
        aside = random.normal(size=(len(leaning), 384))
        aside -= np.outer(aside @ centre, centre)
        aside /= np.linalg.norm(aside, axis=1, keepdims=True)
        vectors = np.cos(leaning)[:, None] * centre + np.sin(leaning)[:, None] * aside
        points += [copy_of(f"{name}{n}", row.astype(np.float32), text_fp=f"{name}{n}") for n, row in enumerate(vectors)]
    with open_writer(shop.online) as writer:
        writer.upsert(current_release(shop).live_space, points)
        writer.publish()
    return shop.root


def test_interests_are_clusters_with_a_pin_in_the_middle_and_a_share(broad, tower):
    with PinClient(broad, encoder=tower) as client:
        feed = client.home_feed(RECENT, 10, exploration=0)
        space = client.pin_embeddings([]).space
    assert [interest.pins for interest in feed.interests] == [("couch0", "couch1", "couch2"), ("bracken0", "bracken1")]
    assert all(interest.pin_id in interest.pins for interest in feed.interests)
    assert feed.interests[0].share > feed.interests[1].share
    assert sum(interest.share for interest in feed.interests) == pytest.approx(1)
    assert Counter(hit.because for hit in feed.hits) == {
        interest.pin_id: n for interest, n in zip(feed.interests, (6, 4), strict=True)
    }
    assert topics(feed.hits).keys() <= {"couch", "sofa", "bracken", "fern"}
    assert not any(interest.dry for interest in feed.interests)
    assert (feed.release, feed.space, feed.degraded) == (2, space, ())


def test_an_old_interest_decays(broad, tower):
    with PinClient(broad, encoder=tower) as client:

        def ferns(days: int) -> int:
            times = [NOW if pin.startswith("couch") else NOW - timedelta(days=days) for pin in RECENT]
            hits = client.home_feed(RECENT, 20, exploration=0, saved_at=times).hits
            assert len(hits) == 20
            return topics(hits)["fern"] + topics(hits)["bracken"]

        assert [ferns(days) for days in (0, 69, 10_000)] == [8, 5, 0]  # 2 : 3, then 1 : 3, then nothing
        texts = [
            f"{day}T12:00:00+02:00" for day in ("2025-11-10", "2026-11-20", "2025-11-10", "2026-11-20", "2025-11-10")
        ]
        mixed = client.home_feed(RECENT, 20, exploration=0, saved_at=texts)
        assert [interest.pins for interest in mixed.interests] == [
            ("bracken0", "bracken1"),
            ("couch0", "couch1", "couch2"),
        ]
        later = [NOW - timedelta(days=400), *[NOW] * 2]  # one pin saved twice: the later time counts
        twice = client.home_feed(["fern0", "sofa0", "fern0"], 20, exploration=0, saved_at=later)
        assert [interest.share for interest in twice.interests] == pytest.approx([0.5, 0.5])


def test_the_order_of_recent_pins_does_not_matter_where_there_are_times(broad, tower):
    times = [NOW - timedelta(days=day) for day in (5, 1, 4, 2, 3)]
    pairs = sorted(zip(RECENT, times, strict=True), key=lambda pair: pair[0])
    pins, when = zip(*pairs, strict=True)
    with PinClient(broad, encoder=tower) as client:
        one = client.home_feed(RECENT, 8, exploration=0.5, saved_at=times)
        other = client.home_feed(pins, 8, exploration=0.5, saved_at=when)
    assert [interest.pins for interest in one.interests] == [("couch2", "couch1", "couch0"), ("bracken0", "bracken1")]
    assert (one.hits, one.interests) == (other.hits, other.interests)


def test_exploration_takes_its_places_and_no_others(broad, tower):
    with PinClient(broad, encoder=tower) as client:

        def places(exploration: float) -> list[int]:
            hits = client.home_feed(["sofa0", "fern0"], 20, exploration=exploration).hits
            assert len({hit.pin_id for hit in hits}) == 20
            return [place for place, hit in enumerate(hits, 1) if hit.exploration]

        assert places(0) == []
        assert places(0.1) == [5, 15]
        assert places(0.25) == [2, 6, 10, 14, 18]
        assert places(1) == list(range(1, 21))
        fitting = client.home_feed(["sofa0"], 20, exploration=0).hits
        explored = client.home_feed(["sofa0"], 20, exploration=1).hits
        assert max(hit.similarity for hit in explored) < min(hit.similarity for hit in fitting[:10])


def test_exploration_reaches_interests_that_do_not_lead(client, monkeypatch):
    monkeypatch.setattr("serving_client.lists.home_feed.LEADING", 1)
    recent = ["sofa0", "sofa1", "fern0", "pasta0"]
    plain = client.home_feed(recent, 10, exploration=0)
    assert {hit.because for hit in plain.hits} == {plain.interests[0].pin_id}
    assert len(plain.interests) == 3
    wide = client.home_feed(recent, 12, exploration=0.75)
    assert {hit.because for hit in wide.hits} == {interest.pin_id for interest in plain.interests}
    assert all(hit.exploration for hit in wide.hits if hit.because != plain.interests[0].pin_id)


def test_the_same_request_gives_the_same_feed_and_another_seed_another(broad, tower):
    def ask(**more):
        with PinClient(broad, encoder=tower) as client:
            return client.home_feed(["sofa0", "fern0"], 20, exploration=0.3, **more).hits

    assert ask() == ask()
    assert ask(seed="2026-11-22") == ask(seed="2026-11-22")
    plain, seeded = ask(), ask(seed="2026-11-22")
    assert plain != seeded
    assert plain[0] == seeded[0]  # the first place explores nothing


def test_a_feed_that_was_filled_again_draws_what_it_drew_at_first(broad, tower, monkeypatch):
    """Else a feed changes with how often its sources were looked through."""
    drawn = []
    for more in (False, True):
        looked = []

        def keep(source, hits, hidden, more=more):
            source.found = [hit for hit in hits if pin_of(hit) not in hidden]
            source.more = more

        def nothing_further(source, *_, looked=looked):
            source.more = False
            looked.append(source)

        monkeypatch.setattr(home_feed._Source, "keep", keep)
        monkeypatch.setattr(home_feed._Source, "look_further", nothing_further)
        with PinClient(broad, encoder=tower) as client:
            drawn.append(client.home_feed(["sofa0", "fern0"], 100, [f"couch{n}" for n in range(190)], exploration=0.3))
        assert bool(looked) == more
    assert drawn[0].hits == drawn[1].hits


def test_seen_pins_are_never_shown_however_many(broad, tower, searches):
    seen = [f"couch{number}" for number in range(1_500)] + [f"elsewhere{number}" for number in range(20_000)]
    with PinClient(broad, encoder=tower) as client:
        feed = client.home_feed(["sofa0", "fern0"], 20, iter(seen), exploration=0)
        assert not {hit.pin_id for hit in feed.hits} & {*seen, "sofa0", "fern0"}
        assert len(feed.hits) == 20
        assert Counter(hit.because for hit in feed.hits) == {"sofa0": 10, "fern0": 10}
        assert searches == [(42, True), (40, True), (336, False), (2_000, False)]  # only one ran dry, and read no more
        assert not any(interest.dry for interest in feed.interests)


def test_an_interest_that_runs_dry_says_so_and_others_get_its_places(broad, tower, searches):
    seen = [f"couch{number}" for number in range(2_500)]
    with PinClient(broad, encoder=tower) as client:
        feed = client.home_feed(["sofa0", "fern0"], 40, seen, exploration=0)
        assert {interest.pin_id: interest.dry for interest in feed.interests} == {"sofa0": True, "fern0": False}
        assert len(feed.hits) == 40
        assert max(limit for limit, _ in searches) == 2_000
        everything = client.home_feed(["sofa0"], 100, seen, exploration=0)
        assert len(everything.hits) < 100
        assert everything.interests[0].dry


def test_near_duplicates_of_recent_pins_are_left_out_and_of_each_other_folded(client):
    shown = {hit.pin_id for hit in client.home_feed(["twin", "fern0"], 40, exploration=0.5).hits}
    assert not shown & {"twin", "twin-same", "twin-near"}
    shown = {hit.pin_id for hit in client.home_feed(["sofa0", "fern0"], 40, exploration=1).hits}
    assert len(shown & {"twin", "twin-same", "twin-near"}) == 1


def test_only_the_newest_recent_pins_make_interests_and_all_are_left_out(client, monkeypatch):
    monkeypatch.setattr("serving_client.lists.home_feed.RECENT_PINS", 2)
    feed = client.home_feed(["sofa0", "sofa0", "sofa1", "fern0", "pasta0"], 30, exploration=0)
    assert feed.found.tolist() == [True, True, True, False, False]
    assert {pin for interest in feed.interests for pin in interest.pins} == {"sofa0", "sofa1"}
    assert not {"sofa0", "sofa1", "fern0", "pasta0"} & {hit.pin_id for hit in feed.hits}


def test_filters_hold_for_every_pin(client):
    feed = client.home_feed(["sofa0", "fern0"], 10, lang="de", exploration=0.5)
    assert [hit.pin_id for hit in feed.hits] == ["sofa-de"]
    after = client.home_feed(["sofa0"], 10, created_after=WHEN + timedelta(days=1), exploration=0.5)
    assert after.hits == ()
    assert client.home_feed(["sofa0"], 3, created_after=WHEN, content=True).hits[0].content["pin_text__title"]


def test_halves_of_characters_are_unknown_pins_and_seeds_like_others(client):
    feed = client.home_feed(["\ud800", "sofa0"], 3, seed="\udfff")
    assert feed.found.tolist() == [False, True]
    assert len(feed.hits) == 3


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"limit": 0}, "limit is 0"),
        ({"limit": 1.5}, "limit is 1.5, but must be a whole number"),
        ({"limit": 10**9}, "limit is 1000000000, but must be a number from 1 to 1000"),
        ({"limit": "many"}, "limit is 'many'"),
        ({"saved_at": 5}, "saved_at is of type int for 2 pins"),
        ({"exploration": 1.1}, "exploration is 1.1, but must be a number from 0 to 1"),
        ({"exploration": float("nan")}, "exploration is nan"),
        ({"diversity": -1}, "diversity is -1"),
        ({"saved_at": ["2026-01-01"]}, "saved_at has 1 time for 2 pins"),
        ({"saved_at": "2026-01-01"}, "saved_at is of type str for 2 pins"),
        ({"saved_at": ["2026-01-01", "soon"]}, "'soon', which is no time"),
        ({"saved_at": ["2026-01-01", None]}, "None, which is no time"),
        ({"seen": "sofa1"}, "seen takes a list"),
        ({"space": "nope"}, "no space 'nope'"),
    ],
)
def test_wrong_wishes_are_refused(client, wrong, words):
    with pytest.raises(UsageError, match=words):
        client.home_feed(["sofa0", "fern0"], **wrong)


def test_what_the_store_gave_before_it_failed_is_shown(client, monkeypatch):
    search, asked = EdgeCollection.search, []

    def failing(self, *args):
        asked.append(args)
        if len(asked) == 2:
            raise StoreError("the disk is gone")
        return search(self, *args)

    monkeypatch.setattr(EdgeCollection, "search", failing)
    feed = client.home_feed(["sofa0", "fern0"], 4, exploration=0)
    assert {hit.because for hit in feed.hits} == {"sofa0"}
    assert len(feed.hits) == 4
    assert feed.degraded == ("store_gone: the disk is gone Only 1 of 2 interests are in the feed.",)
