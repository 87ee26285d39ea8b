"""Embedding views whose vectors lie in a space of the materializer's, and rows that three writers write equally."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import Catalogue, CountingEncoder
from feast_shop import NOON, Shop, entity_key, pinned, proto
from made_once import moved

from materialize.stores import layout
from materialize.stores import session as sessions
from materialize.stores.errors import BadInputError
from materialize.stores.points import CollectionSpec, Point, VectorSpec

pytest_plugins = ["feast_places"]

SPACE = "search-a1"
KIND = {"text_fp": "abc", "lang": "en"}
"""What the materializer keeps beside a vector."""


def text(shop: Shop) -> Any:
    from feast.types import String

    return shop.view("text", {"title": String})


def docs(shop: Shop, **options: Any) -> Any:
    """The embedding view; its texts are declared, but a space holds none."""
    return shop.view("docs", pinned(**{"vector_search_metric": "cosine", **options}))


def released(shop: Shop, space: str = SPACE) -> Shop:
    """A space with unit vectors of p1 and p2, and a release that names it."""
    shop.apply(text(shop))
    vectors = {"p1": [0.0, 1.0], "p2": [0.6, 0.8]}
    with shop.session.writing("a run") as writer:
        writer.create(space, CollectionSpec({"vector": VectorSpec(2)}))
        writer.upsert(
            space,
            [
                Point(
                    layout.point_id("shop", "docs", {"pin_id": pin}),
                    layout.row_payload("docs", {"pin_id": pin}, layout.to_micros(NOON), {}, extras=KIND),
                    {"vector": vector},  # type: ignore[dict-item]
                )
                for pin, vector in vectors.items()
            ],
        )
        writer.publish({"names": {"docs": space}})
    return shop


def stored(shop: Shop) -> dict[str, tuple[Any, dict[str, Any]]]:
    points = {point.payload["key"]["pin_id"]: point for point in shop.points(SPACE)}
    return {pin: (point.vectors["vector"].tolist(), point.payload) for pin, point in points.items()}


def test_feast_reads_and_searches_the_space(shop: Shop) -> None:
    released(shop)
    shop.apply(docs(shop))
    read = shop.read("docs:vector", pin_id=["p1", "p2", "p3"])["vector"]
    assert read == [[0.0, 1.0], [pytest.approx(0.6), pytest.approx(0.8)], None]
    found = shop.feast.retrieve_online_documents_v2(["docs:vector"], 5, [0.0, 2.0]).to_dict()  # of any length
    assert dict(zip(found["pin_id"], found["distance"], strict=True)) == pytest.approx({"p1": 0.0, "p2": 0.2}, abs=1e-6)
    assert shop.collections() == {SPACE: 2, "shop@pin_id": 0}
    with pytest.raises(BadInputError, match=f"lie in the space {SPACE}, which holds vectors and no words"):
        shop.feast.retrieve_online_documents_v2(["docs:vector"], 5, [0.0, 2.0], "oak")


@pytest.mark.parametrize("space", [SPACE, "shop__docs"])
def test_apply_drop_and_teardown_leave_it_alone(shop: Shop, space: str) -> None:
    released(shop, space)
    shop.apply(docs(shop, vector_length=5))
    shop.apply(docs(shop, vector_length=5))
    shop.apply(text(shop), delete=[shop.feast.get_feature_view("docs")])
    shop.apply(docs(shop))
    shop.feast.teardown()
    assert shop.collections() == {space: 2}


def test_feast_materialize_brings_what_the_log_has_and_keeps_the_rest(shop: Shop) -> None:
    released(shop)
    shop.apply(docs(shop))
    before = stored(shop)
    log = {"title": None, "lang": None}
    shop.sources("docs", *({"pin_id": pin, "vector": vector, **log} for pin, (vector, _) in before.items()))
    shop.materialize("docs")
    assert stored(shop) == before
    shop.sources("docs", {"pin_id": "p1", "vector": [0.1, 0.2], **log}, at=NOON - timedelta(days=1))
    shop.materialize("docs")
    assert stored(shop) == before

    later = NOON + timedelta(hours=1)
    new = [{"pin_id": "p1", "vector": [1.0, 0.0], **log}, {"pin_id": "p3", "vector": [-1.0, 0.0], **log}]
    shop.sources("docs", *new, at=later)
    shop.materialize("docs")
    after = stored(shop)
    assert after["p2"] == before["p2"]
    assert [after[pin][0] for pin in ("p1", "p3")] == [[1.0, 0.0], [-1.0, 0.0]]
    assert {name: after["p1"][1][name] for name in KIND} == KIND
    assert after["p1"][1]["event_ts"] == layout.to_micros(later)


def test_pushing_into_a_space_is_refused_with_the_reason(shop: Shop) -> None:
    import asyncio

    shop.apply(text(shop), docs(shop))
    row = {"pin_id": "p1", "vector": [1.0, 0.0]}
    shop.push("docs", row)  # nothing names a space yet
    released(shop)
    before = stored(shop)
    refused = (
        rf"docs cannot be pushed: its vectors lie in the space {SPACE}.*Change the sources.*pinfeather materialize"
    )
    frame = pd.DataFrame([{**row, "title": None, "lang": None, "event_timestamp": NOON, "created_timestamp": NOON}])
    for push in (
        lambda: shop.push("docs", row),
        lambda: shop.feast.write_to_online_store("docs", frame),
        lambda: asyncio.run(shop.feast.push_async("docs_push", frame)),
        lambda: shop.write(docs(shop), (entity_key(pin_id="p1"), {"vector": proto([1.0, 0.0])})),
    ):
        with pytest.raises(BadInputError, match=refused):
            push()
    assert stored(shop) == before
    shop.push("text", {"pin_id": "p1", "title": "Oak"})
    assert shop.read("text:title", pin_id=["p1"])["title"] == ["Oak"]


class TestThreeWriters:
    """A feature row is the same whether `feast materialize`, a push or our materializer wrote it."""

    @pytest.fixture
    def writers(self, applied: Any, tmp_path: Path) -> Iterator[Any]:
        from feast import FeatureStore

        catalogue = Catalogue(moved(applied.root, tmp_path / "repo"))
        catalogue.put("p1", "Oak shelf", lang="en", created_at=datetime(2024, 5, 6, tzinfo=UTC))
        catalogue.put("p2", "Étagère 🌿", description="", lang="fr").put("p3", None, country=None).save()
        yield catalogue.paths, FeatureStore(repo_path=str(catalogue.paths.root))
        sessions.close_all()

    def test_rows_are_equal(self, writers: Any) -> None:
        import pyarrow.parquet as pq
        from feast import PushSource
        from feast.data_source import PushMode

        from materialize.run import RunOptions, materialize
        from materialize.stores.session import session

        repo, store = writers
        views = [view for view in store.list_feature_views() if "vector" not in view.tags.get("kind", "")]
        views = [view for view in views if not any(field.vector_index for field in view.features)]

        def rows() -> dict[str, Any]:
            with session(repo.online).reading() as reader:
                found = {}
                for name in reader.collections():
                    if "@" in name:
                        found.update({point.id: point.payload for point in reader.scroll(name)[0]})
            return {key: {name: value for name, value in row.items() if name != "fp"} for key, row in found.items()}

        def emptied() -> None:
            store._get_provider().online_store.teardown(store.config, views, [])
            assert rows() == {}

        materialize(repo, RunOptions(encoder=CountingEncoder()))
        ours = rows()
        assert {row["view"] for row in ours.values()} >= {"pin_text", "pin_relevance"}
        assert all("fp" not in row and isinstance(row["event_ts"], int) for row in ours.values())

        emptied()
        store.materialize(datetime(2020, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC), [v.name for v in views])
        assert rows() == ours

        emptied()
        for view in views:
            frame = pq.read_table(view.batch_source.path).to_pandas()
            if len(frame):
                view.source = view.stream_source = PushSource(name=f"{view.name}_push", batch_source=view.batch_source)
                store.apply([view])
                store.push(f"{view.name}_push", frame, to=PushMode.ONLINE)
        assert rows() == ours
