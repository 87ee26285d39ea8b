"""The stage: one image once, in order, resumably; what is gone leaves, and which captioner's captions count."""

import json
import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from caption_models import NOW, CountingCaptioner, Gallery, png, sha

from embedders.captions.captioner import CaptionerError
from embedders.captions.images import ImageRefused
from feature_repo.aggregates import aggregate, caption_files
from feature_repo.aggregates.captions import write_captions
from feature_repo.aggregates.session import Resources, Session, microseconds
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.paths import RepoPaths
from feature_repo.validation import validate
from materialize.captions import journal, stage
from materialize.captions.run import CaptionOptions
from materialize.captions.stage import CaptionStage
from materialize.captions.using import forget_rejected, list_captioners, use_captioner
from materialize.runs import list_runs
from materialize.stores.errors import StoreBusyError

CONFIG = """project: captions
provider: local
registry: data/registry.db
online_store:
  type: materialize.online_store.PinfeatherOnlineStore
  path: data/online
"""


@pytest.fixture
def paths(tmp_path):
    root = tmp_path / "repo"
    root.mkdir()
    (root / "feature_store.yaml").write_text(CONFIG)
    return RepoPaths.open(root)


@pytest.fixture
def gallery(paths, tmp_path):
    return Gallery(paths, tmp_path / "images")


def test_an_image_on_many_pins_is_captioned_once(gallery):
    captioner = CountingCaptioner()
    for pin in range(20):
        gallery.put(f"p{pin}", pin % 3)
    first = gallery.caption(captioner, batch=2)
    assert (first.images, first.captioned, first.reused, first.rejected, first.remaining) == (3, 3, 0, 0, 0)
    assert sorted(captioner.images) == [0, 1, 2] and len(captioner.calls) == 2
    gallery.put("late", 1).put("new", 5)
    second = gallery.caption(captioner, batch=2)
    assert (second.images, second.captioned, second.reused) == (4, 1, 3)
    assert captioner.images[3:] == [5]
    third = gallery.caption(captioner)
    assert third.captioned == 0 and len(captioner.calls) == 3
    assert gallery.captions(captioner)[5] == "a photo of thing 5 on a table"


def test_no_model_is_loaded_for_nothing(gallery):
    from materialize.captions.run import caption
    from materialize.captions.sources import FolderImages

    captioner, loads = CountingCaptioner(), []
    gallery.put("a", 1).put("b", 2, file=False)

    def run():
        return caption(gallery.paths, captioner, lambda: loads.append(1) or captioner, FolderImages(gallery.folder))

    assert gallery.save() and run().rejected == 1
    assert run().rejected == 1 and len(loads) == 1
    gallery.put("b", 2)
    assert gallery.save() and run().captioned == 1 and len(loads) == 2
    assert run().captioned == 0 and len(loads) == 2


def test_newest_and_most_viewed_come_first(gallery):
    for number in range(6):
        gallery.put(f"p{number}", number, born=NOW + timedelta(days=number))
    gallery.put("old-again", 3, born=NOW - timedelta(days=900))
    views = {"p0": 10, "p1": 900, "p2": 3, "old-again": 500}
    table = pa.table({"pin_id": list(views), "impressions": pa.array(views.values(), pa.int64())})
    gallery.paths.views.mkdir(parents=True)
    pq.write_table(table, gallery.paths.views / "pin_engagement.parquet")
    captioner = CountingCaptioner()
    # By age: 5 4 3 2 1 0; by views: 1 3 0 2 5 4.
    counts = gallery.caption(captioner, batch=1, limit=4)
    assert captioner.images == [5, 1, 4, 3] and counts.remaining == 2 and counts.in_use is None
    assert gallery.caption(captioner, batch=1).in_use == captioner.name
    assert captioner.images == [5, 1, 4, 3, 2, 0]  # of the two that were left, 2 is the newer one
    whole = CountingCaptioner("two")
    gallery.caption(whole, batch=1)
    assert whole.images == [5, 1, 4, 3, 0, 2]


