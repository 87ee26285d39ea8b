"""View sources that a test edits, a ledger, and what a scan says of them."""

from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.paths import RepoPaths
from feature_repo.pin_text import DEFAULT_TEMPLATE
from materialize import changed, passes, spill
from materialize.definitions import RepoDefinitions, ViewDefinition
from materialize.ledger import Ledger
from materialize.plan import open_pin_scan, pin_changes
from materialize.points import ledger_entries
from materialize.scan import FeatureScan, connect, raw_engine
from materialize.spaces import Space

NOW = datetime(2026, 10, 1, tzinfo=UTC)
NONE = frozenset()
VIEWS = {
    "pin_text": {"title": "string", "description": "string", "lang": "string", "country": "string"},
    "pin_captions": {"caption": "string", "captioner": "string"},
    "pin_board_titles": {"board_titles": "string_list"},
    "pin_link_text": {"link_title": "string", "link_description": "string"},
}
SPACE = Space("space", 8, "packaged", "none", ("none",), DEFAULT_TEMPLATE.without("engaged_queries"), {})
_TYPES = {"string": pa.string(), "string_list": pa.list_(pa.string()), "int64": pa.int64()}


def make_small(monkeypatch):
    """Buckets of a few rows, and a spill that writes everything to disk."""
    monkeypatch.setattr(passes, "BUCKET_ROWS", 3)
    monkeypatch.setattr(spill, "_HELD_BYTES", 1)
    monkeypatch.setattr(changed, "BATCH_ROWS", 5)
    monkeypatch.setattr(changed, "_WANTED_ROWS", 2)
    monkeypatch.setattr(changed, "_TABLE_ROWS", 2)


class World:
    """View sources that a test edits, a ledger, and what a scan says of them."""

    def __init__(self, folder, views=VIEWS, keys=("pin_id",), key_type=None):
        self.folder, self.paths = folder, RepoPaths(folder / "repo")
        self.key_type = key_type or pa.string()
        self.views = {}
        for name, features in views.items():
            features = dict(features) | ({"created_at": "unix_timestamp"} if name == "pin_text" else {})
            columns = {column: column for column in (*keys, *features)}
            source = str(folder / name / "*.parquet")
            self.views[name] = ViewDefinition(
                name, keys, features, columns, source, "event_timestamp", "created_timestamp", None, True, {}
            )

    @property
    def definitions(self):
        return RepoDefinitions("test", self.views, {})

    def save(self, name, rows, files=1):
        """Write ``rows`` of a view, dealt out to ``files`` files."""
        view = self.views[name]
        kinds = {**_TYPES, "unix_timestamp": pa.timestamp("us", "UTC")}
        schema = pa.schema(
            [
                *((key, self.key_type) for key in view.join_keys),
                *((feature, kinds[kind]) for feature, kind in view.features.items()),
                ("event_timestamp", pa.timestamp("us", "UTC")),
                ("created_timestamp", pa.timestamp("us", "UTC")),
            ]
        )
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        for path in folder.glob("*"):
            path.unlink()
        rows = [{"event_timestamp": NOW, "created_timestamp": NOW, **row} for row in rows]
        for file in range(files):
            pq.write_table(pa.Table.from_pylist(rows[file::files], schema=schema), folder / f"{file}.parquet")
        return self

    def pins(self, pins, files=1):
        """Save all four views out of pin id to fields; a view whose fields are missing has no row."""
        for name, view in self.views.items():
            rows = [
                {"pin_id": pin, **{feature: fields.get(feature) for feature in view.features}}
                | {stamp: fields[stamp] for stamp in ("event_timestamp", "created_timestamp") if stamp in fields}
                for pin, fields in pins.items()
                if name == "pin_text" or any(feature in fields for feature in view.features)
            ]
            self.save(name, rows, files)
        return self

    def scan(self, write=False, held=NONE):
        """(kinds of the pins that differ, gone, unchanged) of the pins; with ``write`` the ledger then has them."""
        with Ledger(self.paths) as ledger, connect(self.paths.ledger) as con:
            scan = open_pin_scan(con, self.definitions, SPACE, ledger, held)
            batches = list(pin_changes(scan, SPACE))
            kinds = {change.pin_id: change.kind for batch in batches for change in batch}
            assert sum(map(len, batches)) == len(kinds)
            again = [change.pin_id for batch in pin_changes(scan, SPACE) for change in batch]
            assert sorted(again) == sorted(kinds)  # a run goes through it twice: to count and to write
            if write:
                for batch in batches:
                    ledger.write(SPACE.name, 1, ledger_entries(batch))
                ledger.remove(SPACE.name, 1, [key for key, _, _ in scan.gone])
                ledger.set_engine(SPACE.name, raw_engine())
                ledger.fold(SPACE.name)
            return kinds, [key for key, _, _ in scan.gone], scan.unchanged

    def rows(self, name, write=False, held=NONE):
        """(changed rows by key, gone keys) of a view; with ``write`` the ledger then has them."""
        space = f"view:{name}"
        with Ledger(self.paths) as ledger, connect(self.paths.ledger) as con:
            scan = FeatureScan(con, self.views[name], ledger.of(space), held)
            batches = list(scan.changes())
            rows = {row["key"]: row for batch in batches for row in batch.to_pylist()}
            assert scan.changed == len(rows) == sum(batch.num_rows for batch in batches)
            if write:
                for batch in batches:
                    blank = {"text_fp": pa.nulls(batch.num_rows, pa.binary(16))}
                    blank["payload_fp"] = pa.nulls(batch.num_rows, pa.uint64())
                    kept = {column: batch[column] for column in ("key", "raw", "event_timestamp")}
                    ledger.write(space, 1, pa.table({**kept, **blank}))
                ledger.remove(space, 1, scan.gone)
                ledger.fold(space)
            return rows, scan.gone
