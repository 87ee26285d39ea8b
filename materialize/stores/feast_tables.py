"""Keeping collections and rows in step with the feature views that Feast names, without importing Feast."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from . import layout
from .conditions import Match
from .errors import BadInputError, SpecMismatchError
from .feast_rows import PRECOMPUTED, FeastView, Row, newest_points, vector_of
from .graves import is_grave_collection, newer_than_deletion
from .points import DEFAULT_VECTOR, CollectionSpec, Point
from .session import StoreView, StoreWriter

logger = logging.getLogger(__name__)

Table = tuple[FeastView, Sequence[str]]
"""A view and the join keys of its entities."""


def is_settled(store: StoreView, tables: Sequence[Table]) -> bool:
    """Whether :func:`settle` would change nothing."""
    known = store.collections()
    for view, join_keys in tables:
        spec, name = _wanted(store, known, view, join_keys)
        found = known.get(name)
        if spec is None:
            continue
        if found != spec or found is None or not spec.indexes.items() <= found.indexes.items():
            return False
    return not _left_behind(store, known, tables)


def settle(writer: StoreWriter, tables: Sequence[Table]) -> None:
    """Make the collections of ``tables``, and remove rows that they left elsewhere when their entities changed."""
    known = writer.collections()
    for view, join_keys in tables:
        spec, name = _wanted(writer, known, view, join_keys)
        if spec is not None:
            _create(writer, view, name, spec)
    for name, views in _left_behind(writer, known, tables).items():
        _delete(writer, name, views)


def drop_rows(writer: StoreWriter, views: Sequence[FeastView], kept: Sequence[Table] = ()) -> None:
    """Delete the rows of ``views``, their own collections, and shared ones that are empty then and no ``kept`` needs.

    A space that the release names belongs to the materializer and stays.
    """
    known = writer.collections()
    for view in views:
        if view.is_space(writer.release):
            logger.info("The rows of %s stay: its space belongs to the materializer.", view.name)
    ours = [view for view in views if not view.is_space(writer.release)]
    needed = {view.collection(writer.release, join_keys) for view, join_keys in kept}
    for name, gone in _by_collection(writer, known, ours).items():
        _delete(writer, name, gone)
        if name not in needed and name in writer.collections() and writer.count(name) == 0:
            writer.drop(name)


def tear_down(writer: StoreWriter, project: str, views: Sequence[FeastView]) -> None:
    """:func:`drop_rows`, and drop shared collections that are empty; Feast's precomputed vectors go with the last."""
    drop_rows(writer, views)
    spaces, left = _spaces(writer), []
    for name in writer.collections():
        shared = name.startswith(layout.entity_collection(project, []))
        if shared and writer.count(name) == 0:
            writer.drop(name)
        elif name not in spaces and (shared or name.startswith(layout.view_collection(project, ""))):
            left.append(name)
    if all(name.startswith(layout.view_collection(project, PRECOMPUTED)) for name in left):
        for name in left:
            writer.drop(name)


def write_rows(writer: StoreWriter, view: FeastView, data: Sequence[Row]) -> None:
    """Write what Feast gives; a row older than the stored one, or than its deletion, is left out.

    :raises BadInputError: if a value, vector or key cannot be stored; nothing was written.
    """
    name = view.collection(writer.release, list(data[0][0].join_keys))
    if view.is_space(writer.release):
        spec = writer.collections().get(name) or view.spec()
        if spec is not None:
            _write_to_space(writer, name, newest_points(view, spec, data))
        return
    length = None
    if view.vector is not None:
        length = next((len(numbers) for _, values, _, _ in data if (numbers := vector_of(view, values))), None)
    spec = view.spec(length) or writer.collections().get(name)
    if spec is None:
        raise BadInputError(f"All vectors of {view.name} are empty and its field has no vector_length; give it one.")
    points = newest_points(view, spec, data)
    _create(writer, view, name, spec)
    if view.shares:
        points = newer_than_deletion(writer, view.project, list(data[0][0].join_keys), points)
    writer.upsert(name, points, unless_newer="event_ts")


def _write_to_space(writer: StoreWriter, name: str, points: Sequence[Point]) -> None:
    """Write rows of a vector log into its space.

    The points there carry payload of the materializer's (filters, fingerprints), so a row of the same time, which is
    what the log holds, is left as it is, and a newer one keeps that payload.
    """
    fresh = []
    for point, old in zip(points, writer.get_many(name, [point.id for point in points]), strict=True):
        if old is not None and old.payload.get("event_ts", 0) >= point.payload["event_ts"]:
            continue
        former = {} if old is None else old.payload
        fresh.append(replace(point, payload={**former, **point.payload}))
    writer.upsert(name, fresh)


def _wanted(
    store: StoreView, known: Mapping[str, CollectionSpec], view: FeastView, join_keys: Sequence[str]
) -> tuple[CollectionSpec | None, str]:
    """Spec and name of the view's collection; no spec if it is not ours to make, or not known yet how."""
    name = view.collection(store.release, join_keys)
    if view.is_space(store.release) and (name in known or not view.vector.vector_length):
        return None, name
    vectors = known[name].vectors if name in known else {}
    return view.spec(vectors[DEFAULT_VECTOR].size if DEFAULT_VECTOR in vectors else None), name


def _create(writer: StoreWriter, view: FeastView, name: str, spec: CollectionSpec) -> None:
    try:
        writer.create(name, spec)
    except SpecMismatchError as error:
        if view.shares:
            raise
        raise SpecMismatchError(
            f"The vector of {view.name} was declared otherwise when its rows were written. {error} "
            "In Feast: remove the view, apply, then add it again and materialize."
        ) from error


def _by_collection(store: StoreView, known: Iterable[str], views: Sequence[FeastView]) -> dict[str, list[FeastView]]:
    """The views that have rows in each collection of those that ``views`` may have rows in."""
    found: dict[str, list[FeastView]] = {}
    own = {layout.view_collection(view.project, view.name): view for view in views}
    spaces = _spaces(store)
    shared = {layout.entity_collection(view.project, []) for view in views}
    for name in known:
        if name in own and name not in spaces:
            found[name] = [own[name]]
        elif name.startswith(tuple(shared)) and store.count(name, _rows_of(views)):
            found[name] = list(views)  # all of them: a view's entities may have changed meanwhile
    return found


def _left_behind(store: StoreView, known: Iterable[str], tables: Sequence[Table]) -> dict[str, list[FeastView]]:
    """Rows of kept views outside of their collection, by where they lie."""
    views = [view for view, _ in tables]
    home = {view.name: view.collection(store.release, join_keys) for view, join_keys in tables}
    found = {}
    for name in known:
        if is_grave_collection(name):  # not rows
            continue
        strangers = [view for view in views if home[view.name] != name and not view.is_space(store.release)]
        found.update(_by_collection(store, [name], strangers))
    return found


def _delete(writer: StoreWriter, name: str, views: Sequence[FeastView]) -> None:
    if len(views) == 1 and name == layout.view_collection(views[0].project, views[0].name):
        writer.drop(name)
        return
    writer.delete(name, filter=_rows_of(views))


def _spaces(store: StoreView) -> set[str]:
    return set(((store.release or {}).get("names") or {}).values())


def _rows_of(views: Sequence[FeastView]) -> Match:
    return Match("view", any_of=[view.name for view in views])