def test_refused_images_come_last_and_are_tried_again(gallery):
    captioner = CountingCaptioner()
    gallery.put("gone", 1, file=False).put("web", 2, file=False, image_uri="https://example.org/2.png")
    gallery.put("broken", 3).put("swapped", 4).put("fine", 5, born=NOW - timedelta(days=1))
    (gallery.folder / "3.png").write_bytes(broken := png(3)[:50])
    (gallery.folder / "4.png").write_bytes(png(9))
    gallery.pins["broken"]["image_sha256"] = sha(broken)
    counts = gallery.caption(captioner)
    assert (counts.captioned, counts.rejected, counts.remaining) == (1, 4, 0)
    assert {reason.split(":")[0] for reason in gallery.rejected().values()} == {
        "no image file",
        "image_uri is a https address",
        "broken image",
        "its SHA-256 is not that of the pins table",
    }
    (gallery.folder / "4.png").write_bytes(png(4))
    gallery.put("young", 6, born=NOW - timedelta(days=99))
    gallery.pins.pop("gone")
    again = gallery.caption(captioner, batch=1, limit=1)
    assert captioner.images == [5, 6] and again.rejected == 0
    last = gallery.caption(captioner, batch=1)
    assert captioner.images == [5, 6, 4] and last.rejected == 2 and len(gallery.rejected()) == 2


def test_only_some_pins(gallery):
    captioner = CountingCaptioner()
    gallery.put("a", 1).put("b", 2).put("c", 2).put("d", 3)
    counts = gallery.caption(captioner, only=frozenset({"c", "nobody"}))
    assert captioner.images == [2] and counts.unknown == ("nobody",)
    assert (counts.images, counts.remaining, counts.in_use) == (1, 2, None)


def test_pins_without_a_hash_or_taken_down(gallery):
    captioner = CountingCaptioner()
    gallery.put("a", 1).put("nameless", 2, image_sha256=None).put("down", 3, deleted_at=NOW)
    gallery.put("soon", 4, deleted_at=NOW + timedelta(days=9_000))
    counts = gallery.caption(captioner)
    assert sorted(captioner.images) == [1, 4] and counts.without_hash == 1


def test_flagged_captions_are_kept_and_counted(gallery):
    captioner = CountingCaptioner(words="I cannot see this image number {number}")
    gallery.put("a", 1).put("b", 2)
    counts = gallery.caption(captioner)
    assert (counts.captioned, counts.flagged, dict(counts.flags)) == (2, 2, {"refused": 2})
    assert len(gallery.captions(captioner)) == 2 and counts.in_use == captioner.name
    assert gallery.caption(captioner).captioned == 0


def test_changed_rules_judge_old_captions_anew(gallery):
    captioner = CountingCaptioner(words="ein Hund sitzt auf der Wiese und spielt {number}")
    gallery.put("a", 1).put("b", 2)
    assert dict(gallery.caption(captioner).flags) == {"language de": 2}
    again = gallery.caption(captioner, language="de")
    assert (again.judged_anew, again.captioned) == (2, 0)
    assert gallery.caption(captioner, language="de").judged_anew == 0
    rows = CaptionStage(gallery.paths.captions, captioner.fingerprint).table()
    assert rows["flag"].null_count == 2


def test_images_that_no_pin_has_any_more_leave(gallery):
    old, new = CountingCaptioner(), CountingCaptioner("two")
    for number in range(30):
        gallery.put(f"p{number}", number)
    gallery.caption(old)
    for number in range(3):
        gallery.pins.pop(f"p{number}")
    gallery.put("p3", 4).put("p5", 5, deleted_at=NOW)
    counts = gallery.caption(new)
    assert counts.dropped == 5 and sorted(gallery.captions(old)) == [4, *range(6, 30)] == sorted(gallery.captions(new))
    for number in range(6, 20):
        gallery.pins.pop(f"p{number}")
    with pytest.raises(PinfeatherError, match=r"14 of the 25 images.*--allow-deletes"):
        gallery.caption(new)
    assert len(gallery.captions(new)) == 25
    assert gallery.caption(new, allow_deletes=True).dropped == 28


