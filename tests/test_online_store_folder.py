"""What is special to a folder: the writer lease, publications, and readers without Feast."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from feast_shop import NOON, Shop, pinned

from materialize.stores import layout
from materialize.stores import session as sessions
from materialize.stores.errors import StoreBusyError
from materialize.stores.lease import WriterLease
from materialize.stores.points import Point
from materialize.stores.publication import open_reader, open_writer

pytest_plugins = ["feast_places"]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """Two rows of a plain view and one of a document view, published at every write."""
    shop = Shop(tmp_path / "shop", publish_interval=0, lock_timeout=0.1)
    shop.apply(text(shop), shop.view("docs", pinned(vector_search_metric="dot")))
    shop.push("text", {"pin_id": "p1", "title": "Oak shelf", "boards": ["Living"]}, {"pin_id": "p2", "title": None})
    shop.push("docs", {"pin_id": "p1", "vector": [0.5, 0.25], "title": "t", "lang": None})
    yield shop
    sessions.close_all()


def text(shop: Shop) -> Any:
    from feast.types import Array, String

    return shop.view("text", {"title": String, "boards": Array(String)})


def root(shop: Shop) -> Path:
    return shop.root / "data" / "online"


def titles(shop: Shop, *pins: str) -> list[Any]:
    return shop.read("text:title", pin_id=pins)["title"]


def test_initialize_waits_for_no_first_row(tmp_path: Path) -> None:
    empty = Shop(tmp_path / "shop")
    asyncio.run(empty.feast.initialize())
    assert not list(root(empty).glob("**/publication.json"))


def test_initialize_opens_what_is_there(shop: Shop) -> None:
    asyncio.run(shop.feast.close())
    assert list((root(shop) / "readers").iterdir()) == []
    asyncio.run(shop.feast.initialize())
    assert len(list((root(shop) / "readers").iterdir())) == 1
    assert titles(shop, "p1") == ["Oak shelf"]


def test_rows_are_laid_out_for_readers_without_feast(shop: Shop) -> None:
    with open_reader(root(shop)) as reader:
        points = reader.get_many("shop@pin_id", layout.point_ids("shop", "text", "pin_id", ["p1", "p2", "p3"]))
        (doc,) = reader.get_many("shop__docs", [layout.point_id("shop", "docs", {"pin_id": "p1"})], with_vectors=True)
    assert layout.decode_feature(points, "title", "string") == ["Oak shelf", None, None]
    now = layout.to_micros(NOON)
    row = {"key": {"pin_id": "p1"}, "event_ts": now, "created_ts": now}
    assert points[0] is not None
    assert points[0].payload == {"view": "text", **row, "f": {"title": "Oak shelf", "boards": ["Living"]}}
    assert doc is not None
    assert doc.payload == {"view": "docs", **row, "f": {"title": "t", "lang": None}}
    assert doc.vectors["vector"].tolist() == [0.5, 0.25]


def test_a_busy_folder_refuses_the_push_and_keeps_serving(shop: Shop) -> None:
    sessions.close_all()
    with (
        WriterLease(root(shop) / "writer.lock", purpose="nightly run"),
        pytest.raises(StoreBusyError, match="nightly run"),
    ):
        shop.push("text", {"pin_id": "p1", "title": "late"}, at=NOON + timedelta(hours=1))
    assert titles(shop, "p1") == ["Oak shelf"]


def test_a_materializer_in_the_same_process_publishes_when_its_work_is_whole(shop: Shop) -> None:
    with open_writer(root(shop)) as materializer:
        before = materializer.number
        payload = layout.row_payload("text", {"pin_id": "p4"}, layout.to_micros(NOON), {"title": "made here"})
        materializer.upsert("shop@pin_id", [Point(layout.point_id("shop", "text", {"pin_id": "p4"}), payload)])
        shop.push("text", {"pin_id": "p1", "title": "pushed"}, at=NOON + timedelta(hours=1))
        assert titles(shop, "p4", "p1") == ["made here", "pushed"]
        assert materializer.number == before
        materializer.publish()
    assert titles(shop, "p4", "p1") == ["made here", "pushed"]


def test_pushes_within_the_interval_share_a_publication(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "shop", publish_interval=3600)
    shop.apply(text(shop))
    with open_reader(root(shop)) as other:
        applied = other.number
        for n in range(3):
            shop.push("text", {"pin_id": f"p{n}", "title": f"title {n}"})
            assert titles(shop, f"p{n}") == [f"title {n}"]
        sessions.close_all()
        other.refresh()
        assert other.count("shop@pin_id") == 3
        assert other.number <= applied + 2


def test_a_store_that_feast_closes_has_published(shop: Shop) -> None:
    import asyncio

    slow = Shop(shop.root, registry={"path": str(shop.root / "slow.db")}, publish_interval=3600)
    slow.apply(text(slow))
    with open_reader(root(shop)) as other:
        slow.push("text", {"pin_id": "p8", "title": "eight"})
        slow.push("text", {"pin_id": "p9", "title": "nine"})
        asyncio.run(slow.feast.close())
        other.refresh()
        assert other.count("shop@pin_id") == 4
