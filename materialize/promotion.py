"""Which space is live: promotion through a gate, and the way back. A switch is one atomic write of a release."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from embedders.bundle import check_files, load_manifest
from embedders.bundle_places import adopt_bundle
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.paths import RepoPaths
from materialize import vector_log
from materialize.comparison import SAMPLE, Freshness, compare_spaces, freshness
from materialize.ledger import Ledger
from materialize.places import open_store
from materialize.releases import (
    LIVE_EMBEDDING,
    Release,
    current_release,
    past_release,
    release_numbers,
    write_release,
    write_release_again,
)
from materialize.spaces import Space, Status, change_space, load_space
from materialize.stores.session import StoreWriter

OVERLAP_MIN = 0.3
"""Least share of common neighbours: below, the new space knows other pins as alike, which no template change does."""
NDCG_DROP_MAX = 0.01
"""Most that nDCG@20 by cosine may lose on the judgments."""

Warm = Callable[[Space], int]
"""Makes the query vectors that clients of a space begin with; how many there are."""
Judge = Callable[[Space], float | None]
"""nDCG@20 by cosine of a space on the judgments; None where there are none."""


@dataclass(frozen=True)
class Check:
    """One condition of a promotion."""

    name: str
    value: float | None
    bound: float | None
    passed: bool
    words: str


@dataclass(frozen=True)
class Gate:
    """Bounds of a promotion."""

    overlap_min: float = OVERLAP_MIN
    ndcg_drop_max: float = NDCG_DROP_MAX
    sample: int = SAMPLE
    seed: int = 0
    force: bool = False
    """Promote although a check fails."""


@dataclass
class Switch:
    """A release that replaced another, or was refused."""

    space: str | None
    former_space: str | None
    release: int
    """The one that serves now."""
    former_release: int
    switched: bool
    bundle: str | None = None
    lexical: str | None = None
    warmed: int | None = None
    """Head queries whose vectors clients begin with; None where none were asked for."""
    checks: list[Check] = field(default_factory=list)
    apply_needed: bool = False
    """The live Feast view declares another dimension until `pinfeather apply` was run."""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


class GateError(PinfeatherError):
    """A check failed: the former release goes on serving. ``switch`` has all the checks."""

    def __init__(self, switch: Switch, message: str) -> None:
        super().__init__(message)
        self.switch = switch


def promote(
    paths: RepoPaths,
    name: str,
    gate: Gate | None = None,
    judge: Judge | None = None,
    *,
    warm: Warm | None = None,
    bundle: str | None = None,
    without_bundle: bool = False,
    lock_timeout: float = 10.0,
) -> Switch:
    """Make the space ``name`` the live one, by a new release, if it passes the gate.

    No writer comes in between the checks and the switch. The former live space stays and is kept fresh. Where the space
    is live already, another student goes live with it, and there is nothing for the gate to look at.

    :param warm: called before anybody is kept waiting, so what it made stays where a check fails.
    :param bundle: the student that the new release names; must have been trained on the space, or have its pin tower.
        One that lies outside the repository is copied into it.
    :param without_bundle: the new release names no student; the client then ranks by cosine.
    :raises UsageError: if there is no such space, or it is live already with this student.
    :raises GateError: if a check fails and ``gate.force`` is not set.
    :raises PinfeatherError: if the space is frozen, being built or dropped, or the student is not the space's.
    """
    gate = gate or Gate()
    space = load_space(paths, name)
    bundle = adopt_bundle(paths, bundle) if bundle else None
    _must_change(paths, name, bundle, without_bundle)
    warmed = warm(space) if warm else None
    with open_store(paths, f"promote {name}", lock_timeout) as store, Ledger(paths) as ledger:
        space = load_space(paths, name)
        current, student = _must_change(paths, name, bundle, without_bundle)
        _must_stand(space, store)
        _check_student(paths, current, space, student)
        if current.live_space == name:
            release = write_release(paths, bundle=bundle, without_bundle=without_bundle)
            _serve(paths, store, release)
            return Switch(name, name, release.number, current.number, True, student, current.lexical, warmed)
        live = load_space(paths, current.live_space or "")
        fewer = store.count(live.name) - store.count(name)
        checks = [_coverage(freshness(paths, space, ledger, store), name, fewer), _overlap(live, space, store, gate)]
        if judge is not None:
            checks.append(_ndcg(judge(live), judge(space), gate))
        named = student, current.lexical
        switch = Switch(name, live.name, current.number, current.number, False, *named, warmed, checks)
        failed = [check.words for check in checks if not check.passed]
        if failed and not gate.force:
            raise GateError(switch, f"Space {name} is not promoted: {' '.join(failed)}")
        names = {LIVE_EMBEDDING: name}
        write = partial(write_release, paths, names=names, bundle=bundle, without_bundle=without_bundle)
        release = _write_standing(paths, name, store, write)
        _serve(paths, store, release)
    switch.release, switch.switched = release.number, True
    switch.apply_needed = space.dimension != live.dimension
    return switch


def _must_change(paths: RepoPaths, name: str, bundle: str | None, without_bundle: bool) -> tuple[Release, str | None]:
    """The release that serves, and the student that the next one will name."""
    current = current_release(paths)
    if current is None or current.live_space is None:
        raise PinfeatherError(f"Nothing is live in {paths.root} yet: run `pinfeather materialize` first.")
    student = None if without_bundle else bundle or current.bundle
    if current.live_space == name and student == current.bundle:
        raise UsageError(f"Space {name} is live already, by release {current.number}.")
    return current, student


def rollback(paths: RepoPaths, to: int | None = None, lock_timeout: float = 10.0) -> Switch:
    """Write a former release again, as a new one.

    :param to: its number; default is the one before the present.
    :raises UsageError: if there was no such release, or it says what the present one says.
    :raises PinfeatherError: if its space is gone, frozen or staler than the live one, or its student or statistics are
        gone.
    """
    with open_store(paths, "rollback", lock_timeout) as store, Ledger(paths) as ledger:
        current = current_release(paths)
        numbers = release_numbers(paths)
        if current is None or (to is None and len(numbers) < 2):
            raise UsageError(f"There is no former release in {paths.root} to go back to.")
        former = past_release(paths, numbers[-2] if to is None else to)
        if (former.names, former.bundle, former.lexical) == (current.names, current.bundle, current.lexical):
            raise UsageError(f"Release {former.number} says what release {current.number} says: nothing to go back to.")
        if former.live_space is None:
            raise PinfeatherError(f"Release {former.number} names no live space: nothing could be served by it.")
        space = _standing_space(paths, former, store)
        if former.live_space != current.live_space and current.live_space:
            now = freshness(paths, load_space(paths, current.live_space), ledger, store)
            then = freshness(paths, space, ledger, store)
            if then.behind > now.behind:
                raise PinfeatherError(
                    f"Space {space.name} of release {former.number} is {then.behind:,} pins behind its source, the "
                    f"live one {now.behind:,}: run `pinfeather materialize`, then roll back."
                )
        _check_parts(paths, former)
        release = _write_standing(paths, space.name, store, partial(write_release_again, paths, former))
        _serve(paths, store, release)
    before = current.live_space
    changed = before is not None and load_space(paths, before).dimension != space.dimension
    return Switch(
        space=former.live_space,
        former_space=before,
        release=release.number,
        former_release=current.number,
        switched=True,
        bundle=former.bundle,
        lexical=former.lexical,
        apply_needed=changed,
    )


def _write_standing(paths: RepoPaths, name: str, store: StoreWriter, write: Callable[[], Release]) -> Release:
    """The release that ``write`` writes, unless somebody froze the space ``name`` since it was looked at."""
    written: list[Release] = []

    def stands(space: Space) -> Space:
        _must_stand(space, store)
        written.append(write())
        return space

    change_space(paths, name, stands)  # nobody else changes a space meanwhile
    return written[0]


def _serve(paths: RepoPaths, store: StoreWriter, release: Release) -> None:
    """Let readers and Feast see ``release``; a kill before the end is made good by the next run."""
    store.publish(release.to_json())
    if release.live_space:
        vector_log.link_live(paths, LIVE_EMBEDDING, release.live_space)


def _must_stand(space: Space, store: StoreWriter) -> None:
    todo = {
        Status.BUILDING: f"end its `pinfeather spaces backfill {space.name}` first",
        Status.FROZEN: f"run `pinfeather spaces unfreeze {space.name}` and `pinfeather materialize` first",
        Status.DROPPING: "it is being dropped",
    }
    if space.status in todo:
        raise PinfeatherError(f"Space {space.name} cannot go live while it is {space.status}: {todo[space.status]}.")
    if space.name not in store.collections():
        raise PinfeatherError(
            f"Space {space.name} has no collection in the store: run `pinfeather restore --space {space.name}` first."
        )


def _standing_space(paths: RepoPaths, former: Release, store: StoreWriter) -> Space:
    try:
        space = load_space(paths, former.live_space or "")
    except UsageError as error:
        raise PinfeatherError(
            f"Release {former.number} cannot come back: its space is gone. {error} Make and fill one like it "
            "(`pinfeather spaces create`), then promote that."
        ) from error
    _must_stand(space, store)
    return space


def _check_student(paths: RepoPaths, current: Release, space: Space, student: str | None) -> None:
    if student is None:
        return
    manifest = load_manifest(paths.bundles / student)
    check_files(paths.bundles / student, manifest)
    if not manifest.reads(space.name, space.model_fingerprint, space.template):
        reads = ", ".join(manifest.spaces) or "spaces of its own towers"
        raise PinfeatherError(
            f"Student {student} (release {current.number} names {current.bundle or 'none'}) reads {reads}, not "
            f"{space.name}: replace both, by `pinfeather train student --space "
            f"{space.name}` and promote --bundle NAME; or promote --no-bundle and rank by cosine."
        )
    if manifest.query_tower not in space.query_towers:
        raise PinfeatherError(
            f"Student {student} needs the query tower {manifest.query_tower}; space {space.name} takes "
            f"{', '.join(space.query_towers)}. Train one on the space: `pinfeather train student --space {space.name}`."
        )


def _check_parts(paths: RepoPaths, former: Release) -> None:
    if former.bundle:
        load_manifest(paths.bundles / former.bundle)
    if former.lexical and not (paths.lexical / f"{former.lexical}.json").is_file():
        raise PinfeatherError(
            f"Release {former.number} cannot come back: its statistics {former.lexical} are gone from {paths.lexical}."
        )


def _coverage(state: Freshness, name: str, fewer: int) -> Check:
    words = f"{state.current:,} of {state.wanted:,} pins with text have their vector"
    words += f", {state.behind:,} pins are behind their source" if state.behind else ""
    words += f", {state.quarantined:,} more are in quarantine" if state.quarantined else ""
    passed = state.coverage == 1 and not state.behind
    words += f", {fewer:,} fewer than in the live space (it reads other fields)" if passed and fewer > 0 else ""
    words += "." if passed else f": run `pinfeather spaces backfill {name}`, or `pinfeather materialize`."
    return Check("coverage", state.coverage, 1.0, passed, words)


def _overlap(live: Space, space: Space, store: StoreWriter, gate: Gate) -> Check:
    found = compare_spaces(live, space, store, gate.sample, gate.seed, count_common=False)
    passed = found.sample == 0 or found.overlap >= gate.overlap_min
    words = f"Of a pin's ten neighbours in {live.name}, {found.overlap:.3f} are neighbours in {space.name} too "
    words += f"(mean over {found.sample:,} pins; at least {gate.overlap_min:g})."
    return Check("overlap@10", found.overlap, gate.overlap_min, passed, words)


def _ndcg(before: float | None, after: float | None, gate: Gate) -> Check:
    if before is None or after is None:
        return Check("ndcg@20", None, None, True, "There are no judgments, so nDCG@20 was not compared.")
    words = f"nDCG@20 by cosine is {after:.4f}, in the live space {before:.4f} (may lose {gate.ndcg_drop_max:g})."
    return Check("ndcg@20", after, before - gate.ndcg_drop_max, after >= before - gate.ndcg_drop_max, words)
