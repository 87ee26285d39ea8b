"""What tests share is made by one of them, and a copy of a repository is at home where it is."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from made_once import made_once, moved

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
