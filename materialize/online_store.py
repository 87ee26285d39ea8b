"""Feast's online store on an embedded Qdrant folder.

``feature_store.yaml``::

    online_store:
      type: materialize.online_store.PinfeatherOnlineStore
      path: data/online

One point a (project, view, entity key). Views of one entity set share a collection, so a written row replaces a whole
point and dropping a view is one filtered delete; a view with a vector has a collection of its own, namely the space
that the folder's release names for it, if it does. Imports no other room and works in any Feast repository.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from feast import Entity, FeatureView, RepoConfig
from feast.filter_models import ComparisonFilter, CompoundFilter
from feast.infra.online_stores.helpers import compute_versioned_name
from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey as EntityKeyProto
from feast.protos.feast.types.Value_pb2 import Value as ValueProto
from feast.repo_config import FeastConfigBaseModel
from pydantic import StrictStr

from .stores import layout
from .stores.errors import BadInputError, CollectionMissingError, SpecMismatchError, StoreError
from .stores.feast_rows import FeastView, Row, condition_of, decoders, features_of, newest_points, vector_of
from .stores.feast_values import declared_type, entity_key_of, entity_of
from .stores.port import And, CollectionSpec, Condition, Point
from .stores.publication import Writer
from .stores.published import newest
from .stores.session import Session, session

logger = logging.getLogger(__name__)


class PinfeatherOnlineStoreConfig(FeastConfigBaseModel):
    """``online_store`` in ``feature_store.yaml``."""

    type: Literal["materialize.online_store.PinfeatherOnlineStore"] = "materialize.online_store.PinfeatherOnlineStore"
    path: StrictStr = "data/online"
    """Folder of the embedded store, relative to the repository."""
    lock_timeout: float = 10.0
    """Seconds to wait for another process that writes."""
    publish_interval: float = 2.0
    """Seconds between two publications; other processes see a write after that time at the latest."""


class PinfeatherOnlineStore(OnlineStore):
    """Rows and vectors of Feast in an embedded Qdrant folder; see the module's description.

    Every write takes the folder's writer lease for a moment; reads go to the newest publication, or to this process's
    own writer. Among writes of one row the newer event timestamp wins; an equal one replaces.
    """

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        """Make collections for the kept views and delete the rows of the deleted ones; may be repeated."""
        place = _session(config)
        kept = [(_view(config, table), list(table.join_keys)) for table in tables_to_keep]
        last = newest(place.root)
        if last and not tables_to_delete:
            wanted = {view.collection(last.release, keys) for view, keys in kept if view.spec() is not None}
            if wanted <= last.specs.keys() and not _mismatches(kept, last.specs, last.release):
                return  # nothing to do: leave the writer lease to whoever has it
        with _writing(config, "feast apply", publish_interval=0) as writer:
            for view, keys in kept:
                _ensure_collection(writer, view, keys, None)
            for table in tables_to_delete:
                _delete_rows(writer, _view(config, table))

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """Delete all rows of the given views and the collections that are empty then.

        A space that the release names belongs to the materializer and stays.
        """
        if not _root(config).is_dir():
            return
        with _writing(config, "feast teardown", publish_interval=0) as writer:
            for table in tables:
                _delete_rows(writer, _view(config, table))
            mine = layout.entity_collection(config.project, [])
            for name in writer.collections():
                if name.startswith(mine) and writer.count(name) == 0:
                    writer.drop(name)

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[Row],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows; a row older than the stored one is left out.

        :raises StoreBusyError: if another process writes for longer than ``lock_timeout``; nothing was written.
        """
        _must_be_online(table)
        if data:
            view = _view(config, table)
            with _writing(config, f"feast write of {table.name}") as writer:
                lengths = (len(vector_of(view, row[1]) or ()) for row in data)
                length = next((n for n in lengths if n), None) if view.vector else None
                name = _ensure_collection(writer, view, list(data[0][0].join_keys), length)
                if name is None:
                    raise BadInputError(
                        f"All vectors of {view.name} are empty and its field has no vector_length; give it one."
                    )
                spec = writer.collections()[name]
                points = newest_points(view, spec, data)
                space = _is_space(view, writer.release)
                stored = writer.get_many(name, [p.id for p in points], with_payload=True if space else ["event_ts"])
                writer.upsert(name, _fresh(points, stored, space))
        if progress:
            progress(len(data))

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKeyProto],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, ValueProto] | None]]:
        """One (event timestamp, features) an entity key, in their order; (None, None) where there is no row."""
        _must_be_online(table)
        if not entity_keys:
            return []
        view = _view(config, table)
        entities = [entity_of(key) for key in entity_keys]
        ids = [layout.point_id(view.project, view.name, entity) for entity in entities]
        with _session(config).reading() as store:
            name = view.collection(store.release, list(entities[0]))
            vectors = view.vector is not None and (not requested_features or view.vector.name in requested_features)
            try:
                points = store.get_many(name, ids, with_vectors=vectors)
            except CollectionMissingError:
                return [(None, None)] * len(entity_keys)
        wanted = decoders(view, requested_features)
        return [
            (None, None)
            if point is None
            else (layout.from_micros(point.payload["event_ts"]), features_of(view, point, wanted))
            for point in points
        ]

    def retrieve_online_documents_v2(
        self,
        config: RepoConfig,
        table: FeatureView,
        requested_features: list[str],
        embedding: list[float] | None,
        top_k: int,
        distance_metric: str | None = None,
        query_string: str | None = None,
        filters: ComparisonFilter | CompoundFilter | None = None,
        include_feature_view_version_metadata: bool = False,
    ) -> list[tuple[datetime | None, EntityKeyProto | None, dict[str, ValueProto] | None]]:
        """The rows nearest to ``embedding`` with the engine's score as ``distance``, in the order of their entity keys.

        The metric is the one that the view's collection was made with. Not nearest first: Feast 0.67 puts the features
        of the i-th row to the i-th smallest entity key, so any other order mixes rows up. Sort by ``distance``.
        """
        view = _view(config, table)
        if embedding is None or query_string is not None:
            raise StoreError("This store searches by vector only: give query, not query_string.")
        if view.vector is None:
            raise BadInputError(f"The feature view {table.name} has no vector feature (vector_index=True) to search.")
        key_types = {field.name: declared_type(field.dtype) for field in table.entity_columns}
        condition: Condition = view.rows if filters is None else And((view.rows, condition_of(filters)))
        with _session(config).reading() as store:
            name = view.collection(store.release, list(table.join_keys))
            hits = store.search(name, embedding, top_k, filter=condition, with_vectors=True)
        hits.sort(key=lambda hit: tuple(layout.decode_key(hit.payload["key"]).values()))
        wanted = decoders(view, requested_features)
        return [
            (
                layout.from_micros(hit.payload["event_ts"]),
                entity_key_of(layout.decode_key(hit.payload["key"]), key_types),
                {**features_of(view, hit, wanted), "distance": ValueProto(float_val=hit.score)},
            )
            for hit in hits
        ]

    def _is_versioned_read_supported(self) -> bool:
        return True  # a version of a view is a view of its own here


