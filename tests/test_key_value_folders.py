"""A repository under folders that are called like columns: nothing takes them for partitions of a table."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from past_tables import at, caption, pin, save, visit

from feature_repo.aggregates import VIEW_SCHEMAS, aggregate
from feature_repo.columns import arrow_type
from feature_repo.contracts import CONTRACTS
from feature_repo.history import remember_pins
from feature_repo.pin_text import DEFAULT_TEMPLATE
from feature_repo.report import make_report
from feature_repo.validation import validate
from materialize.captions.wanted import open_wanted
from materialize.definitions import ViewDefinition
from materialize.scan import held_pins
from materialize.sources import connect, view_source
from pinfeather.init import init_repository
from pinfeather.label_sources import from_file
from pinfeather.training_set import TrainingSetOptions, build_training_set

FOLDERS = ("title=Of the folder", "caption=1", "t=5", "u=6", "pin_id=none")


def deliver(paths, file, **tables):
    """Raw files, as they are delivered."""
    for name, rows in tables.items():
        schema = pa.schema([(column.name, arrow_type(column.kind)) for column in CONTRACTS[name].columns])
        (paths.raw / name).mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), paths.raw / name / f"{file}.parquet")


def days(paths):
    """Bytes of the views of a repository and its report after two days."""
    deliver(
        paths,
        "first",
        pins=[
            pin("a", -9, "red hat", image_sha256="1f" * 32, link_title="All about hats"),
            pin("b", -9, created_at=at(9_999), image_sha256="2e" * 32),
        ],
        board_saves=[save("a", "winter hats", user, -2) for user in ("u1", "u2")],
        captions=[caption("1f" * 32, "a hat on a chair", -3)],
        pin_topics=[{"pin_id": "a", "topic": "hats", "weight": 1.0, "event_timestamp": at(-8)}],
        search_log=[row for user in ("u1", "u2") for row in visit("hat", "a", user, 1, "click")],
    )
    validate(paths)
    first = aggregate(paths, as_of=at(9))
    deliver(paths, "second", search_log=visit("hat", "a", "u3", 2, "save"))
    validate(paths)
    second = aggregate(paths, as_of=at(9))
    assert (first.log, second.log) == ("full", "merged")
    assert [remember_pins(paths).new for _ in range(2)] == [1, 0]
    report = make_report(paths, now=at(9)).data
    return {view: (paths.views / f"{view}.parquet").read_bytes() for view in VIEW_SCHEMAS}, report["tables"]


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return init_repository(tmp_path_factory.mktemp("repo").joinpath(*FOLDERS, "shop"))


def test_two_days_give_what_they_give_elsewhere(paths, tmp_path):
    found, (views, tables) = days(paths), days(init_repository(tmp_path / "shop"))
    assert found == (views, tables)
    assert (tables["pins"]["accepted"], len(tables["pins"]["rejected"])) == (1, 1)


def test_the_pins_of_materialize_and_their_images_are_there(paths):
    assert held_pins(paths) == {"b"}
    with open_wanted(paths) as wanted:
        assert wanted.held(pa.array([sign * 32 for sign in ("1f", "2e", "3d")])).to_pylist() == [True, True, False]
    features = {name: "string" for name in ("title", "image_sha256")}
    columns = {name: name for name in ("pin_id", *features)}
    source = str(paths.views / "pin_text.parquet")
    times = ("event_timestamp", "created_timestamp")
    view = ViewDefinition("pin_text", ("pin_id",), features, columns, source, *times, None, True, {})
    with connect() as con:
        found = con.execute(f"SELECT title {view_source(con, view).every}").fetchall()
    assert found == [("red hat",)]


def test_labels_meet_their_features(paths, tmp_path):
    out = tmp_path / "labels.parquet"
    (tmp_path / "labels.csv").write_text("query,pin_id,label,event_timestamp\nhat,a,1,2026-03-02T01:00:00\n")
    build_training_set(paths, from_file(tmp_path / "labels.csv"), out, TrainingSetOptions(DEFAULT_TEMPLATE))
    (row,) = pq.read_table(out).to_pylist()
    assert (row["pin_text__title"], row["pin_captions__caption"]) == ("red hat", "a hat on a chair")
    assert row["pin_engagement__found"] is True
