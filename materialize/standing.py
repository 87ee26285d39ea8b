"""Which spaces a run keeps, and what it may do with each: all, known pins only, deletions only, or refill from the log.

The live space comes first. A space that is being built is kept fresh for the pins that it has; the others are added by
its backfill. A frozen space loses deleted pins and follows nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from embedders.tokens import TokenCounter
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.paths import RepoPaths
from materialize.plan import Counts, Kind, PinChange, count_pins, pin_changes
from materialize.releases import current_release
from materialize.scan import PinScan
from materialize.selection import Selection
from materialize.spaces import Space, Status, live_space, load_space, load_spaces


class Scope(StrEnum):
    """What a run may do with a space."""

    WHOLE = "whole"
    KNOWN = "known"  # no pin that the space has not had yet
    FROZEN = "frozen"  # deletions, and points that a killed run or a lost store left in doubt
    RESTORE = "restore"  # what the vector log has and the store has not; nothing is encoded


@dataclass(frozen=True)
class Target:
    """One space of a run."""

    space: Space
    scope: Scope
    live: bool
    """Whether the run also writes feature rows and the release."""
    limit: int | None = None
    """How many pins that the space has not had yet are added at most; None for all."""
    first: bool = True
    """Whether it is the run's first space, which decides whether to believe that pins are gone."""


@dataclass
class RunCounts(Counts):
    """Counts of a run or plan over one space, and over the others that were kept with it."""

    scope: str = Scope.WHOLE
    waiting: int = 0
    """Pins that differ and were left alone: for a backfill to add, or because the space is frozen."""
    limited: bool = False
    """Whether the target's limit ended the run: more pins may wait to be added."""
    coverage: float | None = None
    """Share of the pins with text that have a vector after the run; None in a plan."""
    spaces: dict[str, RunCounts] = field(default_factory=dict)
    """Name of every other space that is kept to its counts."""

    def to_json(self) -> dict[str, Any]:
        """Plain data, seconds rounded to milliseconds."""
        return {**super().to_json(), "spaces": {name: counts.to_json() for name, counts in self.spaces.items()}}


def targets(paths: RepoPaths, model: str | None, only: str | None, fill: str | None, limit: int | None) -> list[Target]:
    """The spaces of a run, the live one first.

    :param only: this space alone; a space that is being built is then built in whole.
    :param fill: add to this space at most ``limit`` pins that it has not had yet.
    :raises UsageError: for a space that there is not.
    :raises PinfeatherError: for one that is being dropped, or frozen and to be filled.
    """
    live = live_space(paths, model)
    if only is not None:
        space = live if only in (live.name, "live") else load_space(paths, only)
        _standing(space)
        scope = Scope.FROZEN if space.status is Status.FROZEN else Scope.WHOLE
        return [Target(space, scope, live=space.name == live.name)]
    found = [Target(live, Scope.WHOLE, live=True)]
    others = [space for space in load_spaces(paths) if space.name != live.name]
    for space in others if current_release(paths) else []:
        if space.status is not Status.DROPPING and space.name != fill:
            found.append(Target(space, _SCOPES[space.status], live=False, first=False))
    if fill is not None and fill != live.name:
        space = load_space(paths, fill)
        _standing(space)
        if space.status is Status.FROZEN:
            raise PinfeatherError(f"Space {fill} is frozen: run `pinfeather spaces unfreeze {fill}` first.")
        found.append(Target(space, Scope.WHOLE, live=False, limit=limit, first=False))
    return found


_SCOPES = {Status.READY: Scope.WHOLE, Status.BUILDING: Scope.KNOWN, Status.FROZEN: Scope.FROZEN}


def _standing(space: Space) -> None:
    if space.status is Status.DROPPING:
        raise UsageError(f"Space {space.name} is being dropped: end that with `pinfeather spaces drop {space.name}`.")


def chosen(target: Target, changes: Iterator[list[PinChange]], counts: RunCounts) -> Iterator[list[PinChange]]:
    """The changes that the target's scope lets through; the end comes with the pin that its limit lets through last.

    Then ``counts.limited`` is set.
    """
    left = target.limit
    for batch in changes:
        kept = []
        for change in batch:
            if left == 0:
                break
            if _lets(target.scope, change):
                kept.append(change)
                left = left - 1 if left is not None and change.kind is Kind.NEW else left
        if kept:
            yield kept
        if left == 0:
            counts.limited = True
            return


def _lets(scope: Scope, change: PinChange) -> bool:
    rejected = change.kind is Kind.REJECTED
    match scope:
        case Scope.WHOLE:
            return True
        case Scope.KNOWN:
            return change.kind is not Kind.NEW
        case Scope.FROZEN:
            return change.had_vector if rejected else change.doubtful
        case Scope.RESTORE:
            return not rejected and (change.doubtful or change.kind is Kind.NEW)


def count_target(scan: PinScan, target: Target, counts: RunCounts, selection: Selection) -> dict[bytes, int] | None:
    """Fill the pin counts of ``counts``; text fingerprint to how many pins want its vector.

    Nothing is counted ahead for a target with a limit, whose scan is not read to its end: then None.
    """
    counts.scope = target.scope
    if target.scope is Scope.WHOLE and target.limit is None:
        return count_pins(scan, target.space, counts, selection)
    counts.unchanged = scan.unchanged - scan.still_empty
    counts.rejected = scan.still_empty + scan.held
    counts.gone = len(selection.gone(scan.gone))
    if target.limit is not None:
        return None
    pins: dict[bytes, int] = {}
    counter = None
    for batch in selection.pick(pin_changes(scan, target.space)):
        chosen_ones = [change for change in batch if _lets(target.scope, change)]
        tally(counts, chosen_ones)
        counts.waiting += sum(change.kind in _WRITTEN for change in batch)
        counts.waiting -= sum(change.kind in _WRITTEN for change in chosen_ones)
        if target.scope is Scope.RESTORE:  # of these the log has nothing, and no vector is missed
            counts.rejected += sum(change.kind is Kind.REJECTED for change in batch)
        fresh = []
        for change in chosen_ones if target.scope is Scope.KNOWN else []:
            if change.kind is Kind.CHANGED and change.text_fp is not None:
                fresh += [] if change.text_fp in pins else [change.text]
                pins[change.text_fp] = pins.get(change.text_fp, 0) + 1
        if fresh:
            counter = counter or TokenCounter(target.space.model)
            counts.tokens += sum(counter.count(fresh))
    selection.count(counts)
    counts.texts_to_encode = len(pins)
    return pins


_WRITTEN = (Kind.NEW, Kind.CHANGED, Kind.PAYLOAD_ONLY)


def tally(counts: Counts, changes: list[PinChange]) -> None:
    """Add ``changes`` to the counts of their kinds."""
    for change in changes:
        name = "unchanged" if change.kind is Kind.TOUCHED else str(change.kind)
        setattr(counts, name, getattr(counts, name) + 1)
        counts.truncated += change.truncated
        counts.emptied += change.kind is Kind.REJECTED and change.had_vector
