"""Views come and go: apply, drop, change, versions, projects, teardown, plan."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from feast_shop import LOCAL, NOON, Shop, entities, entity_key, pinned, proto

from materialize.stores import session as sessions
from materialize.stores.errors import BadInputError, SpecMismatchError, StoreError
from materialize.stores.lease import WriterLease
from materialize.stores.publication import open_reader

pytest_plugins = ["feast_places"]


def counts(shop: Shop, **options: Any) -> Any:
    from feast.types import Int64

    return shop.view("counts", {"clicks": Int64, **options.pop("more", {})}, **options)


def text(shop: Shop, **options: Any) -> Any:
    from feast.types import String

    return shop.view("text", {"title": String}, **options)


def filled(shop: Shop) -> Shop:
    """Views ``counts`` and ``text`` of pins, and documents, one row each."""
    shop.apply(counts(shop), text(shop), shop.view("docs", pinned()))
    shop.push("counts", {"pin_id": "p1", "clicks": 3})
    shop.push("text", {"pin_id": "p1", "title": "Oak"})
    shop.push("docs", {"pin_id": "p1", "vector": [0.6, 0.8], "title": "Oak shelf", "lang": "en"})
    return shop


def test_apply_may_be_repeated_and_partial_before_and_after_writes(shop: Shop) -> None:
    view = counts(shop)
    shop.write(view, (entity_key(pin_id="p0"), {"clicks": proto(9)}))  # before any apply
    shop.apply(view)
    shop.apply(view)
    assert shop.read("counts:clicks", pin_id=["p0"])["clicks"] == [9]
    filled(shop)
    before = shop.read("counts:clicks", "text:title", "docs:lang", pin_id=["p0", "p1"])
    for some in ([text(shop)], [counts(shop), shop.view("docs", pinned())], []):
        shop.apply(*some)
    shop.store.update(shop.config, [], [text(shop)], [], [], False)  # what is in neither list stays, even so
    assert shop.read("counts:clicks", "text:title", "docs:lang", pin_id=["p0", "p1"]) == before
    assert shop.collections() == {"shop@pin_id": 3, "shop__docs": 1}


@pytest.mark.parametrize("kind", ["edge"])
def test_applying_again_makes_no_publication_and_needs_no_lease(shop: Shop) -> None:
    filled(shop)
    sessions.close_all()
    root = shop.root / "data" / "online"
    with open_reader(root) as reader:
        before = reader.number
        with WriterLease(root / "writer.lock"):
            shop.apply(counts(shop), text(shop), shop.view("docs", pinned()))
        assert reader.refresh() is False
        assert reader.number == before


def test_dropping_a_view_leaves_the_others_alone(shop: Shop) -> None:
    filled(shop)
    shop.apply(text(shop), shop.view("docs", pinned()), delete=[shop.feast.get_feature_view("counts")])
    assert shop.read("text:title", "docs:lang", pin_id=["p1"]) == {"pin_id": ["p1"], "title": ["Oak"], "lang": ["en"]}
    assert shop.collections() == {"shop@pin_id": 1, "shop__docs": 1}
    shop.apply(counts(shop))
    assert shop.read("counts:clicks", pin_id=["p1"])["clicks"] == [None]
    shop.push("counts", {"pin_id": "p1", "clicks": 4}, at=NOON - timedelta(days=9))  # older than the one dropped
    assert shop.read("counts:clicks", pin_id=["p1"])["clicks"] == [4]

    shop.apply(text(shop), counts(shop), delete=[shop.feast.get_feature_view("docs")])
    assert shop.collections() == {"shop@pin_id": 2}
    gone = [shop.feast.get_feature_view("text"), shop.feast.get_feature_view("counts")]
    shop.feast.apply([], objects_to_delete=gone, partial=False)
    assert shop.collections() == {}


def test_features_come_and_go_without_migration(shop: Shop) -> None:
    from feast.types import Float32, String

    filled(shop)
    shop.apply(counts(shop, more={"late": Float32}))
    assert shop.read("counts:clicks", "counts:late", pin_id=["p1"]) == {"pin_id": ["p1"], "clicks": [3], "late": [None]}
    shop.push("counts", {"pin_id": "p2", "clicks": 1, "late": 0.5})
    assert shop.read("counts:late", pin_id=["p1", "p2"])["late"] == [None, 0.5]
    shop.apply(counts(shop))
    assert shop.read("counts:clicks", pin_id=["p1", "p2"])["clicks"] == [3, 1]

    # A view of documents gains and loses texts and numbers too; its collection gains the indexes.
    bare = {"vector": pinned()["vector"]}
    fewer, more = shop.view("docs", bare), shop.view("docs", {**pinned(), "summary": String})
    shop.apply(fewer)
    shop.apply(more)
    assert shop.specs()["shop__docs"].indexes["f.summary"] == "keyword"
    assert shop.read("docs:lang", "docs:summary", pin_id=["p1"]) == {
        "pin_id": ["p1"],
        "lang": ["en"],
        "summary": [None],
    }
    shop.push("docs", {"pin_id": "p2", "vector": [1.0, 0.0], "summary": "an oak board"})
    assert shop.read("docs:summary", pin_id=["p1", "p2"])["summary"] == [None, "an oak board"]


def test_changed_entities_leave_no_rows_behind(shop: Shop) -> None:
    filled(shop)
    shop.apply(counts(shop, keys=("query", "pin_id")))
    assert shop.collections() == {"shop@pin_id": 1, "shop@pin_id+query": 0, "shop__docs": 1}
    shop.push("counts", {"pin_id": "p1", "query": "oak", "clicks": 2})
    assert shop.read("counts:clicks", "text:title", pin_id=["p1"], query=["oak"])["clicks"] == [2]
    shop.apply(counts(shop))  # and back
    assert shop.read("counts:clicks", "text:title", pin_id=["p1"])["clicks"] == [None]
    assert shop.collections() == {"shop@pin_id": 1, "shop@pin_id+query": 0, "shop__docs": 1}


def test_a_view_gains_and_loses_its_vector(shop: Shop) -> None:
    filled(shop)
    plain = {name: kind[0] if isinstance(kind, tuple) else kind for name, kind in pinned().items()}
    shop.apply(shop.view("docs", plain))
    assert shop.collections() == {"shop@pin_id": 2}
    shop.push("docs", {"pin_id": "p1", "vector": [1.0, 2.0, 3.0], "lang": "fr", "title": "t"})
    assert shop.read("docs:vector", "docs:lang", pin_id=["p1"])["vector"] == [[1.0, 2.0, 3.0]]
    shop.apply(shop.view("docs", pinned()))
    assert shop.collections() == {"shop@pin_id": 2, "shop__docs": 0}


def test_a_changed_vector_is_explained(shop: Shop) -> None:
    from feast.types import Array, Float32, String

    filled(shop)
    later = r"declared otherwise .*remove the view, apply, then add it again"
    for changed in ({"vector_length": 3}, {"vector_search_metric": "cosine"}):
        with pytest.raises(SpecMismatchError, match=later):
            shop.apply(shop.view("docs", pinned(**changed)))
    assert shop.read("docs:lang", pin_id=["p1"])["lang"] == ["en"]

    # Without a declared length the first row says it, and the metric still counts.
    free = {"vector": (Array(Float32), {"vector_index": True, "vector_search_metric": "dot"})}
    view = shop.view("free", free)
    shop.apply(view)
    assert "shop__free" not in shop.collections()
    assert shop.read("free:vector", pin_id=["p1"])["vector"] == [None]
    with pytest.raises(BadInputError, match=r"All vectors of free are empty.*vector_length"):
        shop.push("free", {"pin_id": "p1", "vector": []})
    shop.push("free", {"pin_id": "p1", "vector": [1.0, 2.0, 3.0]})
    shop.push("free", {"pin_id": "p2", "vector": []})
    assert shop.read("free:vector", pin_id=["p1", "p2"])["vector"] == [[1.0, 2.0, 3.0], []]
    with pytest.raises(SpecMismatchError, match=later):
        shop.push("free", {"pin_id": "p3", "vector": [1.0]})
    declared = {"vector": (Array(Float32), {"vector_index": True, "vector_search_metric": "L1"})}
    with pytest.raises(SpecMismatchError, match=later):
        shop.apply(shop.view("free", declared))
    with pytest.raises(ValueError, match=r"vector_search_metric of odd\.vector is 'nearness'; allowed are cosine"):
        shop.apply(shop.view("odd", pinned(vector_search_metric="nearness")))
    with pytest.raises(BadInputError, match=r"odd\.vector has vector_index=True, so it has to be a list of numbers"):
        shop.apply(shop.view("odd", {"vector": (Array(String), {"vector_index": True, "vector_length": 2})}))


class TestTeardown:
    def test_of_the_whole_repository(self, shop: Shop) -> None:
        filled(shop)
        shop.feast.teardown()
        assert shop.collections() == {}
        shop.feast.teardown()
        filled(shop)  # and all over again
        assert shop.read("counts:clicks", pin_id=["p1"])["clicks"] == [3]

    def test_of_one_view_leaves_the_others(self, shop: Shop) -> None:
        filled(shop)
        shop.store.teardown(shop.config, [shop.feast.get_feature_view("counts")], [])
        assert shop.read("counts:clicks", "text:title", "docs:lang", pin_id=["p1"]) == {
            "pin_id": ["p1"],
            "clicks": [None],
            "title": ["Oak"],
            "lang": ["en"],
        }
        shop.store.teardown(shop.config, [shop.feast.get_feature_view("docs")], [])
        assert shop.collections() == {"shop@pin_id": 1}

    @pytest.mark.parametrize("kind", ["edge"])
    def test_of_what_was_never_applied_makes_no_folder(self, shop: Shop) -> None:
        shop.feast.teardown()
        assert not (shop.root / "data").exists()


@pytest.mark.parametrize("kind", ["edge", "server-fake", "server"])  # in memory every project is by itself
def test_projects_in_one_store_are_kept_apart(shop: Shop, tmp_path: Path) -> None:
    """Also those whose names, put before a view's, make the same word."""
    filled(shop)
    options = {**shop.options, **({"path": str(shop.root / "data/online")} if "path" in shop.options else {})}
    shops = [Shop(tmp_path / name, name, **options) for name in ("b", "b__c")]
    names = {"b": "c__docs", "b__c": "docs"}
    for other in shops:
        name = names[other.config.project]
        other.apply(counts(other), other.view(name, pinned()))
        assert other.read("counts:clicks", pin_id=["p1"])["clicks"] == [None]
        other.push("counts", {"pin_id": "p1", "clicks": len(name)})
        other.push(name, {"pin_id": "p1", "vector": [1.0, 0.0], "title": other.config.project, "lang": "en"})
    for other in shops:
        name = names[other.config.project]
        assert other.read("counts:clicks", pin_id=["p1"])["clicks"] == [len(name)]
        found = other.feast.retrieve_online_documents_v2([f"{name}:title"], 9, [1.0, 0.0]).to_dict()
        assert found["title"] == [other.config.project]
    for other in shops:
        other.feast.teardown()
        assert shop.read("counts:clicks", "docs:lang", pin_id=["p1"]) == {
            "pin_id": ["p1"],
            "clicks": [3],
            "lang": ["en"],
        }
    assert shop.collections() == {"shop@pin_id": 2, "shop__docs": 1}


