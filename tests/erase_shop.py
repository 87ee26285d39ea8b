"""A small shop for tests of erasures: pins with boards and a log, written through validate and aggregate."""

from collections import Counter
from datetime import timedelta

import pyarrow as pa
import pyarrow.parquet as pq
from conftest import Catalogue, CountingEncoder

from feature_repo.aggregates import aggregate
from feature_repo.contracts import CONTRACTS
from feature_repo.erasures import Subjects
from feature_repo.raw_files import stored_schema
from feature_repo.validation import validate
from materialize import vector_log
from materialize.erasure.flow import erase
from materialize.run import RunOptions, materialize

NOW = Catalogue.NOW
QUERY, SHARED_QUERY = "Wedding arch", "garden party"


def write_raw(paths, table, rows, name="a"):
    """Write raw rows (mappings) of a table into one file."""
    folder = paths.raw / table
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=stored_schema(CONTRACTS[table])), folder / f"{name}.parquet")


def pin(pin_id, title, **more):
    """A raw pin."""
    return {
        "pin_id": pin_id,
        "title": title,
        "lang": "en",
        "country": "US",
        "created_at": NOW - timedelta(days=30),
        "event_timestamp": NOW - timedelta(days=20),
        **more,
    }


def save(user, pin_id, title, board=None):
    """A pin saved on a board."""
    return {
        "board_id": board or f"{user}/{title}",
        "board_title": title,
        "pin_id": pin_id,
        "user_id": user,
        "saved_at": NOW - timedelta(days=10),
        "secret": False,
    }


def visit(user, query, pin_id, action="click", days=5):
    """A row of the search log."""
    return {
        "request_id": f"{user}/{query}/{days}",
        "query": query,
        "lang": "en",
        "user_id": user,
        "pin_id": pin_id,
        "action": action,
        "event_timestamp": NOW - timedelta(days=days),
    }


def judged(query, pin_id, level=4):
    """A judgment."""
    return {"query": query, "pin_id": pin_id, "level": level, "event_timestamp": NOW - timedelta(days=1)}


def tables():
    """Raw tables: ann and bob stand behind the words of p1 and p2, three people behind those of p3."""
    return {
        "pins": [pin(f"p{n}", f"oak shelf number {n}", image_sha256=f"image{n}") for n in range(10)],
        "board_saves": [
            *(save(user, "p1", "alpine cabin interiors") for user in ("ann", "bob")),
            *(save(user, "p3", "rustic kitchen corner") for user in ("ann", "bob", "cy")),
        ],
        "search_log": [
            *(visit(user, QUERY, "p2") for user in ("ann", "bob")),
            *(visit(user, SHARED_QUERY, "p3") for user in ("ann", "bob", "cy")),
            *(visit(user, SHARED_QUERY, "p4", "impression") for user in ("ann", "bob", "cy")),
        ],
        "judgments": [judged(QUERY, "p2"), judged(SHARED_QUERY, "p3")],
        "captions": [
            {"image_sha256": f"image{n}", "captioner": "c", "caption": f"a photo of {n}", "event_timestamp": NOW}
            for n in (5, 6)
        ],
    }


def fill(paths, raw):
    """Write ``raw`` as the raw tables, validate and aggregate."""
    for table, rows in raw.items():
        write_raw(paths, table, rows)
    validate(paths)
    aggregate(paths)


def run(paths, encoder):
    """Materialize with ``encoder``."""
    return materialize(paths, RunOptions(encoder=encoder))


def write_shop(paths):
    """Fill a repository with the tables of the shop, and write them."""
    fill(paths, tables())
    run(paths, CountingEncoder())


def without(raw, users=(), pins=(), queries=()):
    """``raw`` as it would be had nobody ever heard of these."""
    found = {}
    for table, rows in raw.items():
        found[table] = [
            row
            for row in rows
            if row.get("user_id") not in users
            and row.get("pin_id") not in pins
            and (row.get("query") or "").lower() not in queries
        ]
    images = {row["image_sha256"] for row in found["pins"]}
    found["captions"] = [row for row in raw["captions"] if row["image_sha256"] in images]
    return found


def views(paths):
    """Rows of every view source."""
    return {path.stem: pq.read_table(path).to_pylist() for path in sorted(paths.views.glob("*.parquet"))}


def erased(paths, encoder, **names):
    return erase(paths, Subjects.of(**names), RunOptions(encoder=encoder))


def log_rows(paths, space):
    """Pin to its rows in the vector log."""
    return dict(
        sorted(
            Counter(pin for part in vector_log.read_parts(paths, space) for pin in part["pin_id"].to_pylist()).items()
        )
    )


def plant_rows(file, **row):
    """A Parquet file of one row more, or a new one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    old = pq.read_table(file) if file.is_file() else None
    new = pa.Table.from_pylist([row], schema=old.schema if old else None)
    pq.write_table(pa.concat_tables([old, new]) if old else new, file)
