"""An output that cannot be written is told before the work that makes it, which may take an hour."""

import os
from pathlib import Path

import pytest

from feature_repo.errors import PinfeatherError
from pinfeather.writable import check_writable

NOWHERE = "/proc/none"
"""No user can make a file there, root neither."""
pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc here, where nobody can write")


@pytest.mark.parametrize(
    "words",
    [
        ["train", "examples", "--out", "/proc/none.parquet"],
        ["train", "student", "--pairs", "pairs.parquet", "--out", f"{NOWHERE}/bundle"],
        ["train", "teacher", "--pairs", "pairs.parquet", "--out", f"{NOWHERE}/teacher"],
        ["evaluate", "--pairs", "pairs.parquet", "--trec", NOWHERE],
        ["evaluate", "--pairs", "pairs.parquet", "--plots", NOWHERE],
        ["evaluate", "--pairs", "pairs.parquet", "--scores", "/proc/none.csv"],
    ],
    ids=" ".join,
)
def test_a_command_says_so_before_it_reads_anything(pinfeather, words, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # which has neither the pairs nor a repository
    code, _, err = pinfeather(*words)
    told = " ".join(err.split())
    assert (code, f"{words[-2]}: nothing can be written to /proc" in told, "nothing was computed" in told) == (
        1,
        True,
        True,
    )


def test_a_folder_that_is_not_there_yet_can_be_made_in_one_that_is(tmp_path):
    check_writable("--out", tmp_path / "a" / "b")
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").touch()
    with pytest.raises(PinfeatherError, match=r"--out: nothing can be written to .*file \(Not a directory\)"):
        check_writable("--out", tmp_path / "file" / "b")
