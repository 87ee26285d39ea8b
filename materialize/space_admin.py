"""Spaces made, filled, listed and dropped."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from embedders.bundle import load_manifest
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.paths import RepoPaths
from materialize import vector_log
from materialize.definitions import load_definitions
from materialize.ledger import Ledger
from materialize.new_spaces import space_of_bundle, space_of_model
from materialize.payload_fields import LATER_PAYLOAD, PAYLOAD_INDEXES
from materialize.places import open_store, read_store
from materialize.points import space_spec
from materialize.releases import LIVE_EMBEDDING, Release, current_release
from materialize.run import RunOptions, materialize
from materialize.spaces import (
    Space,
    Status,
    change_space,
    check_space_name,
    load_space,
    load_spaces,
    save_space,
    space_names,
)
from materialize.standing import RunCounts
from materialize.stores.errors import NoPublicationError
from materialize.warm_files import drop_warm

TURN_PINS = 1 << 16
"""Pins of a backfill's first turn; then it brings every other space up to date and lets other writers in."""
MOST_TURN_PINS = 1 << 20
"""Turns double up to here while less than half of one goes into encoding: scans would take the time."""
_LET_IN_SECONDS = 0.2  # four times what the lease's waiters sleep


def space_view(name: str) -> str:
    """Name of the Feast view over one space; the live one is also behind :data:`LIVE_EMBEDDING`."""
    return f"{LIVE_EMBEDDING}__{name}"


def physical_name(paths: RepoPaths, name: str) -> str:
    """``name``, or that of the live space for ``live``.

    :raises PinfeatherError: for ``live`` before the first run.
    """
    if name != "live":
        return name
    release = current_release(paths)
    if release is None or release.live_space is None:
        raise PinfeatherError(f"No space is live in {paths.root} yet: run `pinfeather materialize` first.")
    return release.live_space


def create_space(
    paths: RepoPaths,
    name: str | None = None,
    *,
    model: str | None = None,
    without: Sequence[str] = (),
    dimension: int | None = None,
    bundle: str | None = None,
    lock_timeout: float = 10.0,
) -> Space:
    """A new, empty space, to be filled by :func:`backfill`.

    :param name: default is made of model, template and dimension.
    :param model: ``packaged``, a model folder or a tower folder; default is that of the live space.
    :param without: sources of :data:`feature_repo.switchboard.TEXT_SOURCES` that its template leaves out.
    :param dimension: keep the first components of the model's vectors only.
    :param bundle: a student with towers of its own, whose pin tower and template the space gets, and whose query tower
        it takes; one that lies outside the repository is copied into it. Excludes the three before it.
    :raises UsageError: for a name that cannot be, an unknown source, a dimension that is no cut, or parameters that
        exclude each other.
    :raises PinfeatherError: before the first run, or if there is such a space already, or the bundle has no towers.
    """
    if bundle is not None and (model or without or dimension):
        raise UsageError(
            "A bundle brings model, template and dimension: leave --model, --without and --dimension out, or --bundle."
        )
    release = current_release(paths)
    if release is None or release.live_space is None:
        raise PinfeatherError(f"Nothing was materialized in {paths.root} yet: run `pinfeather materialize` first.")
    load_definitions(paths)
    if name:
        check_space_name(name)
    if bundle is not None:
        space = space_of_bundle(paths, bundle, name)
    else:
        live = load_space(paths, release.live_space)
        space = space_of_model(model or live.model, name, without, dimension)
        if space.model == live.model:
            space = replace(space, bundle=live.bundle)
        if space.model == live.model and live.query_model:
            raise PinfeatherError(
                f"The live space has a query tower of its own: name the model with --model, or take both towers of its "
                f"bundle {live.bundle} with --bundle."
            )
    own = name or _free_name(paths, space)
    space = replace(space, name=own, status=Status.BUILDING, coverage=0.0)
    name = space.name
    with open_store(paths, f"spaces create {name}", lock_timeout) as store:
        _refuse_twin(space, load_spaces(paths))
        if name in store.collections():
            raise PinfeatherError(f"The store has a collection {name!r} already: give the space another name.")
        vector_log.prepare(paths, name, space.dimension)
        save_space(paths, space)
        store.create(name, space_spec(space, PAYLOAD_INDEXES.keys() - LATER_PAYLOAD))  # the first run adds these
        store.publish(_release_json(paths))
    return space


def _free_name(paths: RepoPaths, space: Space) -> str:
    """The name of ``space``, or another one where a space from before points held words has taken it."""
    if space.name in space_names(paths) and not load_space(paths, space.name).words:
        return check_space_name(f"{space.name}-words")
    return space.name


def _refuse_twin(space: Space, others: Sequence[Space]) -> None:
    for other in others:
        if other.name == space.name:
            raise PinfeatherError(
                f"There is a space {space.name} already, {other.status}: give another name, or go on with it "
                f"(`pinfeather spaces backfill {space.name}`)."
            )
        same = ("model_fingerprint", "query_towers", "template", "words")
        if all(getattr(other, key) == getattr(space, key) for key in same):
            raise PinfeatherError(
                f"Space {other.name} has the same model, template and dimension already: its vectors would be the same."
            )


