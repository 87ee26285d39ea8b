"""One run of a captioner: what is new is captioned batch by batch, the most wanted first; what is gone is dropped."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import pyarrow as pa

from embedders.captions.captioner import Captioner, CaptionerError, PreparingCaptioner
from embedders.captions.gate import QualityGate
from embedders.captions.images import ImageLimits, ImageRefused
from embedders.captions.language import expected_language
from feature_repo.aggregates import caption_files
from feature_repo.errors import PinfeatherError
from feature_repo.paths import RepoPaths
from feature_repo.screening import Screening
from materialize.captions import journal
from materialize.captions.ahead import Batch, batches
from materialize.captions.counts import CaptionCounts
from materialize.captions.rejections import Rejections
from materialize.captions.sources import ImageSource, WantedImage
from materialize.captions.stage import CaptionStage, stages
from materialize.captions.using import put_in_use
from materialize.captions.wanted import CaptionPlan, Wanted, open_wanted

MOST_FAILURES = 8
"""After so many images in a row that the model fails at, the model is to blame."""
_GUARDED = 20
"""A stage with fewer captions is dropped from without asking."""


class Described(Protocol):
    """A captioner, or what is known of one before its model is loaded."""

    @property
    def name(self) -> str:
        """As :attr:`Captioner.name`."""
        ...

    @property
    def fingerprint(self) -> str:
        """As :attr:`Captioner.fingerprint`."""
        ...


@dataclass(frozen=True)
class CaptionOptions:
    """How to run.

    :raises UsageError: if ``language`` is none.
    """

    batch: int = 16
    limit: int | None = None
    """So many images are tried at most, the rest by later runs."""
    only: frozenset[str] | None = None
    """The images of these pins alone; None for all."""
    use: bool = False
    """Let this captioner's captions count at once, whether or not it has all of them."""
    language: str | None = "en"
    """Captions in another one are flagged (ISO 639-1, a region is cut off); None and "any" take any."""
    limits: ImageLimits = field(default_factory=ImageLimits)
    max_gone: float = 0.2
    allow_deletes: bool = False
    lock_timeout: float = 10.0
    about: dict[str, Any] = field(default_factory=dict)
    """Noted beside the captions: model, prompt, settings."""
    progress: Callable[[int, int], None] | None = None
    """Called with (images done, images to do)."""
    tell: Callable[[str], None] | None = None
    stop: Callable[[], bool] | None = None
    """Asked between two batches; once it says True the run ends there and ``interrupted`` is set."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "language", expected_language(self.language))


def plan_captions(paths: RepoPaths, who: Described, only: frozenset[str] | None = None) -> CaptionPlan:
    """Count what a run would do, without a model and without looking at an image."""
    with open_wanted(paths) as wanted:
        return wanted.plan(CaptionStage(paths.captions, who.fingerprint), only)


def caption(
    paths: RepoPaths,
    who: Described,
    load: Callable[[], Captioner],
    source: ImageSource,
    options: CaptionOptions | None = None,
) -> CaptionCounts:
    """Caption the images of the repository's pins that ``who`` has not captioned yet.

    Safe to kill at any moment and to repeat: a batch is written before the next one begins. Once every image is
    captioned the captioner comes into use, unless images would lose a caption by that.

    :param load: loads the model; called only where there is something to caption.
    :raises PinfeatherError: if the pins were not validated, the model fails, or more captioned images are gone than
        ``max_gone`` allows.
    :raises StoreBusyError: if another process writes captions.
    """
    options = options or CaptionOptions()
    with journal.lease(paths, options.lock_timeout):
        run = _Run(paths, who, source, options)
        number = journal.start(paths, who.name)
        clock, status, error = time.perf_counter(), "failed", ""
        try:
            run.work(load)
            status = "interrupted" if run.counts.interrupted else "done"
        except BaseException as raised:
            error = " ".join((str(raised) or type(raised).__name__).split())
            raise
        finally:
            run.counts.seconds = time.perf_counter() - clock
            journal.finish(paths, number, status, {**run.counts.to_json(), **({"error": error} if error else {})})
    return run.counts


class _Run:
    """State of one run."""

    def __init__(self, paths: RepoPaths, who: Described, source: ImageSource, options: CaptionOptions) -> None:
        self.paths, self.who, self.source, self.options = paths, who, source, options
        self.counts = CaptionCounts(who.name, who.fingerprint)
        self.stage = CaptionStage(paths.captions, who.fingerprint)
        self.rejections = Rejections(paths)
        self.screening = Screening.load(paths.root)
        self.gate = QualityGate(self.screening, options.language)
        self.failures = 0

    def work(self, load: Callable[[], Captioner]) -> None:
        counts, options = self.counts, self.options
        self.stage.write_note(name=self.who.name, language=options.language, **options.about)
        self._judge_anew()
        with open_wanted(self.paths) as wanted:
            plan = wanted.plan(self.stage, options.only)
            counts.images, counts.new, counts.reused = plan.images, plan.new, plan.reused
            counts.without_hash, counts.unknown = plan.without_hash, plan.unknown
            self._tell(f"{plan.images:,} images, {plan.new:,} of them not captioned by {self.who.name}.")
            self._drop_gone(wanted)
            try:
                if plan.new and not self._stopping():
                    self._caption(wanted, load, min(plan.new, options.limit or plan.new))
            finally:
                self.rejections.keep(wanted.held)
                self.rejections.save()
            self.stage.merge()
            counts.remaining = wanted.remaining(self.stage, self.refused)
            self._come_into_use(wanted)
        use = caption_files.in_use(self.paths.captions)
        counts.in_use = use.name if use else None

    @property
    def refused(self) -> set[str]:
        """Keys of the images that were refused and that this captioner, too, would be refused."""
        return self.rejections.of(self.who.name)

    def _judge_anew(self) -> None:
        """Flags follow the rules: where these changed, captions are judged again, without a model."""
        for stage in stages(self.paths.captions):
            note = stage.note()
            gate = QualityGate(self.screening, note.get("language"))
            if note.get("gate") != gate.fingerprint:
                self.counts.judged_anew += stage.judge(gate.reason)
                stage.write_note(gate=gate.fingerprint)

    def _drop_gone(self, wanted: Wanted) -> None:
        there = [(stage, stage.count(), wanted.gone(stage)) for stage in stages(self.paths.captions)]
        for stage, known, gone in there:
            if gone > known * self.options.max_gone and known >= _GUARDED and not self.options.allow_deletes:
                raise PinfeatherError(
                    f"No pin has {gone:,} of the {known:,} images any more that {stage.name} captioned, more than the "
                    f"{self.options.max_gone:.0%} that are believed; nothing was written. Check the pins table; if "
                    "they are gone indeed, run again with --allow-deletes."
                )
        self.counts.dropped = sum(stage.keep(wanted.held) for stage, _, gone in there if gone)

    def _caption(self, wanted: Wanted, load: Callable[[], Captioner], total: int) -> None:
        if not wanted.untried(self.refused) and not self._any_good(wanted):
            return
        captioner = load()
        if captioner.fingerprint != self.who.fingerprint:
            raise CaptionerError(
                f"The model that was loaded is {captioner.fingerprint}, not {self.who.fingerprint}: its files changed "
                "meanwhile. Run again."
            )
        if recipe := getattr(captioner, "recipe", None):
            self.stage.write_note(recipe=recipe.to_json())
            self._tell(f"Captioning on {recipe.device} in {recipe.precision} ({recipe.reason}).")
        if self.options.use:
            put_in_use(self.paths, self.stage)
        clock, before, tried = time.perf_counter(), captioner.model_seconds, 0
        images = wanted.left(self.refused, self.options.limit)
        for batch in batches(images, self.source, captioner, self.options.batch, self.options.limits):
            if self._stopping():
                break
            self._write(captioner, batch)
            self.counts.loop_seconds = time.perf_counter() - clock
            self.counts.model_seconds = captioner.model_seconds - before
            tried += len(batch.wanted) + len(batch.refused)
            if self.options.progress:
                self.options.progress(tried, total)

    def _any_good(self, wanted: Wanted) -> bool:
        """Whether an image can be decoded, of those that could not before: only then is the model loaded."""
        images = wanted.left(self.refused, self.options.limit)
        refused: list[tuple[WantedImage, str]] = []
        for batch in batches(images, self.source, None, self.options.batch, self.options.limits):
            if batch.images or self._stopping():
                return bool(batch.images)
            refused += batch.refused
        self._note(refused)
        return False

    def _note(
        self,
        refused: list[tuple[WantedImage, str]],
        failed: list[tuple[WantedImage, str]] | None = None,
        captioned: Sequence[str] = (),
    ) -> None:
        failed = failed or []
        self.rejections.note(self.who.name, refused, failed, captioned)
        self.counts.reasons.update(reason for _, reason in (*refused, *failed))

    def _write(self, captioner: Captioner, batch: Batch) -> None:
        texts = self._texts(captioner, batch)
        failed = [(image, text.reason) for image, text in texts if isinstance(text, _Failed)]
        good = [(image.image_sha256, text) for image, text in texts if isinstance(text, str)]
        flags = [self.gate.reason(text) for _, text in good]
        if good:
            now = datetime.now(UTC)
            columns = [[image for image, _ in good], [self.who.name] * len(good), [text for _, text in good], flags]
            self.stage.append(
                pa.Table.from_arrays(
                    [*(pa.array(column, pa.string()) for column in columns), pa.array([now] * len(good))],
                    names=caption_files.SCHEMA.names,
                )
            )
        self._note(batch.refused, failed, [image for image, _ in good])
        self.counts.captioned += len(good)
        self.counts.flags.update(flag for flag in flags if flag)

    def _texts(self, captioner: Captioner, batch: Batch) -> list[tuple[WantedImage, str | _Failed]]:
        """A caption of each image; where the model fails at the batch, image by image."""
        if not batch.images:
            return []
        try:
            if isinstance(captioner, PreparingCaptioner) and batch.prepared is not None:
                texts = captioner.generate(batch.prepared)
            else:
                texts = captioner.caption(batch.images)
        except PinfeatherError:
            raise
        except Exception:  # whatever a model raises at an image: the others are not to suffer
            return [
                (wanted, self._alone(captioner, image))
                for wanted, image in zip(batch.wanted, batch.images, strict=True)
            ]
        if len(texts) != len(batch.images):
            raise CaptionerError(f"{captioner.name} wrote {len(texts)} captions for {len(batch.images)} images.")
        self.failures = 0
        return list(zip(batch.wanted, texts, strict=True))

    def _alone(self, captioner: Captioner, image: Any) -> str | _Failed:
        try:
            (text,) = captioner.caption([image])
        except ImageRefused as error:
            return _Failed(str(error))
        except PinfeatherError:
            raise
        except Exception as error:
            self.failures += 1
            words = " ".join(str(error).split())[:120] or type(error).__name__
            if self.failures >= MOST_FAILURES:
                raise CaptionerError(
                    f"The model of {captioner.name} failed at {self.failures} images in a row, at the last with: "
                    f"{words}. What was captioned before is kept. Try --precision fp32, --device cpu or another model."
                ) from error
            return _Failed(f"the model failed: {words}")
        self.failures = 0
        return text

    def _come_into_use(self, wanted: Wanted) -> None:
        """Once it has every image, unless that would cost images their caption; or at once where that was asked."""
        use = caption_files.in_use(self.paths.captions)
        if self.options.use:
            put_in_use(self.paths, self.stage)
        elif (use is None or use.fingerprint != self.stage.fingerprint) and not self.counts.remaining:
            if not self.stage.files():
                return
            lost = wanted.lost(CaptionStage(self.paths.captions, use.fingerprint), self.stage) if use else 0
            if lost:
                self._tell(
                    f"{use.name if use else ''} stays in use: {lost:,} images that have a good caption of it would "
                    f"have none, for they were refused this time or the new caption is flagged. `pinfeather caption "
                    f"--use {self.who.name}` switches all the same."
                )
            else:
                put_in_use(self.paths, self.stage)
                self._tell(f"The captions of {self.who.name} count from now on: run aggregate, then materialize.")

    def _stopping(self) -> bool:
        self.counts.interrupted = self.counts.interrupted or bool(self.options.stop and self.options.stop())
        return self.counts.interrupted

    def _tell(self, text: str) -> None:
        if self.options.tell:
            self.options.tell(text)


@dataclass(frozen=True)
class _Failed:
    reason: str