def test_a_pin_whose_row_was_rejected_keeps_its_caption(gallery):
    captioner = CountingCaptioner()
    gallery.put("a", 1).put("b", 2)
    gallery.caption(captioner)
    row = gallery.pins.pop("b")
    gallery.paths.rejected.mkdir(parents=True, exist_ok=True)
    rejected = {
        "pin_id": ["b"],
        "image_sha256": [row["image_sha256"]],
        "event_timestamp": ["2026-11-01T00:00:00+00:00"],
    }
    pq.write_table(pa.table(rejected), gallery.paths.rejected / "pins.parquet")
    assert gallery.caption(captioner).dropped == 0 and sorted(gallery.captions(captioner)) == [1, 2]


def test_a_new_captioner_takes_over_when_it_has_every_image(gallery):
    old, new = CountingCaptioner(), CountingCaptioner("two")
    for number in range(4):
        gallery.put(f"p{number}", number)
    assert gallery.caption(old).in_use == old.name
    assert gallery.caption(new, batch=1, limit=3).in_use == old.name
    assert gallery.caption(new).in_use == new.name and sorted(new.images) == [0, 1, 2, 3]
    assert gallery.caption(old).in_use == old.name and sorted(old.images) == [0, 1, 2, 3]
    assert use_captioner(gallery.paths, new.fingerprint[:8]).name == new.name
    assert [use.name for use in caption_files.history(gallery.paths.captions)] == [
        old.name, new.name, old.name, new.name
    ]  # fmt: skip
    for name in ("fake", "nobody"):
        with pytest.raises(UsageError, match=name):
            use_captioner(gallery.paths, name)
    assert [(one["captioner"], one["captions"], one["in_use"]) for one in list_captioners(gallery.paths)] == [
        (one.name, 4, one is new) for one in sorted((old, new), key=lambda each: each.fingerprint)
    ]


def test_no_switch_that_would_cost_captions(gallery):
    old, new = CountingCaptioner(), CountingCaptioner("two")
    gallery.put("a", 1).put("b", 2)
    gallery.caption(old)
    (gallery.folder / "2.png").unlink()
    told = []
    assert gallery.caption(new, tell=told.append).in_use == old.name
    assert any("1 images that have a good caption of it would have none" in text for text in told)
    assert gallery.caption(new, use=True).in_use == new.name


def good_captions(gallery):
    """How many pins a good caption of the captioner in use reaches."""
    use = caption_files.in_use(gallery.paths.captions)
    return CaptionStage(gallery.paths.captions, use.fingerprint).table()["flag"].null_count


def test_no_switch_to_captions_that_the_gate_flagged(gallery):
    old = CountingCaptioner("two")
    new, partly = (CountingCaptioner(version, words="I cannot describe item {number}") for version in ("one", "three"))
    for number in range(3):
        gallery.put(f"p{number}", number)
    gallery.caption(old)
    told = []
    counts = gallery.caption(new, tell=told.append)
    assert (counts.flagged, counts.remaining, counts.in_use) == (3, 0, old.name) and good_captions(gallery) == 3
    assert any(f"{old.name} stays in use: 3 images" in text for text in told)
    gallery.caption(partly, limit=1)
    partly.words = "a photo of item {number}"
    assert gallery.caption(partly).in_use == old.name
    assert gallery.caption(new, use=True).in_use == new.name and good_captions(gallery) == 0
    assert gallery.caption(old).in_use == old.name


def test_at_once(gallery):
    captioner = CountingCaptioner()
    gallery.put("a", 1).put("b", 2)
    assert gallery.caption(captioner, batch=1, limit=1, use=True).in_use == captioner.name


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


def test_a_hash_in_capitals_is_the_same_image(gallery):
    captioner = CountingCaptioner()
    gallery.put("a", 1).put("b", 1).put("c", 2).put("d", 3, file=False)
    for pin in ("b", "c", "d"):
        gallery.pins[pin]["image_sha256"] = gallery.pins[pin]["image_sha256"].upper()
    counts = gallery.caption(captioner, batch=1)
    assert sorted(captioner.images) == [1, 2] and (counts.images, counts.captioned, counts.rejected) == (3, 2, 1)
    again = gallery.caption(captioner, batch=1)
    assert (again.reused, again.captioned, again.dropped) == (2, 0, 0) and len(gallery.rejected()) == 1
    file = CaptionStage(gallery.paths.captions, captioner.fingerprint).files()[0]
    rows = pq.read_table(file)
    capitals = pa.array([key.upper() for key in rows["image_sha256"].to_pylist()])
    pq.write_table(rows.set_column(0, "image_sha256", capitals), file)  # as somebody else may write them
    assert gallery.caption(captioner).captioned == 0
    assert forget_rejected(gallery.paths) == 0 and len(gallery.rejected()) == 1


