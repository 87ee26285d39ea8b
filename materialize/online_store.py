"""Feast's online store on Qdrant: an embedded folder, a server or cluster, or this process's memory.

``feature_store.yaml``::

    online_store:
      type: materialize.online_store.PinfeatherOnlineStore
      path: data/online              # or url: https://host:6333

One point a (project, view, entity key). Views of one entity set share a collection, so a written row replaces a whole
point and dropping a view is one filtered delete; a view with a vector has a collection of its own, namely the space
that the store's release names for it, if it does. Imports no other room and works in any Feast repository.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from feast import Entity, FeatureService, FeatureView, RepoConfig, utils
from feast.filter_models import ComparisonFilter, CompoundFilter, convert_dict_to_filter
from feast.infra.infra_object import InfraObject
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.registry.base_registry import BaseRegistry
from feast.infra.supported_async_methods import SupportedAsyncMethods
from feast.online_response import OnlineResponse
from feast.protos.feast.core.Registry_pb2 import Registry as RegistryProto
from feast.protos.feast.types.EntityKey_pb2 import EntityKey as EntityKeyProto
from feast.protos.feast.types.Value_pb2 import Value as ValueProto
from feast.repo_config import FeastConfigBaseModel
from pydantic import Field, PrivateAttr, StrictBool, StrictStr, model_validator

from .feast_plan import planned_collections
from .feast_response import LATE, LateResponse, ViewRead, requested
from .stores.errors import BadInputError, NoPublicationError
from .stores.feast_documents import Document, DocumentQuery, find_documents
from .stores.feast_reads import ReadRow, RowRequest, read_rows, read_stored
from .stores.feast_rows import FeastView, Row
from .stores.feast_tables import drop_rows, is_settled, settle, tear_down, write_rows
from .stores.feast_values import entity_of
from .stores.place import DEFAULT_PATH, MEMORY, Place, check_number
from .stores.session import Session, StoreWriter, session

_SERVER_ONLY = ("api_key", "prefer_grpc", "grpc_port", "timeout", "tls_ca")


class PinfeatherOnlineStoreConfig(FeastConfigBaseModel):
    """``online_store`` in ``feature_store.yaml``; Feast puts environment variables in, as in ``${QDRANT_API_KEY}``."""

    type: Literal["materialize.online_store.PinfeatherOnlineStore"] = "materialize.online_store.PinfeatherOnlineStore"
    path: StrictStr = DEFAULT_PATH
    """Folder of the embedded store, relative to the repository; ``":memory:"`` for tests."""
    lock_timeout: float = Field(10.0, ge=0, allow_inf_nan=False)
    """Seconds to wait for another process that writes; folders only."""
    publish_interval: float = Field(2.0, ge=0, allow_inf_nan=False)
    """Seconds between two publications; other processes see a write after that time at the latest. Folders only."""
    cache_mb: float = Field(256, ge=0, allow_inf_nan=False)
    """Megabytes of decoded rows that a reader keeps, and of rows on disk that it asks for ahead; folders only."""
    url: StrictStr | None = None
    """``http(s)://host:port`` of a Qdrant server or cluster, instead of ``path``."""
    api_key: StrictStr | None = Field(None, repr=False)
    prefer_grpc: StrictBool = False
    grpc_port: int = Field(6334, ge=1, le=65535)
    timeout: float = Field(30.0, gt=0, allow_inf_nan=False)
    """Seconds that a request to the server may take."""
    tls_ca: StrictStr | None = None
    """File of a private certificate authority."""
    collection: dict[str, Any] = Field(default_factory=dict)
    """Given to Qdrant's ``create_collection`` unchanged, such as ``{on_disk_payload: true, replication_factor: 2}``."""
    _places: dict[tuple[str, str], Place] = PrivateAttr(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _fits(cls, given: Any) -> Any:
        """Checked before pydantic does, whose errors show the whole mapping, and the API key with it."""
        if not isinstance(given, dict):
            return given
        given = {key: value for key, value in given.items() if value is not None}
        if unknown := sorted(str(key) for key in given if key not in cls.model_fields):
            raise BadInputError(
                f"online_store has no key {unknown[0]!r}; it has {', '.join(sorted(cls.model_fields))}."
            )
        Place.of(given, "", "")
        for key in ("lock_timeout", "publish_interval"):
            check_number(key, given.get(key, 0))
        server_only = [*_SERVER_ONLY, *([] if given.get("path") == MEMORY else ["collection"])]
        if "url" not in given and (lost := [key for key in server_only if key in given]):
            raise BadInputError(f"online_store.{lost[0]} is for a Qdrant server: give its url, or leave {lost[0]} out.")
        if given.get("api_key", "").startswith("${"):
            raise BadInputError(f"online_store.api_key is {given['api_key']}: set that environment variable.")
        return given

    def place(self, config: RepoConfig) -> Place:
        """Where the store of a repository is."""
        root = str(config.repo_path or Path.cwd())
        key = (config.project, root)
        if key not in self._places:
            self._places[key] = Place.of(self.model_dump(exclude_unset=True, exclude_none=True), root, config.project)
        return self._places[key]


class PinfeatherOnlineStore(OnlineStore):
    """Rows and vectors of Feast in Qdrant; see the module's description.

    Among writes of one row the newer event timestamp wins; an equal one replaces. A row that the materializer deleted
    comes back only with an event timestamp after the deletion. In a folder every write takes the
    writer lease for a moment, and reads go to the newest publication, or to this process's own writer.
    """

    def __init__(self) -> None:
        self._places: set[Place] = set()

    # --- infrastructure ---

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        """Make collections for the kept views and delete the rows of the deleted ones; may be repeated.

        Views that are in neither list stay as they are, whatever ``partial`` says.
        """
        kept = [(FeastView.of(config, table), list(table.join_keys)) for table in tables_to_keep]
        if not tables_to_delete:
            with suppress(NoPublicationError), self._session(config).reading() as store:
                if is_settled(store, kept):
                    return  # leaves the writer lease to whoever has it
        with self._writing(config, "feast apply", publish_interval=0) as writer:
            settle(writer, kept)
            drop_rows(writer, _every_version(config, tables_to_delete), kept)

    def plan(self, config: RepoConfig, desired_registry_proto: RegistryProto) -> list[InfraObject]:
        """The collections that the views of the registry need, as far as they are known before the first row.

        ``feast plan`` of Feast 0.67 prints two kinds of infrastructure only, tables of SQLite and of Datastore, so it
        does not show these; ``FeatureStore.plan`` returns them. ``feast apply`` makes collections by :meth:`update`.
        """
        return planned_collections(config, desired_registry_proto, self._session(config))

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """Delete all rows of the given views and the collections that are empty then.

        A space that the release names belongs to the materializer and stays. ``feast teardown`` of Feast 0.67 names
        neither stream nor on-demand views: take them out of the definitions and apply first.
        """
        place = config.online_store.place(config)
        if place.embedded and not Path(place.path or "").is_dir():
            return
        with self._writing(config, "feast teardown", publish_interval=0) as writer:
            tear_down(writer, config.project, _every_version(config, tables))

    async def initialize(self, config: RepoConfig) -> None:
        """Open the store, so that the first request does not wait for it."""
        await asyncio.to_thread(self._open, self._session(config))

    async def close(self) -> None:
        """Publish what waits and let everything go; a later call opens it again."""
        while self._places:
            await asyncio.to_thread(session(self._places.pop()).close)

    # --- rows ---

    @property
    def async_supported(self) -> SupportedAsyncMethods:
        """Both: the engine works outside of the event loop, in a thread."""
        return SupportedAsyncMethods(read=True, write=True)

    def online_write_batch(
        self, config: RepoConfig, table: FeatureView, data: list[Row], progress: Callable[[int], Any] | None
    ) -> None:
        """Write rows; a row older than the stored one is left out.

        Feast's materialization gives ``progress``, its pushes do not.

        :raises BadInputError: if a value cannot be stored, or the rows of a space are pushed; nothing was written.
        :raises StoreBusyError: if another process writes for longer than ``lock_timeout``; nothing was written.
        """
        _must_be_online(table)
        if data:
            view = FeastView.of(config, table)
            if progress is None:
                self._refuse_push(config, view)
            with self._writing(config, f"feast write of {table.name}") as writer:
                write_rows(writer, view, data)
        if progress:
            progress(len(data))

    async def online_write_batch_async(
        self, config: RepoConfig, table: FeatureView, data: list[Row], progress: Callable[[int], Any] | None
    ) -> None:
        """:meth:`online_write_batch` in a thread."""
        await asyncio.to_thread(self.online_write_batch, config, table, data, progress)

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKeyProto],
        requested_features: list[str] | None = None,
    ) -> list[ReadRow]:
        """One (event timestamp, features) an entity key, in their order; (None, None) where there is no row."""
        _must_be_online(table)
        if not entity_keys:
            return []
        entities = [entity_of(key) for key in entity_keys]
        request = RowRequest.of(FeastView.of(config, table), entities, requested_features)
        with self._session(config).reading() as store:
            return read_rows(store, [request])[0]

    async def online_read_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKeyProto],
        requested_features: list[str] | None = None,
    ) -> list[ReadRow]:
        """:meth:`online_read` in a thread."""
        return await asyncio.to_thread(self.online_read, config, table, entity_keys, requested_features)

    def _read_features_per_fv(
        self,
        config: RepoConfig,
        grouped_refs: list[Any],
        join_key_values: dict[str, Any],
        entity_name_to_join_key_map: dict[str, str],
        online_features_response: Any,
        full_feature_names: bool,
        include_feature_view_version_metadata: bool,
    ) -> None:
        """Read all views of a request from one state of the store, those of one collection in one call.

        A row older than its view's ttl has the status OUTSIDE_MAX_AGE and keeps its values, as where Feast serves
        precomputed vectors.
        """
        wanted = []
        for table, features in grouped_refs:
            _must_be_online(table)
            view = FeastView.of(config, table)
            wanted.append(requested(view, table, features, join_key_values, entity_name_to_join_key_map))
        with self._session(config).reading() as store:
            found = read_stored(store, [each.request for each in wanted])
        reads = [
            ViewRead(table, each, rows) for (table, _), each, rows in zip(grouped_refs, wanted, found, strict=True)
        ]
        late = LATE.get()
        if late is not None:
            late += reads
            return
        for read in reads:
            read.fill(online_features_response, full_feature_names, include_feature_view_version_metadata)

    def get_online_features(
        self,
        config: RepoConfig,
        features: list[str] | FeatureService,
        entity_rows: Any,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        include_feature_view_version_metadata: bool = False,
    ) -> OnlineResponse:
        """Feast's own; its protos are made only if somebody asks for them, as on-demand views do."""
        names, metadata = full_feature_names, include_feature_view_version_metadata
        on_demand = utils._get_cached_request_context(registry, project, features, names)[1]
        reads: list[ViewRead] = []
        before = LATE.set(None if on_demand else reads)
        try:
            answer = super().get_online_features(config, features, entity_rows, registry, project, names, metadata)
        finally:
            LATE.reset(before)
        return LateResponse(answer, reads, names, metadata) if reads else answer

    async def _read_features_per_fv_async(self, *args: Any) -> None:
        await asyncio.to_thread(self._read_features_per_fv, *args)

    # --- documents ---

    def retrieve_online_documents(
        self,
        config: RepoConfig,
        table: FeatureView,
        requested_features: list[str],
        embedding: list[float],
        top_k: int,
        distance_metric: str | None = None,
    ) -> list[tuple[datetime | None, EntityKeyProto | None, ValueProto | None, ValueProto | None, ValueProto | None]]:
        """The rows nearest to ``embedding``, nearest first: event time, key, first feature, vector, distance.

        :raises ValueError: if no feature is asked for, or there is no such metric.
        """
        if not requested_features:
            raise ValueError("Requested_features must be specified")
        view = FeastView.of(config, table)
        vector = view.vector.name if view.vector is not None else ""
        first = next((name for name in requested_features if name in view.types), vector)
        query = DocumentQuery.of(view, embedding, None, top_k, distance_metric, None)
        return [
            (document.event_time, document.key, document.features.get(first), document.features.get(vector), distance)
            for document in self._find(config, table, view, query, [first, vector])
            for distance in [None if document.distance is None else ValueProto(float_val=document.distance)]
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
        filters: ComparisonFilter | CompoundFilter | dict[str, Any] | None = None,
        include_feature_view_version_metadata: bool = False,
    ) -> list[tuple[datetime | None, EntityKeyProto | None, dict[str, ValueProto] | None]]:
        """The documents that fit ``embedding``, ``query_string`` or both best, in the order of their entity keys.

        Each has a ``distance`` (lower is nearer) and, where words were asked for, a ``text_rank`` (0 to 1, higher fits
        more); see :mod:`~materialize.stores.feast_documents`. Not best first: Feast 0.67 puts the features of the i-th
        row to the i-th smallest entity key, so any other order mixes rows up. Sort by one of the two.

        :raises BadInputError: if the view has no vector, no text, no such metric (also a ``ValueError``), or a filter
            names something else than its features and join keys.
        """
        view = FeastView.of(config, table)
        if isinstance(filters, dict):
            filters = convert_dict_to_filter(filters)
        query = DocumentQuery.of(view, embedding, query_string, top_k, distance_metric, filters)
        rows: list[tuple[datetime | None, EntityKeyProto | None, dict[str, ValueProto] | None]] = []
        for document in sorted(
            self._find(config, table, view, query, requested_features), key=lambda found: tuple(found.entity.values())
        ):
            features = dict(document.features)
            if document.distance is not None:
                features["distance"] = ValueProto(float_val=document.distance)
            if document.rank is not None:
                features["text_rank"] = ValueProto(float_val=document.rank)
            rows.append((document.event_time, document.key, features))
        return rows

    def _find(
        self, config: RepoConfig, table: FeatureView, view: FeastView, query: DocumentQuery, features: list[str]
    ) -> list[Document]:
        _must_be_online(table)
        with self._session(config).reading() as store:
            return find_documents(store, view, list(table.join_keys), query, features)

    def _is_versioned_read_supported(self) -> bool:
        return True  # a version of a view is a view of its own here

    # --- sessions ---

    @staticmethod
    def _open(session: Session) -> None:
        with suppress(NoPublicationError), session.reading() as store:
            store.collections()

    def _session(self, config: RepoConfig) -> Session:
        place = config.online_store.place(config)
        self._places.add(place)
        return session(place)

    def _writing(
        self, config: RepoConfig, purpose: str, publish_interval: float | None = None
    ) -> AbstractContextManager[StoreWriter]:
        store = config.online_store
        interval = store.publish_interval if publish_interval is None else publish_interval
        return self._session(config).writing(purpose, store.lock_timeout, interval)

    def _refuse_push(self, config: RepoConfig, view: FeastView) -> None:
        if view.vector is None:
            return
        with suppress(NoPublicationError), self._session(config).reading() as store:
            if view.is_space(store.release):
                raise BadInputError(
                    f"Rows of {view.name} cannot be pushed: its vectors lie in the space "
                    f"{view.collection(store.release, [])}, which only the materializer writes, so that ledger, vector "
                    "log and store always agree. Change the sources and run `pinfeather materialize`."
                )


def _every_version(config: RepoConfig, tables: Sequence[FeatureView]) -> list[FeastView]:
    return [version for table in tables for version in FeastView.of(config, table).every_version()]


def _must_be_online(table: FeatureView) -> None:
    if not getattr(table, "online", True):
        raise BadInputError(
            f"The feature view {table.name} has online=False, so its rows are not kept online. "
            "Set online=True and run `feast apply`, or leave it out of the features asked for."
        )
