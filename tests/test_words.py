"""The words of pins in the points of a space: on every store, through runs, audits, rewrites and upgrades."""

from dataclasses import replace

import pytest
from client_catalogue import WordEncoder
from store_samples import pin, unit

from feature_repo.lexical import encode_blob
from feature_repo.pin_text import DEFAULT_TEMPLATE, PinFields
from materialize.audit import audit
from materialize.definitions import load_definitions
from materialize.points import pin_point_id, space_spec
from materialize.releases import current_release
from materialize.repair import repair
from materialize.run import RunOptions, materialize
from materialize.space_admin import backfill, create_space
from materialize.spaces import Space, Status, freeze_space, load_space, save_space
from materialize.stores.port import Match, Point, SparseVector
from materialize.stores.publication import open_reader, open_writer
from materialize.words import WORDS, pin_words, query_words

pytest_plugins = ("store_adapters",)

SPACE = Space("s", 4, "packaged", "fp", ("fp",), DEFAULT_TEMPLATE, {}, words=True)
TITLES = ("oak shelf", "oak oak oak shelf", "velvet sofa", "")


def fill(store):
    store.create("s", space_spec(SPACE))
    points = []
    for number, title in enumerate(TITLES):
        found = pin_words(encode_blob(PinFields(title=title)))
        payload = {"n": number, "safe": number != 1} if number < 3 else {"n": number}
        sparse = {WORDS: found} if found else {}
        points.append(Point(pin(number), payload, {"vector": unit(10, number, 0, 0)}, sparse))
    store.upsert("s", points)


def numbers(store, query, condition=None):
    hits = store.search("s", query_words(query), 10, WORDS, condition)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    return [hit.payload["n"] for hit in hits]


# --- on every store ---


def test_points_are_found_by_words_beside_their_vectors(store):
    fill(store)
    assert numbers(store, "oak") == [1, 0]
    assert sorted(numbers(store, "velvet oak")) == [0, 1, 2]
    assert numbers(store, "velvet oak")[0] == 2  # the rarer word
    assert numbers(store, "lamp") == []
    assert numbers(store, "oak", Match("safe", True)) == [0]
    assert numbers(store, "oak", Match("safe", False)) == [1]
    assert [hit.payload["n"] for hit in store.search("s", unit(1, 0, 0, 0), 4)] == [0, 1, 2, 3]
    assert store.count("s", Match("safe", True)) == 2
    assert store.collections()["s"] == space_spec(SPACE)


def test_a_point_written_again_has_its_new_words_only(store):
    fill(store)
    found = pin_words(encode_blob(PinFields(title="lamp")))
    store.upsert("s", [Point(pin(1), {"n": 1}, {"vector": unit(1, 0, 0, 0)}, {WORDS: found})])
    assert (numbers(store, "oak"), numbers(store, "lamp")) == ([0], [1])
    store.upsert("s", [Point(pin(0), {"n": 0}, {"vector": unit(1, 0, 0, 0)})])
    assert numbers(store, "oak") == []


def test_a_rewritten_collection_keeps_its_words(tmp_path):
    with open_writer(tmp_path) as writer:
        fill(writer)
        writer.delete("s", ids=[pin(2)])
        writer.rewrite("s")
        writer.publish()
    with open_reader(tmp_path) as reader:
        assert numbers(reader, "oak") == [1, 0]
        assert numbers(reader, "velvet") == []
        assert reader.get_many("s", [pin(0)], with_vectors=True)[0].vectors["vector"].tolist() == [1, 0, 0, 0]


# --- in a repository ---


@pytest.fixture
def shop(written_pins):
    """Three pins in a space with words; the description of the long one goes beyond what the model reads."""
    long = {"title": "shelf", "description": f"{'wood ' * 400}walnut"}
    return written_pins({"a": {"title": "oak shelf"}, "b": {"title": "velvet sofa"}, "long": long}, WordEncoder)


def found(paths, query, space=None):
    with open_reader(paths.online) as reader:
        name = space or current_release(paths).live_space
        hits = reader.search(name, query_words(query), 10, WORDS, with_payload=["key"])
        return sorted(hit.payload["key"]["pin_id"] for hit in hits)


def test_words_beyond_the_text_that_the_model_reads_are_found_and_follow_their_pin(shop):
    assert (found(shop.paths, "shelf"), found(shop.paths, "walnut")) == (["a", "long"], ["long"])
    shop.put("long", "shelf", description=f"{'wood ' * 400}cherry").save()
    tower = WordEncoder()
    counts = materialize(shop.paths, RunOptions(encoder=tower))
    assert (counts.payload_only, counts.changed, tower.encoded) == (1, 0, [])
    assert (found(shop.paths, "walnut"), found(shop.paths, "cherry")) == ([], ["long"])
    assert audit(shop.paths).findings == 0
    again = materialize(shop.paths, RunOptions(encoder=tower))
    assert (again.payload_only, again.unchanged) == (0, 3)


def damage(paths, change, name=None):
    """Change the words of stored points behind the materializer's back."""
    name, project = name or current_release(paths).live_space, load_definitions(paths).project
    ids = {pin_id: pin_point_id(project, pin_id) for pin_id in ("a", "b", "long")}
    with open_writer(paths.online) as writer:
        read = writer.get_many(name, list(ids.values()), with_vectors=True)
        words = writer.get_sparse(name, list(ids.values()), WORDS)
        points = {
            pin_id: Point(point.id, point.payload, point.vectors, {WORDS: of} if of else {})
            for pin_id, point, of in zip(ids, read, words, strict=True)
        }
        change(points)
        writer.upsert(name, points.values())
        writer.publish()