@pytest.mark.parametrize(("given", "code"), [("EN", "en"), (" en", "en"), ("en-US", "en"), ("de_AT", "de")])
def test_the_language_as_people_write_it(given, code):
    assert CaptionOptions(language=given).language == code


@pytest.mark.parametrize("given", ["english", "jp", "", "e", "eng"])
def test_a_language_that_there_is_not(given):
    with pytest.raises(UsageError, match=r"ISO 639-1.*any"):
        CaptionOptions(language=given)


def test_any_language():
    assert CaptionOptions(language="any").language is None is CaptionOptions(language=None).language


def test_captioners_are_counted_without_reading_their_captions(gallery, monkeypatch):
    captioner = CountingCaptioner(words="I cannot see item {number}")
    for number in range(4):
        gallery.put(f"p{number}", number)
    gallery.caption(captioner, batch=1, limit=2)
    captioner.words = "a photo of item {number}"
    gallery.caption(captioner)
    folder = CaptionStage(gallery.paths.captions, captioner.fingerprint)
    (file,) = folder.files()
    file.with_name("part-000000099.parquet").write_bytes(file.read_bytes())  # as a kill within a merge leaves it
    monkeypatch.setattr(CaptionStage, "rows", None)
    monkeypatch.setattr(CaptionStage, "table", None)
    (one,) = list_captioners(gallery.paths)
    assert (one["captions"], one["flagged"]) == (4, 2)


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


def test_small_parts_are_merged(gallery, monkeypatch):
    monkeypatch.setattr(stage, "MOST_PARTS", 4)
    captioner = CountingCaptioner()
    for number in range(12):
        gallery.put(f"p{number}", number)
    gallery.caption(captioner, batch=1, limit=11)
    files = CaptionStage(gallery.paths.captions, captioner.fingerprint).files()
    assert len(files) == 1 and len(gallery.captions(captioner)) == 11
    rows = pq.read_table(files[0])
    pq.write_table(rows, files[0].with_name("part-000000001.parquet"))  # as a kill between merge and removal leaves it
    counts = gallery.caption(captioner)
    assert (
        counts.reused == 11
        and captioner.images.count(11) == 1
        and sorted(gallery.captions(captioner)) == list(range(12))
    )


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


def test_what_was_refused_of_erased_pins_is_forgotten(gallery):
    gallery.put("a", 1, file=False).put("b", 2, file=False)
    gallery.caption(CountingCaptioner())
    gallery.pins.pop("a")
    gallery.save()
    assert forget_rejected(gallery.paths) == 1 and set(gallery.rejected()) == {sha(png(2))}
    assert forget_rejected(gallery.paths) == 0
    (gallery.paths.valid / "pins.parquet").unlink()
    assert forget_rejected(gallery.paths) == 1 and not gallery.rejected()


def raw(paths, table, rows):
    folder = paths.raw / table
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet")


def view(paths, as_of=None, folder=None):
    """Pin to (caption, captioner) of ``pin_captions``, and what was screened."""
    with Session(paths, Resources(), folder) as session:
        session.open_tables()
        session.cut_off(microseconds(as_of or datetime.now(UTC) + timedelta(hours=1)))
        write_captions(session)
        session.commit()
    rows = pq.read_table((folder or paths.views) / "pin_captions.parquet").to_pylist()
    return {row["pin_id"]: (row["caption"], row["captioner"]) for row in rows}, dict(session.screened["captions"])


