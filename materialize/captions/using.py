"""Which captioner's captions count: ``data/captions/current.json``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from feature_repo.aggregates import caption_files
from feature_repo.aggregates.caption_files import InUse
from feature_repo.errors import UsageError
from feature_repo.paths import RepoPaths
from materialize.captions import journal
from materialize.captions.rejections import Rejections
from materialize.captions.stage import CaptionStage, stages
from materialize.captions.wanted import open_wanted, tally
from materialize.files import write_json


def put_in_use(paths: RepoPaths, stage: CaptionStage) -> InUse:
    """From now on the captions of ``stage`` count, from the next `pinfeather aggregate` on in the pin text."""
    past = caption_files.history(paths.captions)
    if past and past[-1].fingerprint == stage.fingerprint:
        return past[-1]
    now = datetime.now(UTC)
    if past:  # a clock that was set back must not put the new one before the old
        now = max(now, past[-1].since + timedelta(microseconds=1))
    use = InUse(stage.fingerprint, stage.name, now)
    entries = [
        {"fingerprint": each.fingerprint, "name": each.name, "since": each.since.isoformat()} for each in (*past, use)
    ]
    write_json(paths.captions / caption_files.CURRENT, {"captioners": entries})
    return use


def use_captioner(paths: RepoPaths, name: str, lock_timeout: float = 10.0) -> InUse:
    """Let the captions of a captioner count that captioned before.

    :param name: its name, or the beginning of its name or fingerprint, if no other begins so.
    :raises UsageError: if none or several are meant.
    :raises StoreBusyError: if captions are being written.
    """
    there = stages(paths.captions)
    found = [stage for stage in there if stage.name.startswith(name) or stage.fingerprint.startswith(name)]
    found = [stage for stage in found if name in (stage.name, stage.fingerprint)] or found
    if len(found) != 1:
        known = ", ".join(sorted(stage.name for stage in there)) or "none"
        raise UsageError(
            f"--use {name!r} names {'no captioner' if not found else f'{len(found)} captioners'}; there are: {known}. "
            "Caption with --model first, or give more of the name."
        )
    with journal.lease(paths, lock_timeout):
        return put_in_use(paths, found[0])


def list_captioners(paths: RepoPaths) -> list[dict[str, Any]]:
    """Every captioner that captioned: ``captioner, fingerprint, captions, flagged, in_use, since, model, prompt``."""
    use = caption_files.in_use(paths.captions)
    answer = []
    for stage in stages(paths.captions):
        (captions, flagged), note = tally(paths, stage), stage.note()
        used = use is not None and use.fingerprint == stage.fingerprint
        answer.append(
            {
                "captioner": stage.name,
                "fingerprint": stage.fingerprint,
                "captions": captions,
                "flagged": flagged,
                "in_use": used,
                "since": use.since.isoformat() if use and used else None,
                "model": note.get("model"),
                "prompt": note.get("prompt"),
            }
        )
    return answer


def forget_rejected(paths: RepoPaths) -> int:
    """Forget what was refused of images that no pin has any more, as after an erasure; how many images.

    The caller holds the lease of the captions.
    """
    rejections = Rejections(paths)
    before = len(rejections.images)
    if not before:
        return 0
    if paths.valid_files("pins"):
        with open_wanted(paths) as wanted:
            rejections.keep(wanted.held)
    else:  # nobody can say whose they are
        rejections.keep(lambda images: pa.array([False] * len(images), pa.bool_()))
    rejections.save()
    return before - len(rejections.images)