class TestVersions:
    """``registry.enable_online_feature_view_versioning``: every version of a view has rows of its own."""

    @pytest.fixture
    def shop(self, tmp_path: Path, online: dict[str, Any]) -> Any:
        yield Shop(tmp_path / "shop", registry={"enable_online_feature_view_versioning": True}, **online)
        sessions.close_all()

    @LOCAL
    def test_are_read_and_dropped(self, shop: Shop) -> None:
        from feast.types import Int64, String

        first = shop.view("counts", {"clicks": Int64})
        lookalike = shop.view("counts_v1", {"clicks": Int64})  # what Feast's own stores call the version below
        shop.apply(first, lookalike, shop.view("docs", pinned()))
        shop.push("counts", {"pin_id": "p1", "clicks": 1})
        shop.push("counts_v1", {"pin_id": "p1", "clicks": 77})
        shop.push("docs", {"pin_id": "p1", "vector": [1.0, 0.0], "title": "old", "lang": "en"})

        shop.apply(
            shop.view("counts", {"clicks": Int64, "views": Int64}), shop.view("docs", {**pinned(), "more": String})
        )
        versions = {view.name: view.current_version_number for view in shop.feast.list_feature_views()}
        assert versions == {"counts": 1, "docs": 1, "counts_v1": None}
        assert shop.read("counts:clicks", pin_id=["p1"])["clicks"] == [None]
        shop.push("counts", {"pin_id": "p1", "clicks": 2, "views": 20})
        shop.push("docs", {"pin_id": "p1", "vector": [0.0, 1.0], "title": "new", "lang": "en", "more": "m"})
        read = shop.read(
            "counts@v0:clicks", "counts@v1:clicks", "counts_v1:clicks", pin_id=["p1"], full_feature_names=True
        )
        assert read == {
            "pin_id": ["p1"],
            "counts@v0__clicks": [1],
            "counts@v1__clicks": [2],
            "counts_v1__clicks": [77],
        }
        for ref, title in (("docs@v0:title", "old"), ("docs@v1:title", "new"), ("docs:title", "new")):
            found = shop.feast.retrieve_online_documents_v2([ref], 5, [1.0, 0.0]).to_dict()
            assert found["title"] == [title]
        assert shop.collections() == {"shop@pin_id": 3, "shop__docs": 1, "shop__docs%40v1": 1}

        gone = [shop.feast.get_feature_view("counts"), shop.feast.get_feature_view("docs")]
        shop.apply(lookalike, delete=gone)
        assert shop.collections() == {"shop@pin_id": 1}
        assert shop.read("counts_v1:clicks", pin_id=["p1"])["clicks"] == [77]


