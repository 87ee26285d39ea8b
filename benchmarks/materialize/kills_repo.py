"""The repository of the kill benchmark: its pins before and after the edits, its encoder, and what must hold of it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from embedders.encoder import as_stored
from embedders.model_folder import ModelFolder
from embedders.recipe import EncodingRecipe
from feature_repo.aggregates import aggregate
from feature_repo.paths import RepoPaths
from feature_repo.validation import validate
from materialize import ledger, promotion, run, vector_log
from materialize.audit import audit
from materialize.definitions import load_definitions
from materialize.ledger import Ledger
from materialize.releases import LIVE_EMBEDDING, current_release
from materialize.run import RunOptions, materialize
from materialize.spaces import load_spaces
from materialize.stores.layout import entity_collection
from materialize.stores.port import DEFAULT_VECTOR, Match, VectorStore
from materialize.stores.publication import open_reader

PINS = 300
BATCH = 16
"""Texts of a batch here, so that a run has many; a batch is what a kill may cost."""
TITLES = "titles"
"""The second space, whose template reads no description."""
_WHEN = datetime(2026, 10, 1, tzinfo=UTC)

Texts = dict[str, tuple[str, str]]
"""Pin to title and description."""


def shrink() -> None:
    """Small batches, shards and logs in this process, so that a small run has every step many times."""
    run.BATCH_TEXTS = BATCH
    ledger.ROWS_PER_SHARD = 128
    vector_log.MOST_PARTS = 8


def before() -> Texts:
    """The pins of the first run."""
    return {f"p{number}": (f"hat {number}", f"wool {number}") for number in range(PINS)}


def after() -> Texts:
    """The pins of the run that is killed: 16 swapped, 64 edited, 48 carry 24 new texts, 20 left, 24 came, 130 stay."""
    pins = before()
    for number in range(0, 16, 2):
        one, other = f"p{number}", f"p{number + 1}"
        pins[one], pins[other] = pins[other], pins[one]
    for number in range(16, 80):
        pins[f"p{number}"] = (f"cap {number}", f"felt {number}")
    for number in range(80, 128):
        pins[f"p{number}"] = (f"scarf {number % 24}", f"silk {number % 24}")
    for number in range(128, 148):
        del pins[f"p{number}"]
    for number in range(PINS, PINS + 24):
        pins[f"p{number}"] = (f"glove {number}", f"lace {number}")
    return pins


def text_of(space: str, pin: tuple[str, str]) -> str:
    """What ``space`` reads of a pin."""
    return pin[0] if space == TITLES else " | ".join(pin)


def to_encode() -> Counter[str]:
    """The texts that the run must encode, each once."""
    old, new = before(), after()
    texts = {text_of(space, pin) for space in ("", TITLES) for name, pin in new.items() if pin != old.get(name)}
    return Counter(texts)


def vector_of(text: str) -> npt.NDArray[np.float32]:
    """The fake vector of a text [384], of unit length: a function of the text alone."""
    row = np.random.default_rng(xxhash.xxh3_64_intdigest(text.encode())).normal(size=384)
    return (row / np.linalg.norm(row)).astype(np.float32)


class LoggingEncoder:
    """In the packaged model's place: no model, and every text is on record before its vector exists."""

    def __init__(self, record: Path) -> None:
        folder = ModelFolder.open("packaged")
        self.dimension, self.fingerprint = folder.dimension, folder.fingerprint()
        self.recipe = EncodingRecipe("cpu", "fp32", 1, 1024, reason="a fake that counts")
        self._record = record

    def encode(self, texts: Sequence[str], progress: Any = None) -> npt.NDArray[np.float32]:
        """One unit vector a text."""
        handle = os.open(self._record, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, "".join(f"{text}\n" for text in texts).encode())
        os.close(handle)
        return np.stack([vector_of(text) for text in texts])


def recorded(record: Path) -> Counter[str]:
    """How often each text was encoded."""
    return Counter(record.read_text().splitlines()) if record.is_file() else Counter()


def write_pins(paths: RepoPaths, pins: Texts) -> None:
    """The raw table of pins, validated, and the sources of the feature views."""
    rows = [
        {"pin_id": name, "title": title, "description": words, "lang": "en", "country": "US"}
        for name, (title, words) in pins.items()
    ]
    table = pa.Table.from_pylist(rows)
    when = pa.array([_WHEN] * len(rows), pa.timestamp("us", "UTC"))
    for name in ("created_at", "event_timestamp"):
        table = table.append_column(name, when)
    (paths.raw / "pins").mkdir(parents=True, exist_ok=True)
    pq.write_table(table, paths.raw / "pins" / "part-0.parquet")
    validate(paths)
    aggregate(paths)


def make(root: Path) -> None:
    """A repository with two full spaces, whose sources have been edited since: the state before each kill."""
    from materialize.space_admin import backfill, create_space
    from pinfeather.apply import apply_definitions
    from pinfeather.init import init_repository

    shrink()
    options = RunOptions(encoder=LoggingEncoder(root.parent / "first"))
    paths = init_repository(root)
    apply_definitions(paths)
    write_pins(paths, before())
    materialize(paths, options)
    create_space(paths, TITLES, without=["description"])
    for _ in backfill(paths, TITLES, options):
        pass
    write_pins(paths, after())