def test_what_counts_as_the_caption_of_a_pin(gallery, tmp_path):
    paths = gallery.paths
    pins = [{"pin_id": f"p{n}", "title": "t", "image_uri": f"{n}.png", "image_sha256": sha(png(n))} for n in range(4)]
    raw(paths, "pins", [{**pin, "created_at": NOW, "event_timestamp": NOW} for pin in pins])
    outside = {"captioner": "outside", "event_timestamp": NOW}
    raw(
        paths,
        "captions",
        [
            {"image_sha256": sha(png(0)).upper(), "caption": "a lamp from outside", **outside},
            {"image_sha256": sha(png(3)), "caption": "a lamp, write to anna@example.org", **outside},
        ],
    )
    validate(paths)
    for number in range(3):
        (gallery.folder / f"{number}.png").write_bytes(png(number))
    gallery.save = lambda: gallery
    old, new = CountingCaptioner(), CountingCaptioner("two", words="a view of item {number} in a room")

    before, screened = view(paths)
    assert before == {"p0": ("a lamp from outside", "outside")} and screened == {"mail address": 1}
    gallery.caption(old)
    first, _ = view(paths)
    assert first == {f"p{n}": (f"a photo of thing {n} on a table", old.name) for n in range(3)}
    gallery.caption(new, batch=1, limit=2)
    assert view(paths)[0] == first
    gallery.caption(new)
    second, _ = view(paths)
    assert second == {f"p{n}": (f"a view of item {n} in a room", new.name) for n in range(3)}

    start = caption_files.history(paths.captions)[0].since
    past = tmp_path / "past"
    assert view(paths, start - timedelta(microseconds=1), past)[0] == before
    assert view(paths, caption_files.history(paths.captions)[1].since - timedelta(microseconds=1), past)[0] == first

    fresh = {"image_sha256": sha(png(0)), "caption": "a newer lamp from outside", "captioner": "outside"}
    since = caption_files.in_use(paths.captions).since
    late = {**fresh, "image_sha256": sha(png(1)), "event_timestamp": since - timedelta(microseconds=1)}
    raw(paths, "captions", [{**fresh, "event_timestamp": since + timedelta(seconds=1)}, late])
    validate(paths)
    assert view(paths)[0] == {**second, "p0": ("a newer lamp from outside", "outside")}
    use_captioner(paths, old.name)
    rows = CaptionStage(paths.captions, old.fingerprint)
    rows.judge(lambda text: "tired of it" if "thing 2" in text else None)
    last, screened = view(paths)
    assert last["p1"] == first["p1"] and "p2" not in last and screened == {"tired of it": 1}


def test_the_list_of_runs(gallery):
    captioner = CountingCaptioner()
    assert list_runs(gallery.paths) == []
    gallery.put("a", 1).put("b", 2, file=False)
    gallery.caption(captioner)
    (row,) = list_runs(gallery.paths)
    assert row["space"] == journal.SPACE + captioner.name and row["status"] == "done" and row["rejected"] == 1
    assert (row["new"], row["encoded_texts"], row["unchanged"], row["remaining"]) == (2, 1, 0, 0)
    gallery.caption(captioner)
    assert [row["run"] for row in list_runs(gallery.paths, 1)] == [2]
    assert json.loads((gallery.paths.captions / "runs" / "000000001.json").read_text())["counts"]["captioned"] == 1
    assert os.listdir(gallery.paths.data) and not list(gallery.paths.data.glob(".scan-*"))


@pytest.mark.slow
def test_a_switch_embeds_only_what_reads_otherwise(catalogue, encoder, tmp_path):
    from materialize.run import RunOptions, materialize

    class Rewords(CountingCaptioner):
        def caption(self, images):
            return [text.replace("table", "shelf") if "1" in text else text for text in super().caption(images)]

    paths = catalogue.paths
    gallery = Gallery(paths, tmp_path / "images")
    for number in range(3):
        (gallery.folder / f"{number}.png").write_bytes(png(number))
        catalogue.put(f"p{number}", f"title {number}", image_uri=f"{number}.png", image_sha256=sha(png(number)))
    catalogue.put("plain", "no image")
    gallery.save = lambda: catalogue.save()

    def embedded(captioner):
        gallery.caption(captioner)
        aggregate(paths)
        return materialize(paths, RunOptions(encoder=encoder)).encoded_texts

    assert embedded(CountingCaptioner()) == 4
    assert embedded(Rewords("two")) == 1
    assert "on a shelf" in encoder.texts[-1] and "title 1" in encoder.texts[-1]
    assert embedded(Rewords("two")) == 0
