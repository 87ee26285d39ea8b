"""Which captioner's captions count: a new one takes over when it has every image, and none gets lost."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from caption_models import NOW, CountingCaptioner, Gallery, new_gallery, png, sha

from feature_repo.aggregates import aggregate, caption_files
from feature_repo.aggregates.captions import write_captions
from feature_repo.aggregates.session import Resources, Session, microseconds
from feature_repo.errors import UsageError
from feature_repo.validation import validate
from materialize.captions.stage import CaptionStage
from materialize.captions.using import list_captioners, use_captioner


@pytest.fixture
def gallery(tmp_path):
    return new_gallery(tmp_path)


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
