"""A small catalogue for the client's tests: its pins, an encoder that counts, copies and edits of its repository."""

import shutil
import zlib
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embedders.encoder import EncodingRecipe, model_fingerprint, packaged_model_path
from feature_repo.paths import RepoPaths
from feature_repo.text import words
from materialize.releases import LIVE_EMBEDDING, current_release
from materialize.stores.files import copy_sparse
from materialize.stores.layout import point_id, row_payload
from materialize.stores.port import Point
from materialize.stores.publication import open_writer

WHEN = datetime(2026, 5, 1, 12, tzinfo=UTC)
LONG = "linen brass walnut oak marble cotton wool jute cane teak glass steel clay slate cork felt silk rope tile moss"
MORE = "amber coral ivory olive plum rust sand teal mint rose navy onyx pearl ruby sage wine fern kelp lime"
TOPICS = {
    "sofa": [
        "green velvet sofa",
        "green velvet armchair",
        "grey linen sofa",
        "velvet sofa with brass legs",
        "sofa bed",
    ],
    "pasta": ["tomato pasta", "pasta with garlic", "creamy pasta bake", "pasta salad with olives", "fresh pasta dough"],
    "fern": ["fern in a pot", "watering a fern", "fern for shade", "hanging fern basket", "dividing a fern"],
}


class WordEncoder:
    """Texts as sums of one fixed direction per word; counts what it encodes."""

    dimension = 384
    recipe = EncodingRecipe(device="cpu", precision="fp32", threads=1, token_budget=1, runtime="test")

    def __init__(self, fingerprint: str | None = None):
        self.fingerprint = fingerprint or model_fingerprint(packaged_model_path())
        self.encoded: list[str] = []

    def encode(self, texts, progress=None):
        self.encoded.extend(texts)
        rows = np.stack([sum((direction(word) for word in words(text.lower())), np.zeros(384)) for text in texts])
        return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)).astype(np.float32)


class SwitchingEncoder(WordEncoder):
    """While it embeds "fern", a run gives the pin pasta0 the vector of that, publishes, and another thread switches."""

    def __init__(self, shop: RepoPaths):
        super().__init__()
        self.shop = shop
        self.client = None
        """Which is to switch; it is set once there is one."""

    def encode(self, texts, progress=None):
        if texts == ["fern"]:
            move_pin(self.shop, "pasta0", "fern")
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(self.client.refresh).result()
        return super().encode(texts)


def direction(word: str) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(word.encode())).standard_normal(384)


def pins() -> list[dict]:
    rows = [
        {"pin_id": f"{topic}{number}", "title": title, "lang": "en", "country": "US"}
        for topic, titles in TOPICS.items()
        for number, title in enumerate(titles)
    ]
    twin = {"title": "green velvet sofa room", "description": f"{LONG} {MORE}", "lang": "en", "country": "US"}
    rows += [
        {"pin_id": "twin", **twin},
        {"pin_id": "twin-same", **twin},
        {"pin_id": "twin-near", **twin, "description": f"{LONG} {MORE} tonight"},
        {"pin_id": "sofa-de", "title": "grünes sofa velvet", "lang": "de", "country": "DE"},
        {"pin_id": "wordless", "link_url": "https://example.org/1", "lang": "en", "country": "US"},
    ]
    return [{"created_at": WHEN, "event_timestamp": WHEN + timedelta(seconds=n), **r} for n, r in enumerate(rows)]


def write_raw(paths: RepoPaths) -> None:
    clicks = [
        {"request_id": f"r{user}{action}", "query": "Green  velvet sofa", "lang": "en", "country": "US"}
        | {"user_id": f"u{user}", "pin_id": "sofa0", "position": 0, "action": action, "dwell_s": 3.0}
        | {"event_timestamp": WHEN + timedelta(hours=user)}
        for user in range(4)
        for action in ("impression", "click")
    ]
    saves = [
        {"board_id": f"b{user}", "board_title": "Living room", "pin_id": "sofa0", "user_id": f"u{user}"}
        | {"saved_at": WHEN, "removed_at": None, "secret": False}
        for user in range(3)
    ]
    texts = ("title", "description", "link_url", "link_title", "link_description", "image_uri", "image_sha256")
    for table, rows in (("search_log", clicks), ("board_saves", saves)):
        (paths.raw / table).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), paths.raw / table / "part.parquet")
    (paths.raw / "pins").mkdir()
    columns = {name: [pin.get(name) for pin in pins()] for name in ("pin_id", *texts, "lang", "country")}
    times = {name: [pin.get(name) for pin in pins()] for name in ("created_at", "event_timestamp", "deleted_at")}
    table = {name: pa.array(values, pa.string()) for name, values in columns.items()}
    table |= {name: pa.array(values, pa.timestamp("us", tz="UTC")) for name, values in times.items()}
    pq.write_table(pa.table(table), paths.raw / "pins" / "part.parquet")


def copy_repository(source: Path, target: Path) -> Path:
    """A repository that is somewhere else, its sources pointing into itself."""

    def copy(file: str, place: str) -> None:
        copy_sparse(Path(file), Path(place), durable=False)

    shutil.copytree(source, target, copy_function=copy, symlinks=True, ignore=shutil.ignore_patterns("readers"))
    kept = target / "data" / "definitions.json"
    kept.write_text(kept.read_text().replace(str(source), str(target)))
    return target


def copy_of(pin_id: str, vector: np.ndarray, **extras) -> Point:
    entity = {"pin_id": pin_id}
    payload = row_payload(LIVE_EMBEDDING, entity, 0, {}, extras=extras)
    return Point(point_id("repo", LIVE_EMBEDDING, entity), payload, {"vector": vector})


def move_pin(shop: RepoPaths, pin_id: str, text: str) -> None:
    """Give a pin the vector of another text, and publish."""
    with open_writer(shop.online) as writer:
        writer.upsert(current_release(shop).live_space, [copy_of(pin_id, WordEncoder().encode([text])[0])])
        writer.publish()
