"""Pins come, go, share and change images, captioners change, runs are killed: the stage is always what it should be."""

import tempfile
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest
from caption_models import NOW, CountingCaptioner, Gallery
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from feature_repo.aggregates import caption_files
from feature_repo.paths import RepoPaths
from materialize.captions import run as run_module
from materialize.captions import stage as stage_module
from materialize.captions.rejections import Rejections
from materialize.captions.stage import CaptionStage

BATCH = 2
BROKEN = 9
"""The image whose file cannot be decoded."""
SEAMS = (
    (CountingCaptioner, "caption"),
    (CaptionStage, "append"),
    (CaptionStage, "merge"),
    (CaptionStage, "keep"),
    (stage_module, "write_parquet"),
    (Rejections, "save"),
    (run_module, "put_in_use"),
)
PINS = st.sampled_from([f"p{number}" for number in range(6)])
IMAGES = st.sampled_from([1, 2, 3, 4, BROKEN])


class Killed(BaseException):
    """As a kill leaves things: nobody handles it."""


@contextmanager
def dying(seam, call, done):
    """The block dies at a call of ``seam``, before it or when it is done."""
    owner, name = seam
    real, calls = getattr(owner, name), 0

    def step(*given, **more):
        nonlocal calls
        calls += 1
        if calls == call and not done:
            raise Killed
        result = real(*given, **more)
        if calls == call:
            raise Killed
        return result

    with patch.object(owner, name, step):
        try:
            yield
        except Killed:
            return


class CaptionMachine(RuleBasedStateMachine):
    """Against two dictionaries: the pins, and what each captioner has captioned."""

    @initialize()
    def begin(self):
        self.room = tempfile.TemporaryDirectory(prefix="captions-")
        root = Path(self.room.name)
        (root / "feature_store.yaml").write_text("project: p\n")
        self.gallery = Gallery(RepoPaths(root), root / "images")
        self.captioners = {version: CountingCaptioner(version) for version in ("one", "two")}

    def teardown(self):
        if hasattr(self, "room"):
            self.room.cleanup()

    @rule(pin=PINS, image=IMAGES)
    def put(self, pin, image):
        self.gallery.put(pin, image)
        if image == BROKEN:
            (self.gallery.folder / f"{BROKEN}.png").write_bytes(b"broken")

    @rule(pin=PINS)
    def leave(self, pin):
        self.gallery.pins.pop(pin, None)

    @rule(pin=PINS)
    def take_down(self, pin):
        if pin in self.gallery.pins:
            self.gallery.pins[pin]["deleted_at"] = NOW

    @rule(version=st.sampled_from(["one", "two"]), limit=st.none() | st.integers(1, 3))
    def caption(self, version, limit):
        captioner, there = self.captioners[version], self.wanted()
        before, calls = self.had(version), len(captioner.images)
        counts = self.gallery.caption(captioner, batch=BATCH, limit=limit)
        news = captioner.images[calls:]
        assert len(set(news)) == len(news) == counts.captioned and not set(news) & before
        assert set(news) <= there and counts.reused == len(before & there)
        for each in self.captioners:
            assert self.had(each) <= there
        if limit is None:
            assert self.had(version) == there - {BROKEN} and counts.remaining == 0
            assert set(self.gallery.rejected()) == self.keys(there & {BROKEN})
        self.check(version)

    @rule(
        version=st.sampled_from(["one", "two"]),
        seam=st.sampled_from(SEAMS),
        call=st.integers(1, 3),
        done=st.booleans(),
    )
    def die(self, version, seam, call, done):
        captioner = self.captioners[version]
        had, calls = self.had(version), len(captioner.images)
        with dying(seam, call, done):
            self.gallery.caption(captioner, batch=BATCH)
        lost = len(captioner.images) - calls - len(self.had(version) - had)
        assert 0 <= lost <= BATCH
        self.check(version)

    def wanted(self):
        """Images of the pins that are there."""
        alive = [pin for pin in self.gallery.pins.values() if pin.get("deleted_at") is None]
        return {int(pin["image_uri"].removesuffix(".png")) for pin in alive}

    def had(self, version):
        return set(self.gallery.captions(self.captioners[version]))

    def keys(self, images):
        from caption_models import png, sha

        return {sha(png(image)) for image in images}

    def check(self, version):
        captions = self.gallery.captions(self.captioners[version])
        assert captions == {image: f"a photo of thing {image} on a table" for image in captions}
        use = caption_files.in_use(self.gallery.paths.captions)
        if use:  # it had every image once
            assert use.fingerprint in {captioner.fingerprint for captioner in self.captioners.values()}


@pytest.mark.slow
def test_pins_captioners_and_kills_in_any_order():
    run_state_machine_as_test(
        CaptionMachine, settings=settings(max_examples=12, stateful_step_count=12, deadline=None, derandomize=True)
    )
