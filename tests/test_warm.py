"""Head queries made before a switch: what is in the files, who begins with them, and that nothing erased comes back."""

import io
import json
import logging
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from client_catalogue import WordEncoder, move_pin
from conftest import CountingEncoder
from erase_shop import QUERY, SHARED_QUERY, write_shop

from feature_repo.erasures import Erasures, Subjects, record
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.text import query_digest
from materialize.encoders import Encoders
from materialize.erasure.check import check
from materialize.erasure.flow import erase
from materialize.promotion import Gate, GateError, promote, rollback
from materialize.releases import current_release
from materialize.run import RunOptions
from materialize.space_admin import backfill, create_space, drop_space
from materialize.spaces import load_space
from materialize.warm import warm_space
from materialize.warm_files import last_erasure, mark_erasure, read_warm, warm_path
from pinfeather.promoting import warm_head
from serving_client import PinClient

pytest_plugins = ("client_repo",)

LAX = Gate(overlap_min=0.0)
HEAD = "green velvet sofa"


def searched(paths, counts):
    """Let ``query_stats`` say how often each query was searched."""
    columns = {"query": pa.array(list(counts), pa.string()), "searches": pa.array(counts.values(), pa.int64())}
    pq.write_table(pa.table(columns), paths.views / "query_stats.parquet")


def live_space(paths):
    return load_space(paths, current_release(paths).live_space)


def warmed(paths, count=10, encoder=None, space=None):
    """Warm the live space."""
    encoder = encoder or WordEncoder()
    return warm_space(paths, space or live_space(paths), count, lambda: encoder)


@pytest.fixture
def small(client_shop):
    """A filled space of another tower: the first components only."""
    create_space(client_shop, "small", dimension=128)
    for _ in backfill(client_shop, "small", RunOptions(encoder=WordEncoder())):
        pass
    return client_shop


def test_a_client_begins_a_new_space_with_its_head_queries(small, tower):
    with PinClient(small.root, encoder=tower) as client:
        client.embed_queries([HEAD, "fern"])
        maker = Encoders(given=WordEncoder())
        switch = promote(small, "small", LAX, warm=warm_head(small, 10, maker, lambda done, total: None))
        assert (switch.switched, switch.warmed) == (True, 1)
        tower.encoded.clear()
        assert client.refresh()
        found = client.embed_queries(["  Green velvet SOFA ", "fern"])
        assert (found.space, tower.encoded) == ("small", ["fern"])
        assert (client.query_cache.warmed, client.query_cache.entries) == (1, 2)
    with PinClient(small.root, encoder=WordEncoder(), query_cache_bytes=0) as cold:
        assert np.array_equal(cold.embed_queries([HEAD]).vectors[0], found.vectors[0])
    with PinClient(small.root, encoder=tower) as fresh:
        fresh.embed_queries([HEAD])
    assert tower.encoded == ["fern"]


def test_a_rollback_finds_the_former_file(small, tower):
    before = live_space(small).name
    assert warmed(small) == 1
    promote(small, "small", LAX, warm=warm_head(small, 10, Encoders(given=WordEncoder()), lambda done, total: None))
    rollback(small)
    with PinClient(small.root, encoder=tower) as client:
        assert client.embed_queries([HEAD]).space == before
    assert tower.encoded == []


def test_a_gate_that_refuses_keeps_what_was_made(small):
    maker = WordEncoder()
    strict = Gate(overlap_min=1.0)
    warm = warm_head(small, 10, Encoders(given=maker), lambda done, total: None)
    with pytest.raises(GateError) as refused:
        promote(small, "small", strict, warm=warm)
    assert (refused.value.switch.warmed, maker.encoded) == (1, [HEAD])
    assert promote(small, "small", LAX, warm=warm).warmed == 1
    assert maker.encoded == [HEAD]
    with pytest.raises(UsageError, match="live already"):
        promote(small, "small", LAX, warm=lambda space: pytest.fail("it was asked for what nobody needs"))


