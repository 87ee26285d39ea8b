"""Captioning that fails, dies, is stopped or finds damage."""

import signal
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from caption_models import NOW, CountingCaptioner, new_gallery, png, sha

from embedders.captions.captioner import CaptionerError
from embedders.captions.images import ImageRefused
from feature_repo.aggregates import caption_files
from feature_repo.errors import PinfeatherError
from materialize.captions.stage import CaptionStage
from materialize.captions.using import list_captioners, use_captioner
from materialize.runs import list_runs
from materialize.stores.errors import StoreBusyError


@pytest.fixture
def gallery(tmp_path):
    return new_gallery(tmp_path)


class Stops(CountingCaptioner):
    """Fails at one image, or at all."""

    def __init__(self, at, error):
        super().__init__()
        self.at, self.error = at, error

    def caption(self, images):
        texts = super().caption(images)
        if self.at is None or self.at in self.calls[-1]:
            raise self.error
        return texts


def test_an_image_that_the_model_fails_at_is_rejected_alone(gallery):
    for number in range(6):
        gallery.put(f"p{number}", number)
    odd, big = (RuntimeError("odd shape"), "the model failed: odd shape"), (ImageRefused("too big"), "too big")
    for version, (error, reason) in enumerate((odd, big)):
        captioner = Stops(2, error)
        captioner.fingerprint += str(version)
        counts = gallery.caption(captioner, batch=3)
        assert (counts.captioned, dict(counts.reasons)) == (5, {reason: 1})


def test_where_one_model_fails_another_one_is_asked(gallery):
    """Only what is wrong with an image itself holds for every captioner."""
    for number in range(4):
        gallery.put(f"p{number}", number, born=NOW + timedelta(days=number))
    gallery.put("gone", 9, file=False)
    sick, well = Stops(3, RuntimeError("odd shape")), CountingCaptioner("two")
    counts = gallery.caption(sick)
    assert (counts.captioned, counts.rejected, counts.remaining, counts.in_use) == (3, 2, 0, sick.name)
    first = gallery.caption(well, batch=1, limit=1)
    assert well.images == [3]  # the newest first, whatever another model made of it
    assert (first.remaining, first.in_use) == (3, sick.name)
    last = gallery.caption(well)
    assert sorted(well.images) == [0, 1, 2, 3] and (last.remaining, last.in_use) == (0, well.name)
    rows = pq.read_table(gallery.paths.rejected / "images.parquet").to_pylist()
    assert [(row["image_sha256"], row["captioner"]) for row in rows] == sorted(
        [(sha(png(9)), None), (sha(png(3)), sick.name)]
    )
    sick.at = 99
    assert gallery.caption(sick).captioned == 1 and set(gallery.rejected()) == {sha(png(9))}


def test_a_model_that_fails_at_everything_is_to_blame(gallery):
    for number in range(12):
        gallery.put(f"p{number}", number)
    captioner = Stops(None, RuntimeError("no such kernel"))
    with pytest.raises(CaptionerError, match=r"8 images in a row.*no such kernel"):
        gallery.caption(captioner, batch=3)
    assert len(gallery.rejected()) == 6 and list_runs(gallery.paths)[0]["status"] == "failed"
    assert "no such kernel" in list_runs(gallery.paths)[0]["error"]


def test_a_captioner_that_answers_too_little(gallery):
    captioner = CountingCaptioner()
    captioner.caption = lambda images: ["a cat on a bed"]
    gallery.put("a", 1).put("b", 2)
    with pytest.raises(CaptionerError, match="1 captions for 2 images"):
        gallery.caption(captioner)


def test_asked_to_stop(gallery):
    captioner = CountingCaptioner()
    for number in range(6):
        gallery.put(f"p{number}", number)
    counts = gallery.caption(captioner, batch=2, stop=lambda: len(captioner.calls) == 2)
    assert counts.interrupted and counts.captioned == 4 and counts.remaining == 2 and counts.in_use is None
    assert list_runs(gallery.paths)[0]["status"] == "interrupted"
    assert gallery.caption(captioner).captioned == 2 and sorted(captioner.images) == [0, 1, 2, 3, 4, 5]


KILLED = """
import os, signal, sys
sys.path[:0] = [{tests!r}]
from pathlib import Path
from caption_models import CountingCaptioner, Gallery
from feature_repo.paths import RepoPaths

class Dies(CountingCaptioner):
    def caption(self, images):
        if len(self.calls) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().caption(images)

gallery = Gallery(RepoPaths(Path({root!r})), Path({images!r}))
for number in range(10):
    gallery.put(f"p{{number}}", number)
gallery.caption(Dies(), batch=3)
"""


@pytest.mark.slow
def test_killed_costs_one_batch(gallery):
    tests = str(Path(__file__).parent)
    script = KILLED.format(tests=tests, root=str(gallery.paths.root), images=str(gallery.folder))
    done = subprocess.run([sys.executable, "-c", script], cwd=Path(tests).parent, check=False)
    assert done.returncode == -signal.SIGKILL
    assert list_runs(gallery.paths)[0]["status"] == "killed"
    captioner = CountingCaptioner()
    for number in range(10):
        gallery.put(f"p{number}", number)
    assert gallery.caption(captioner, batch=3).reused == 6
    assert len(captioner.images) == 4 and sorted(gallery.captions(captioner)) == list(range(10))


def test_two_captioners_exclude_each_other(gallery):
    inside, go = threading.Event(), threading.Event()

    class Waits(CountingCaptioner):
        def caption(self, images):
            inside.set()
            assert go.wait(20)
            return super().caption(images)

    gallery.put("a", 1)
    running = threading.Thread(target=gallery.caption, args=(Waits(),))
    running.start()
    try:
        assert inside.wait(20)
        assert list_runs(gallery.paths)[0]["status"] == "running"
        with pytest.raises(StoreBusyError, match="caption"):
            gallery.caption(CountingCaptioner("two"), lock_timeout=0)
        with pytest.raises(StoreBusyError):
            use_captioner(gallery.paths, "fake-one", lock_timeout=0)
    finally:
        go.set()
        running.join()
    assert list_runs(gallery.paths)[0]["status"] == "done"


def test_a_damaged_part_is_named(gallery):
    captioner = CountingCaptioner()
    gallery.put("a", 1)
    gallery.caption(captioner)
    file = CaptionStage(gallery.paths.captions, captioner.fingerprint).files()[0]
    file.write_bytes(b"junk")
    for look in (lambda: list_captioners(gallery.paths), lambda: gallery.caption(captioner)):
        with pytest.raises(PinfeatherError, match=file.name):
            look()
    file.unlink()
    assert gallery.caption(captioner).captioned == 1
    (gallery.paths.captions / caption_files.CURRENT).write_text("{}")
    with pytest.raises(PinfeatherError, match="--use NAME"):
        caption_files.in_use(gallery.paths.captions)
