"""The stage: one image once, in order, resumably; what is gone leaves, and which captioner's captions count."""

import json
import os
from datetime import timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from caption_models import NOW, CountingCaptioner, new_gallery, png, sha

from feature_repo.errors import PinfeatherError, UsageError
from materialize.captions import journal, stage
from materialize.captions.run import CaptionOptions
from materialize.captions.stage import CaptionStage
from materialize.captions.using import forget_rejected
from materialize.runs import list_runs


@pytest.fixture
def gallery(tmp_path):
    return new_gallery(tmp_path)


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


def test_what_was_refused_of_erased_pins_is_forgotten(gallery):
    gallery.put("a", 1, file=False).put("b", 2, file=False)
    gallery.caption(CountingCaptioner())
    gallery.pins.pop("a")
    gallery.save()
    assert forget_rejected(gallery.paths) == 1 and set(gallery.rejected()) == {sha(png(2))}
    assert forget_rejected(gallery.paths) == 0
    (gallery.paths.valid / "pins.parquet").unlink()
    assert forget_rejected(gallery.paths) == 1 and not gallery.rejected()


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