def test_the_file_has_the_most_searched_and_no_text(client_shop):
    searched(client_shop, {"aa": 5, "zz": 9, "bb": 5, "cc": 1, "sofa": 7, "": 100})
    assert warmed(client_shop, 5) == 4
    warm = read_warm(client_shop, live_space(client_shop).name)
    assert warm.digests == [query_digest(query) for query in ("zz", "sofa", "aa", "bb")]
    expected = WordEncoder().encode(["zz"])[0].astype(np.float16)
    assert np.array_equal(warm.vectors[0], expected)
    assert warm.tower == WordEncoder().fingerprint
    assert b"sofa" not in warm_path(client_shop, live_space(client_shop).name).read_bytes()


def test_only_new_queries_are_encoded_and_only_for_the_same_tower(client_shop):
    searched(client_shop, {"a": 3, "b": 2})
    first, second, third = WordEncoder(), WordEncoder(), WordEncoder("another")
    seen = []
    warm_space(client_shop, live_space(client_shop), 10, lambda: first, lambda done, total: seen.append((done, total)))
    searched(client_shop, {"b": 3, "c": 9})
    warmed(client_shop, encoder=second)
    assert (first.encoded, second.encoded) == (["a", "b"], ["c"])
    space = replace(live_space(client_shop), model_fingerprint="another", query_towers=("another",))
    assert warmed(client_shop, encoder=third, space=space) == 2
    assert third.encoded == ["c", "b"]
    assert warm_space(client_shop, space, 10, lambda: pytest.fail("nothing is new")) == 2


def test_without_searches_there_is_nothing_to_warm(client_shop):
    searched(client_shop, {})
    assert warm_space(client_shop, live_space(client_shop), 10, lambda: pytest.fail("nothing to encode")) == 0
    with PinClient(client_shop.root, encoder=WordEncoder()) as client:
        client.embed_queries(["fern"])
        assert client.query_cache.warmed == 0
    (client_shop.views / "query_stats.parquet").unlink()
    with pytest.raises(UsageError, match="pinfeather aggregate"):
        warmed(client_shop)


def test_the_first_of_the_head_are_taken_where_there_is_no_room_for_all(client_shop, tower):
    searched(client_shop, {f"q{number}": 100 - number for number in range(10)})
    warmed(client_shop)
    with PinClient(client_shop.root, encoder=tower, query_cache_bytes=4 * (768 + 400)) as client:
        client.embed_queries([f"q{number}" for number in range(4)])
        assert (tower.encoded, client.query_cache.entries) == ([], 4)


def test_a_new_publication_does_not_bring_back_what_was_evicted(client_shop, tower):
    warmed(client_shop)
    with PinClient(client_shop.root, encoder=tower) as client:
        client.embed_queries([HEAD])
        assert client.evict_queries(["GREEN velvet  sofa", "unknown"]) == 2
        move_pin(client_shop, "pasta0", "fern")
        assert client.refresh()
        assert (client.query_cache.entries, tower.encoded) == (0, [])
        client.embed_queries([HEAD])
    assert tower.encoded == [HEAD]
    with pytest.raises(UsageError, match="takes a list"):
        client.evict_queries(HEAD)


def flipped(data):
    return data[:-2000] + bytes([data[-2000] ^ 255]) + data[-1999:]


def bare_array(data):
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


def packed_otherwise(data):
    """Another way of packing, which zipfile does not know."""
    at = data.index(b"PK\1\2") + 10
    return data[:at] + b"\x63" + data[at + 1 :]