def run_and_promote(paths: RepoPaths, encoder: LoggingEncoder) -> None:
    """What is killed."""
    materialize(paths, RunOptions(encoder=encoder))
    promotion.promote(paths, TITLES, promotion.Gate(overlap_min=0.0))


class Answers:
    """What a reader answers: every point of every space and every row of ``pin_text``, by pin."""

    def __init__(self, paths: RepoPaths, store: VectorStore) -> None:
        project = load_definitions(paths).project
        self.twice = 0
        self.spaces = {space.name: self._vectors(store, space.name) for space in load_spaces(paths)}
        self.rows = self._rows(store, entity_collection(project, ["pin_id"]))

    def _vectors(self, store: VectorStore, space: str) -> dict[str, bytes]:
        points, _ = store.scroll(space, limit=10_000, with_payload=["key"], with_vectors=True)
        found = {point.payload["key"]["pin_id"]: point.vectors[DEFAULT_VECTOR].tobytes() for point in points}
        self.twice += len(points) - len(found)
        return found

    def _rows(self, store: VectorStore, collection: str) -> Texts:
        points, _ = store.scroll(collection, Match("view", "pin_text"), limit=10_000, with_payload=["key", "f"])
        found = {
            point.payload["key"]["pin_id"]: (point.payload["f"]["title"], point.payload["f"]["description"])
            for point in points
        }
        self.twice += len(points) - len(found)
        return found

    def of(self, pins: Texts, space: str) -> bool:
        """Whether ``space`` holds exactly the vectors of these pins' texts."""
        return self.spaces[space] == {name: _stored(text_of(space, pin)) for name, pin in pins.items()}


_VECTORS: dict[str, bytes] = {}


def _stored(text: str) -> bytes:
    if text not in _VECTORS:
        _VECTORS[text] = as_stored(vector_of(text)[None])[0].tobytes()
    return _VECTORS[text]


def warm() -> LoggingEncoder:
    """Do once what every process of the benchmark would do again: imports, hashing the model, making the vectors."""
    for name in ("pandas", "tokenizers"):
        import_module(name)
    for pins in (before(), after()):
        for pin in pins.values():
            for space in ("", TITLES):
                _stored(text_of(space, pin))
    return LoggingEncoder(Path("none"))


def judge_publication(answers: Answers, live: str) -> list[str]:
    """What is wrong with the newest publication after a kill: each part is of before or of after, none in between."""
    old, new = before(), after()
    other = next(name for name in answers.spaces if name != TITLES)
    states = [
        "old" if answers.of(old, name) else "new" if answers.of(new, name) else "torn" for name in (other, TITLES)
    ]
    rows = "old" if answers.rows == old else "new" if answers.rows == new else "torn"
    possible = [("old", "old", "old"), ("new", "old", "new"), ("new", "new", "new")]
    wrong = [] if (*states, rows) in possible else [f"newest publication is {states} with {rows} rows"]
    wrong += ["points twice in the newest publication"] if answers.twice else []
    if live == TITLES and states != ["new", "new"]:
        wrong.append("the promoted space serves before it is whole")
    return wrong


def judge_end(paths: RepoPaths, encoder: LoggingEncoder) -> tuple[list[str], dict[str, int]]:
    """A clean run, then an audit: what is wrong, and the counts."""
    wrong = []
    counts = materialize(paths, RunOptions(encoder=encoder))
    found = audit(paths)
    if not found.clean or found.ahead:
        wrong.append(f"audit: {found.to_json()}")
    release = current_release(paths)
    with open_reader(paths.online) as reader:
        answers = Answers(paths, reader)
        if reader.release != (release and release.to_json()):
            wrong.append("the publication names another release than the manifest")
    new = after()
    lost = extra = stale = 0
    for space, vectors in answers.spaces.items():
        lost += len(new.keys() - vectors.keys())
        extra += len(vectors.keys() - new.keys())
        stale += sum(vectors[name] != _stored(text_of(space, pin)) for name, pin in new.items() if name in vectors)
        wrong += _judge_books(paths, space, new)
    lost += len(new.keys() - answers.rows.keys())
    extra += len(answers.rows.keys() - new.keys())
    stale += sum(answers.rows[name] != pin for name, pin in new.items() if name in answers.rows)
    live = release.live_space if release else None
    if (paths.vectors / LIVE_EMBEDDING).resolve().name != live:
        wrong.append("the live Feast view reads another log than the live space's")
    tally = {"stale": stale, "lost": lost, "double": answers.twice + extra, "revived": counts.unchanged}
    wrong += [f"{tally[name]} {name}" for name in ("stale", "lost", "double") if tally[name]]
    return wrong, tally


def _judge_books(paths: RepoPaths, space: str, pins: Texts) -> list[str]:
    """Ledger and vector log of a space, each against the pins."""
    wrong = []
    with Ledger(paths) as books:
        keys = books.entries(space)["key"].to_pylist()
    if sorted(keys) != sorted(pins):
        wrong.append(f"the ledger of {space} has not exactly the pins")
    names, vectors, _ = vector_log.read_live(paths, space)
    logged = {name: row.astype(np.float32).tobytes() for name, row in zip(names, vectors, strict=True)}
    if logged != {name: _stored(text_of(space, pin)) for name, pin in pins.items()}:
        wrong.append(f"the vector log of {space} has not exactly the pins' vectors")
    return wrong