class TestPlan:
    @LOCAL
    def test_lists_what_the_registry_needs(self, shop: Shop) -> None:
        from feast.infra.infra_object import Infra
        from feast.repo_contents import RepoContents
        from feast.types import Array, Float32, Int64

        known = [
            counts(shop),
            text(shop),
            shop.view("docs", pinned(vector_search_metric="cosine")),
            shop.view("pairs", {"n": Int64}, keys=("query", "pin_id")),
            shop.view("free", {"vector": (Array(Float32), {"vector_index": True})}),
            shop.view("offline", {"n": Int64}, keys=("query",), online=False),
        ]
        contents = RepoContents(
            projects=[],
            data_sources=[],
            entities=entities(*known),
            feature_views=known,
            on_demand_feature_views=[],
            stream_feature_views=[],
            label_views=[],
            feature_services=[],
            permissions=[],
        )
        _, diff, infra = shop.feast.plan(contents)
        assert [item.name for item in infra.infra_objects] == ["shop@pin_id", "shop@pin_id+query", "shop__docs"]
        assert diff.infra_object_diffs == []  # Feast shows those of two stores of its own only

        read = Infra.from_proto(infra.to_proto()).infra_objects  # as a registry keeps them
        assert {item.name: (item.spec, item.place) for item in read} == {
            item.name: (item.spec, item.place) for item in infra.infra_objects
        }
        for item in read:
            item.update()
            item.update()
        assert shop.collections() == dict.fromkeys((item.name for item in infra.infra_objects), 0)
        before = shop.specs()
        shop.apply(*known)
        assert shop.specs() == before
        read[-1].teardown()
        read[-1].teardown()
        assert sorted(shop.collections()) == ["shop@pin_id", "shop@pin_id+query"]

    @pytest.mark.parametrize("kind", ["memory"])
    def test_keeps_the_api_key_to_itself_and_leaves_spaces_out(self, shop: Shop) -> None:
        from feast.protos.feast.core.Registry_pb2 import Registry

        from materialize.feast_plan import QdrantCollection
        from materialize.stores.place import Place
        from materialize.stores.points import CollectionSpec

        made = QdrantCollection("a", CollectionSpec(), Place(url="http://host:6333", api_key="secret"))
        assert b"secret" not in made.to_infra_object_proto().SerializeToString()
        desired = Registry(feature_views=[shop.view("docs", pinned()).to_proto(), counts(shop).to_proto()])
        shop.release(docs="a-space")
        assert [item.name for item in shop.store.plan(shop.config, desired)] == ["shop@pin_id"]


@pytest.mark.parametrize("kind", ["edge"])
def test_reading_before_anything_was_written(shop: Shop) -> None:
    with pytest.raises(StoreError, match="write and publish first"):
        shop.store.online_read(shop.config, counts(shop), [entity_key(pin_id="p1")])
