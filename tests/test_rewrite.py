"""Collections written anew: the same points, and no byte of those that were deleted."""

import os

import numpy as np
import pytest

from materialize.stores.layout import entity_spec, point_id, row_payload
from materialize.stores.port import CollectionSpec, Point, VectorSpec
from materialize.stores.publication import open_reader, open_writer

ROWS, SPACE = "shop@pin_id", "space"


def points(count, vectors=False):
    rng = np.random.default_rng(0)
    for number in range(count):
        pin_id = "zeppelin" if number == 3 else f"p{number}"
        vector = {"vector": rng.normal(size=8).astype(np.float32)} if vectors else {}
        payload = row_payload("v", {"pin_id": pin_id}, number, {"title": f"title of {pin_id}"}, extras={"lang": "en"})
        yield Point(point_id("shop", "v", {"pin_id": pin_id}), payload, vector)


def filled(root):
    """A store of two collections without the zeppelin that they had."""
    with open_writer(root) as store:
        store.create(ROWS, entity_spec())
        store.create(SPACE, CollectionSpec({"vector": VectorSpec(8)}, indexes={"lang": "keyword"}))
        for name in (ROWS, SPACE):
            several = list(points(1100, vectors=name == SPACE))
            store.upsert(name, several)
            store.delete(name, ids=[several[3].id])
        store.publish()


def everything(store):
    found = {}
    for name in (ROWS, SPACE):
        page, after = [], None
        while after or not page:
            more, after = store.scroll(name, limit=700, after=after, with_vectors=True)
            page += more
            if after is None:
                break
        found[name] = [(point.id, point.payload, {k: v.tolist() for k, v in point.vectors.items()}) for point in page]
    return found


def mentions(root):
    return [path for path in root.rglob("*") if path.is_file() and b"zeppelin" in path.read_bytes()]


@pytest.mark.slow
def test_a_rewrite_keeps_every_point_and_no_byte_of_the_deleted(tmp_path):
    filled(tmp_path)
    with open_writer(tmp_path) as store:
        before, specs = everything(store), store.collections()
        assert mentions(tmp_path)
        for name in (ROWS, SPACE):
            store.rewrite(name)
        assert everything(store) == before
        assert store.collections() == specs
        store.publish()
        assert store.forget_former() == []
    assert mentions(tmp_path) == []
    with open_reader(tmp_path) as reader:
        assert everything(reader) == before
        assert [len(found) for found in before.values()] == [1099, 1099]


@pytest.mark.parametrize("call", [2, *(pytest.param(call, marks=pytest.mark.slow) for call in (0, 1, 3))])
def test_a_rewrite_that_is_killed_leaves_the_old_or_the_new(tmp_path, call, monkeypatch):
    """Renames: the fresh one as it is made, the old one away, the fresh one in its place."""
    filled(tmp_path)
    calls, plain = [], os.rename

    def killed(*words):
        calls.append(words)
        if len(calls) == call + 1:
            os._exit(7)
        plain(*words)

    with open_writer(tmp_path) as store:
        before = everything(store)
    child = os.fork()
    if child == 0:
        os.rename = killed
        with open_writer(tmp_path) as store:
            store.rewrite(SPACE)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == (7 if call < 3 else 0)
    with open_writer(tmp_path) as store:
        assert everything(store) == before
        assert sorted(path.name for path in (tmp_path / "writer").iterdir() if path.name[0] != ".") == [ROWS, SPACE]
