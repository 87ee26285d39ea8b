"""What tests share is made by one of them, and a copy of a repository is at home where it is."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import Catalogue
from erase_shop import save as board_save
from erase_shop import write_raw
from made_once import copied, made_once, moved

from feature_repo import aggregates
from feature_repo.aggregates import aggregate
from feature_repo.errors import PinfeatherError
from materialize.definitions import load_definitions


def test_a_folder_is_made_once_and_again_after_a_failure(tmp_path_factory, tmp_path):
    made = []

    def make(folder):
        folder.mkdir()
        made.append(folder)
        if len(made) == 1:
            raise PinfeatherError("the first time")

    with pytest.raises(PinfeatherError, match="the first time"):
        made_once(tmp_path_factory, tmp_path.name, make)
    with ThreadPoolExecutor(4) as pool:  # each waits for the lock, as processes do
        found = list(pool.map(lambda _: made_once(tmp_path_factory, tmp_path.name, make), range(4)))
    assert set(found) == {made[1]}
    assert len(made) == 2


def test_feast_reads_of_a_moved_repository_what_was_applied_with_its_own_files(applied, tmp_path):
    here, there = (load_definitions(paths).views for paths in (moved(applied.root, tmp_path / "moved"), applied))
    assert here.keys() == there.keys()
    for name, view in there.items():
        assert here[name].source == view.source.replace(str(applied.root), str(tmp_path / "moved")) != view.source


def test_a_table_that_was_saved_once_leaves_the_same_again_unless_there_is_more_to_read(applied, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(aggregates, "aggregate", lambda paths: calls.append(paths.root.name) or aggregate(paths))

    def save(name, raw=(), **more):
        catalogue = Catalogue(copied(applied.root, tmp_path / name))
        catalogue.kept = tmp_path / "kept"
        for table, rows in raw:
            write_raw(catalogue.paths, table, rows)
        report = catalogue.put("p1", "green hat").put("p2", "no time", event_timestamp=None, **more).save()
        assert report.total_rejected == 1
        tables = sorted(
            path for folder in ("valid", "views") for path in (catalogue.paths.data / folder).rglob("*.parquet")
        )
        return {path.name: path.read_bytes() for path in tables}

    assert save("first") == save("again")
    save("other", country="DE")
    boards = save("boards", raw=[("board_saves", [board_save("ann", "p1", "hats")])])
    assert boards["pin_text.parquet"] == save("once more")["pin_text.parquet"]
    assert calls == ["first", "other", "boards"]