def test_an_audit_finds_words_that_are_not_their_pins_and_its_repair_writes_them_anew(shop):
    def change(points):
        forgotten, foreign, faded = points["a"], points["b"], points["long"]
        forgotten.sparse.clear()
        foreign.sparse[WORDS] = words = faded.sparse[WORDS]
        faded.sparse[WORDS] = SparseVector(words.indices, words.values / 2)

    damage(shop.paths, lambda points: None)
    assert audit(shop.paths).clean
    damage(shop.paths, change)
    now = audit(shop.paths)
    assert (now.findings, sorted(now.examples["corrupted"])) == (3, ["a", "b", "long"])
    tower = WordEncoder()
    report = repair(shop.paths, RunOptions(encoder=tower))
    assert (report.after.clean, report.after.repaired, tower.encoded) == (True, 3, [])
    assert (found(shop.paths, "shelf"), found(shop.paths, "velvet")) == (["a", "long"], ["b"])
    assert found(shop.paths, "walnut") == ["long"]


def test_a_sample_looks_at_the_words_of_its_pins_alone(shop):
    damage(shop.paths, lambda points: [point.sparse.clear() for point in points.values()])
    assert audit(shop.paths, sample=2).corrupted == 2
    assert audit(shop.paths).corrupted == 3


def test_words_of_a_pin_that_waits_for_a_run_are_not_compared_with_its_new_row(shop):
    shop.put("a", "pine shelf").put("long", "shelf", description=f"{'wood ' * 400}cherry").save()
    waiting = audit(shop.paths)
    assert (waiting.stale, waiting.corrupted) == (6, 0)  # both vectors, and two feature rows of each


def test_words_of_a_space_that_is_being_built_are_looked_at_and_of_a_frozen_one_are_not(shop):
    create_space(shop.paths, "bare", without=["boards"])
    list(backfill(shop.paths, "bare", RunOptions(encoder=WordEncoder())))
    building = replace(load_space(shop.paths, "bare"), status=Status.BUILDING)
    save_space(shop.paths, building)
    assert audit(shop.paths).clean
    damage(shop.paths, lambda points: points["a"].sparse.clear(), "bare")
    assert audit(shop.paths).examples == {"corrupted": ["bare/a"]}
    save_space(shop.paths, replace(building, status=Status.FROZEN))
    assert audit(shop.paths).clean


def test_words_come_back_with_a_lost_store(shop):
    with open_writer(shop.paths.online) as writer:
        writer.drop(current_release(shop.paths).live_space)
        writer.publish()
    tower = WordEncoder()
    materialize(shop.paths, RunOptions(encoder=tower))
    assert (found(shop.paths, "walnut"), tower.encoded) == (["long"], [])


def test_words_are_those_of_the_fields_that_the_template_reads(shop):
    space = create_space(shop.paths, "bare", without=["title"])
    assert space.words
    shop.put("b", "velvet sofa", link_title="velvet lamp").save()
    list(backfill(shop.paths, "bare", RunOptions(encoder=WordEncoder())))
    assert found(shop.paths, "velvet", "bare") == ["b"]
    assert found(shop.paths, "sofa", "bare") == []
    assert found(shop.paths, "lamp", "bare") == ["b"]


@pytest.fixture
def old(shop):
    """The same, its live space from before points held words."""
    name = current_release(shop.paths).live_space
    save_space(shop.paths, replace(load_space(shop.paths, name), words=False))
    with open_writer(shop.paths.online) as writer:
        writer.drop(name)
        writer.publish()
    materialize(shop.paths, RunOptions(encoder=WordEncoder()))
    return shop


def test_a_space_from_before_stays_as_it_is_and_another_one_gets_words(old):
    live = load_space(old.paths, current_release(old.paths).live_space)
    assert not live.words
    assert '"words"' not in (old.paths.spaces / f"{live.name}.json").read_text()  # an older Pinfeather reads it
    with open_reader(old.paths.online) as reader:
        assert reader.collections()[live.name].sparse == ()
    assert materialize(old.paths, RunOptions(encoder=WordEncoder())).quiet
    space = create_space(old.paths)
    assert (space.name, space.words) == (f"{live.name}-words", True)
    list(backfill(old.paths, space.name, RunOptions(encoder=WordEncoder())))
    assert found(old.paths, "walnut", space.name) == ["long"]


def test_a_frozen_space_gets_no_index_of_a_field_that_its_points_lack(shop):
    create_space(shop.paths, "bare", without=["boards"])
    list(backfill(shop.paths, "bare", RunOptions(encoder=WordEncoder())))
    freeze_space(shop.paths, "bare")
    with open_writer(shop.paths.online) as writer:
        spec = writer.collections()["bare"]
        points, _ = writer.scroll("bare", with_vectors=True)
        writer.drop("bare")
        writer.create("bare", replace(spec, indexes={"lang": "keyword"}))
        writer.upsert("bare", points)
        writer.publish()
    materialize(shop.paths, RunOptions(encoder=WordEncoder()))
    with open_reader(shop.paths.online) as reader:
        assert dict(reader.collections()["bare"].indexes) == {"lang": "keyword"}
        assert reader.count("bare") == 3