def backfill(
    paths: RepoPaths,
    name: str,
    options: RunOptions | None = None,
    turn: int | None = None,
) -> Iterator[RunCounts]:
    """Add every pin to the space, in turns; gives the counts of the space after each turn.

    Each turn is a run: first the live space and all others are brought up to date, then at most ``turn`` pins are
    added (None: as many as seem worth a scan), then it publishes, and whoever waits to write may. So it may be killed
    at any moment and begun again: what was committed stays, and at most a batch is encoded twice. Where
    ``options.stop`` ended a turn, its counts are ``interrupted`` and no other follows.

    :param name: a space, or ``live``.
    :raises UsageError: if there is no such space.
    :raises PinfeatherError: if it is frozen or being dropped, or a run fails as in :func:`materialize`.
    """
    name = load_space(paths, physical_name(paths, name)).name
    options = options or RunOptions()
    size = turn or TURN_PINS
    while True:
        began = time.perf_counter()
        counts = materialize(paths, replace(options, space=None, fill=name, fill_limit=size))
        done = counts if counts.space == name else counts.spaces.get(name)
        stopped = counts.interrupted or (done is not None and done.interrupted)
        yield done or RunCounts(name, interrupted=True)
        if stopped or done is None or not done.limited or done is counts:
            return
        if turn is None and done.stages.get("encode", 0) < (time.perf_counter() - began) / 2:
            size = min(2 * size, MOST_TURN_PINS)
        time.sleep(_LET_IN_SECONDS)


def list_spaces(paths: RepoPaths) -> list[dict[str, Any]]:
    """Every space with what its manifest says, its role and its points; the live one first."""
    release = current_release(paths)
    live = release.live_space if release else None
    points: dict[str, int] = {}
    try:
        with read_store(paths) as store:
            there = store.collections()
            points = {space.name: store.count(space.name) for space in load_spaces(paths) if space.name in there}
    except NoPublicationError:
        pass
    rows = [describe(space, live, points.get(space.name)) for space in load_spaces(paths)]
    return sorted(rows, key=lambda row: (not row["live"], row["name"]))


def describe(space: Space, live: str | None, points: int | None = None) -> dict[str, Any]:
    """One space as plain data; ``points`` None where its collection is not in the store."""
    return {
        "name": space.name,
        "live": space.name == live,
        "status": str(space.status),
        "points": points,
        "coverage": space.coverage,
        "dimension": space.dimension,
        "model": space.model,
        "model_fingerprint": space.model_fingerprint,
        "fields": [rule.name for rule in space.template.rules],
        "template": space.template.fingerprint,
        "words": space.words,
        "pinned_by": dict(space.pinned_by),
        "view": space_view(space.name),
        "created_at": space.created_at or None,
    }


def drop_space(paths: RepoPaths, name: str, lock_timeout: float = 10.0) -> dict[str, Any]:
    """Remove collection, ledger, vector log and manifest of a space; one that was killed meanwhile is ended by another.

    :raises UsageError: if there is no such space.
    :raises PinfeatherError: if somebody pins it, or the release or its bundle reads it; the message names them.
    """
    load_space(paths, name)
    registered = space_view(name) in load_definitions(paths).views
    with open_store(paths, f"spaces drop {name}", lock_timeout) as store, Ledger(paths) as ledger:
        release = current_release(paths)

        def dropping(space: Space) -> Space:
            if readers := _readers(paths, space, release):
                raise PinfeatherError(f"Space {name} is not dropped: {'; '.join(readers)}.")
            return replace(space, status=Status.DROPPING)

        change_space(paths, name, dropping)
        points = store.count(name) if name in store.collections() else 0
        store.drop(name)
        store.publish(_release_json(paths))
        ledger.forget(name)
        vector_log.drop(paths, name)
        drop_warm(paths, name)
        (paths.spaces / f"{name}.json").unlink(missing_ok=True)
    return {"space": name, "points": points, "apply_needed": registered}


def _readers(paths: RepoPaths, space: Space, release: Release | None) -> list[str]:
    """Who reads ``space``, each with what to do about it."""
    readers = [
        f"{who} pins it since {since} (`pinfeather spaces unpin {space.name} --for {who}` when that is over)"
        for who, since in sorted(space.pinned_by.items())
    ]
    if release is None:
        return readers
    if space.name in release.names.values():
        readers.append(f"release {release.number} names it as the live space (promote another one first)")
    if release.bundle and load_manifest(paths.bundles / release.bundle).reads(
        space.name, space.model_fingerprint, space.template
    ):
        readers.append(
            f"bundle {release.bundle} of release {release.number} reads it (promote another space with --bundle first)"
        )
    return readers


def _release_json(paths: RepoPaths) -> dict[str, Any] | None:
    release = current_release(paths)
    return release.to_json() if release else None
