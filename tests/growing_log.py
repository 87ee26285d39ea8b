"""A search log that grows file by file, its aggregates, and a full count to compare with."""

import json
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.aggregates import VIEW_SCHEMAS, aggregate
from feature_repo.columns import arrow_type
from feature_repo.contracts import CONTRACTS
from feature_repo.paths import PARTS, RepoPaths

START = datetime(2026, 1, 1, tzinfo=UTC)
WINDOW = 10
LIMITS = "limits:\n  max_visits_a_day: 3\n  early_seconds: 3600\n"


def hours(number):
    return START + timedelta(hours=number)


def schema(table):
    return pa.schema([(column.name, arrow_type(column.kind)) for column in CONTRACTS[table].columns])


def put(paths, table, rows):
    paths.valid.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema(table)), paths.valid / f"{table}.parquet")


def put_log(paths, files):
    """Valid files of the log by name, as ``validate`` leaves them; those that are there already stay."""
    folder = paths.valid / "search_log"
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        if not (folder / name).exists():
            pq.write_table(pa.Table.from_pylist(rows, schema=schema("search_log")), folder / name)
    (folder / PARTS).write_text(json.dumps({"parts": [{"file": name} for name in sorted(files)]}))


def event(at, query="oak", pin_id="p1", user="ann", action="click", request=None, dwell=None, lang=None):
    return {
        "request_id": request or f"{user}/{query}/{at}",
        "query": query,
        "lang": lang,
        "user_id": user,
        "pin_id": pin_id,
        "action": action,
        "dwell_s": dwell,
        "event_timestamp": hours(at),
    }


def pin(name, **more):
    return {"pin_id": name, "title": f"Pin {name}", "event_timestamp": hours(-9000), **more}


def topic(name, word, weight, at=-5000):
    return {"pin_id": name, "topic": word, "weight": weight, "event_timestamp": hours(at)}


TOPICS = [topic("p1", "wood", 3.0), topic("p1", "home", 1.0), topic("p2", "home", 0.5), topic("p2", "old", 1.0, -6000)]


def start(root):
    paths = RepoPaths(root)
    (root / "screening.yaml").write_text(LIMITS)
    for table in ("board_saves", "captions"):
        put(paths, table, [])
    put(paths, "pins", [pin("p1"), pin("p2")])
    put(paths, "pin_topics", TOPICS)
    return paths


def run(paths, at, **options):
    return aggregate(paths, **({"as_of": hours(at), "window_days": WINDOW} | options))


def sources(folder):
    return {view: (folder / f"{view}.parquet").read_bytes() for view in VIEW_SCHEMAS}


def rows(paths, view):
    return pq.read_table(paths.views / f"{view}.parquet").to_pylist()


def check_equals_full(paths, report, **options):
    """The views in place are those of a full count beside them, and so are the counts of the report."""
    folder = paths.root / "full"
    full = aggregate(paths, as_of=report.as_of, window_days=WINDOW, folder=folder, **options)
    assert full.log == "full"
    for view, data in sources(folder).items():
        assert (paths.views / f"{view}.parquet").read_bytes() == data, view
    assert (report.views, report.left_out, report.screened) == (full.views, full.left_out, full.screened)