def encrypted(data):
    at = data.index(b"PK\1\2") + 8
    return data[:at] + bytes([data[at] | 1]) + data[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        flipped,
        bare_array,
        packed_otherwise,
        encrypted,
        lambda data: data[:500],
        lambda data: b"",
        lambda data: b"no archive at all",
    ],
    ids=["flipped", "bare", "packed", "encrypted", "cut", "empty", "other"],
)
def test_a_damaged_file_is_left_alone_with_a_warning(client_shop, tower, caplog, damage):
    searched(client_shop, {f"q{number}": 1 for number in range(10)})
    warmed(client_shop)
    path = warm_path(client_shop, live_space(client_shop).name)
    path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level(logging.WARNING), PinClient(client_shop.root, encoder=tower) as client:
        client.embed_queries(["q1"])
        move_pin(client_shop, "pasta0", "fern")
        client.refresh()
    assert caplog.text.count("begins without its head queries") == 1
    assert str(path) in caplog.text
    assert (tower.encoded, path.exists()) == (["q1"], True)
    assert warmed(client_shop) == 10  # made anew
    assert read_warm(client_shop, live_space(client_shop).name) is not None


def test_a_file_of_another_tower_is_left_alone_with_a_warning(client_shop, tower, caplog):
    space = replace(live_space(client_shop), model_fingerprint="another", query_towers=("another",))
    warmed(client_shop, space=space)
    with caplog.at_level(logging.WARNING), PinClient(client_shop.root, encoder=tower) as client:
        client.embed_queries([HEAD])
    assert "of the tower another" in caplog.text
    assert tower.encoded == [HEAD]


def test_a_dropped_space_takes_its_file_along(small):
    warmed(
        small,
        space=load_space(small, "small"),
        encoder=Encoders(given=WordEncoder()).of_queries(load_space(small, "small")),
    )
    assert warm_path(small, "small").exists()
    drop_space(small, "small")
    assert not warm_path(small, "small").exists()


# --- erasures ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def shop(prepared, encoder):
    """The shop of the erasures, written and warmed: two people asked one query, three the other."""
    paths = prepared("erasures", write_shop)
    assert warmed(paths, encoder=encoder) == 2
    encoder.calls.clear()
    return paths


def digests(paths):
    return read_warm(paths, live_space(paths).name).digests


@pytest.mark.parametrize(
    ("names", "stays"),
    [
        ({"queries": [SHARED_QUERY]}, QUERY.lower()),
        ({"users": ["ann"]}, SHARED_QUERY),  # one person is too few for the other one
    ],
    ids=["query", "user"],
)
def test_an_erased_query_leaves_the_file_and_running_clients(shop, encoder, names, stays):
    tower = CountingEncoder()
    both = [SHARED_QUERY, QUERY.lower()]
    with PinClient(shop.root, encoder=tower) as client:
        client.embed_queries([*both, "asked by somebody"])
        assert (client.query_cache.entries, tower.texts) == (3, ["asked by somebody"])
        report = erase(shop, Subjects.of(**names), RunOptions(encoder=encoder))
        assert report.warm == report.to_json()["warm"] == 1
        assert digests(shop) == [query_digest(stays)]
        assert client.refresh()
        assert client.query_cache.entries == 1
        client.embed_queries(both)
        assert tower.texts == ["asked by somebody", *(query for query in both if query != stays)]
    assert warmed(shop, encoder=encoder) == 1
    assert digests(shop) == [query_digest(stays)]


def test_clients_heed_an_erasure_that_made_no_publication(shop):
    tower = CountingEncoder()
    with PinClient(shop.root, encoder=tower) as client:
        client.embed_queries([SHARED_QUERY, "asked by somebody"])
        assert not client.refresh()
        assert client.query_cache.entries == 3
        mark_erasure(shop)  # as on a server, where only a new release is a new publication
        assert not client.refresh()
        assert client.query_cache.entries == 2
        client.embed_queries([SHARED_QUERY])
    assert tower.texts == ["asked by somebody"]


@pytest.mark.slow
def test_an_erasure_without_news_leaves_clients_alone(shop, encoder):
    subjects, options = Subjects.of(queries=[SHARED_QUERY]), RunOptions(encoder=encoder)
    erase(shop, subjects, options)
    mark = last_erasure(shop)
    assert mark
    erase(shop, subjects, options)
    assert last_erasure(shop) == mark