def _root(config: RepoConfig) -> Path:
    path = Path(config.online_store.path).expanduser()
    return path if path.is_absolute() or config.repo_path is None else Path(config.repo_path) / path


def _view(config: RepoConfig, table: FeatureView) -> FeastView:
    versions = config.registry.enable_online_feature_view_versioning
    return FeastView.of(config, table, compute_versioned_name(table, versions))


def _session(config: RepoConfig) -> Session:
    return session(_root(config))


def _writing(config: RepoConfig, purpose: str, publish_interval: float | None = None) -> Any:
    store = config.online_store
    interval = store.publish_interval if publish_interval is None else publish_interval
    return _session(config).writing(store.lock_timeout, interval, purpose)


def _must_be_online(table: FeatureView) -> None:
    if not getattr(table, "online", True):
        raise BadInputError(
            f"The feature view {table.name} has online=False, so its rows are not kept online. "
            "Set online=True and run `feast apply`, or leave it out of the features asked for."
        )


def _mismatches(
    kept: Sequence[tuple[FeastView, list[str]]], specs: Mapping[str, CollectionSpec], release: Mapping[str, Any] | None
) -> bool:
    return any(
        view.spec() is not None
        and not _is_space(view, release)
        and specs[view.collection(release, keys)] != view.spec()
        for view, keys in kept
    )


def _is_space(view: FeastView, release: Mapping[str, Any] | None) -> bool:
    """Whether the release names a space for the view; such a collection is the materializer's to make and drop."""
    return view.vector is not None and view.name in ((release or {}).get("names") or {})


def _fresh(points: Sequence[Point], stored: Sequence[Point | None], space: bool) -> list[Point]:
    """The points to write: those not older than what is stored.

    A space's points carry payload of the materializer's (filters, fingerprints), so a row of the same time, which is
    what its vector log holds, is left as it is, and a newer one keeps that payload.
    """
    fresh = []
    for point, old in zip(points, stored, strict=True):
        then, now = old.payload.get("event_ts", 0) if old else 0, point.payload["event_ts"]
        if old is not None and (then > now or (space and then == now)):
            continue
        if old is not None and space:
            point.payload = {**old.payload, **point.payload}
        fresh.append(point)
    return fresh


def _ensure_collection(writer: Writer, view: FeastView, join_keys: list[str], length: int | None) -> str | None:
    """The view's collection, made if need be; None if its vectors' length is unknown."""
    release = writer.release
    name = view.collection(release, join_keys)
    known = writer.collections()
    if _is_space(view, release) and (name in known or length is None):
        return name
    spec = view.spec(length)
    if spec is None:
        return name if name in known else None
    try:
        writer.create(name, spec)
    except SpecMismatchError as error:
        raise SpecMismatchError(
            f"The vector of {view.name} was declared otherwise when its rows were written. {error} "
            "In Feast: remove the view, apply, then add it again and materialize."
        ) from error
    return name


def _delete_rows(writer: Writer, view: FeastView) -> None:
    if _is_space(view, writer.release):
        logger.info("The rows of %s stay: its space belongs to the materializer.", view.name)
        return
    own = layout.view_collection(view.project, view.name)
    shared = layout.entity_collection(view.project, [])
    for name in writer.collections():
        if name == own or name.startswith(shared):  # all of them: the view's entities may have changed meanwhile
            if writer.count(name, view.rows):
                writer.delete(name, filter=view.rows)
            if name == own and writer.count(name) == 0:
                writer.drop(name)