@pytest.mark.slow
def test_an_erasure_is_heeded_after_its_folder_was_deleted(shop):
    """A count that begins anew would come to the number that the client saw last."""
    mark_erasure(shop)
    with PinClient(shop.root, encoder=CountingEncoder()) as client:
        client.embed_queries([SHARED_QUERY, "asked by somebody"])
        shutil.rmtree(shop.warm)
        mark_erasure(shop)
        assert not client.refresh()
        assert client.query_cache.entries == 0
        client.embed_queries(["asked by somebody"])
        shutil.rmtree(shop.warm)
        assert not client.refresh()
        assert client.query_cache.entries == 0


def test_the_check_looks_into_the_files(shop, encoder):
    def head(subjects):
        return next(place for place in check(shop, subjects) if place.name == "head queries")

    subjects = Subjects.of(queries=[f" {SHARED_QUERY.upper()}"])
    found = head(subjects)
    assert (found.found, found.fails) == (1, True)
    assert found.where == [f"warm/{live_space(shop).name}.npz"]
    erase(shop, subjects, RunOptions(encoder=encoder))
    assert head(subjects).found == 0
    warm_path(shop, live_space(shop).name).write_bytes(b"?")
    with pytest.raises(PinfeatherError, match="cannot be read"):
        head(subjects)


def test_an_erasure_deletes_a_file_that_it_cannot_read(shop, encoder):
    path = warm_path(shop, live_space(shop).name)
    path.write_bytes(b"?")
    assert erase(shop, Subjects.of(queries=["never asked"]), RunOptions(encoder=encoder)).warm == 0
    assert not path.exists()


def test_what_is_erased_while_the_head_is_encoded_is_not_written(shop):
    class Erasing(CountingEncoder):
        def encode(self, texts, progress=None):
            record(shop, Subjects.of(queries=[SHARED_QUERY]))
            return super().encode(texts, progress)

    warm_path(shop, live_space(shop).name).unlink()
    with pytest.raises(PinfeatherError, match="erased while this ran"):
        warmed(shop, encoder=Erasing())
    assert not warm_path(shop, live_space(shop).name).exists()
    assert Erasures.load(shop).entries
    tower = CountingEncoder()
    assert warmed(shop, encoder=tower) == 1  # what is in the list stays away although query_stats still has it
    assert tower.texts == [QUERY.lower()]


def test_what_was_counted_anew_while_the_head_is_encoded_counts(shop):
    class Counting(CountingEncoder):
        def encode(self, texts, progress=None):
            searched(shop, {SHARED_QUERY: 3})
            return super().encode(texts, progress)

    warm_path(shop, live_space(shop).name).unlink()
    assert warmed(shop, encoder=Counting()) == 1
    assert digests(shop) == [query_digest(SHARED_QUERY)]


# --- the command ------------------------------------------------------------------------------------------------------


def test_promote_warm_refuses_what_it_cannot_do_before_anything_changes(client_shop, pinfeather):
    create_space(client_shop, "small", dimension=128)
    (client_shop.views / "query_stats.parquet").unlink()
    for number, words in ((5, "--warm wants to know"), (-1, "not in the range")):
        code, out, err = pinfeather("promote", "small", "--repo", client_shop.root, "--warm", number)
        assert (code, out) == (2, "")
        assert words in err
    assert current_release(client_shop).live_space != "small"


@pytest.mark.slow
def test_promote_warm_by_the_packaged_model(small, pinfeather):
    asked = ["promote", "small", "--repo", small.root, "--overlap-min", "0", "--warm"]
    code, out, _ = pinfeather(*asked, 5, "--json")
    assert (code, json.loads(out)["warmed"]) == (0, 1)
    assert digests(small) == [query_digest(HEAD)]
    code, out, _ = pinfeather("rollback", "--repo", small.root, "--json")
    assert "warmed" not in json.loads(out)
    code, out, _ = pinfeather(*asked, 0, "--json")
    assert (code, json.loads(out)["warmed"]) == (0, None)
