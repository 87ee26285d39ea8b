"""Sessions on a Qdrant server or in memory: one client a place and process, and releases as one point.

There is no lease and no publication here: Qdrant itself keeps many writers apart, and what is written is seen at once.
A release is one point, so that it is replaced as a whole.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from qdrant_client import models

from . import layout
from .errors import CollectionMissingError, StoreBusyError, StoreError
from .place import Place
from .port import CollectionSpec, Condition, PayloadFields, Point
from .row_cache import StoredRow
from .server import RELEASES, ServerStore
from .server_calls import Connection, Patience

REFRESH_SECONDS = 1.0
"""How long a session may go without looking for a newer release."""

_POINT = str(uuid.uuid5(layout.NAMESPACE, "release"))
_RACES = 20
"""Times that other publishers may come in between."""


class ServerSession:
    """The :class:`~.session.Session` of a server or of ``":memory:"``; threads may share it.

    What is in memory lives as long as the session object, closed or not.
    """

    def __init__(
        self, place: Place, patience: Patience | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.place = place
        self._patience = patience
        self._clock = clock
        self._collection = f"{layout._escape(place.namespace)}{RELEASES}"
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._connection: Connection | None = None
        self._seen: tuple[int, dict[str, Any] | None] = (0, None)
        self._looked = float("-inf")

    @contextmanager
    def writing(
        self, purpose: str, lock_timeout: float = 10.0, publish_interval: float = 0.0
    ) -> Iterator[SessionWriter]:
        """See :class:`~.session.Session`. Nobody waits for anybody here, and readers see each write at once."""
        yield SessionWriter(self, self._open())

    @contextmanager
    def reading(self) -> Iterator[SessionView]:
        """See :class:`~.session.Session`. Fixed for the block is the release; rows are the server's newest."""
        yield SessionView(self, self._open())

    def number(self) -> int:
        """See :class:`~.session.Session`; at most :data:`REFRESH_SECONDS` old."""
        return self.latest()[0]

    def publish(self) -> None:
        """See :class:`~.session.Session`. Nothing ever waits."""

    def close(self) -> None:
        """See :class:`~.session.Session`."""
        with self._lock:
            connection, self._looked = self._connection, float("-inf")
            if connection is not None and not connection.in_memory:
                self._connection = None
                connection.close()

    def latest(self, max_age: float = REFRESH_SECONDS) -> tuple[int, dict[str, Any] | None]:
        """Number and content of the newest release, (0, None) for none; looked up if that is ``max_age`` s ago."""
        connection, now = self._open(), self._clock()
        if now - self._looked >= max_age:
            self._remember(self._fetch(connection), now)
        return self._seen

    def put_release(self, release: dict[str, Any] | None) -> tuple[int, dict[str, Any] | None]:
        """Replace the release unless it is the same already (or None); number and content of what is there then."""
        connection = self._open()
        found = self._fetch(connection)
        if release is not None:
            wanted = _plain_json(release)
            text = json.dumps(wanted, separators=(",", ":"))
            for _ in range(_RACES):
                if found[1] == wanted:
                    break
                self._write(connection, found[0], text)
                found = self._fetch(connection)
            else:
                raise StoreBusyError(f"The release was replaced by others {_RACES} times while it was written.")
        self._remember(found, self._clock())
        return found

    def _open(self) -> Connection:
        if self._pid != os.getpid():
            self._after_fork()
        connection = self._connection
        if connection is None:
            with self._lock:
                if self._connection is None:
                    self._connection = Connection(self.place, self._patience)
                connection = self._connection
        return connection

    def _after_fork(self) -> None:
        parents = self._connection
        if parents is not None and parents.in_memory:
            raise StoreError(
                "What is in memory belongs to the process that wrote it, and this one was forked from it; "
                "give the store a path or a url."
            )
        self._lock = threading.RLock()  # a thread of the parent may have held the former one
        self._pid, self._connection, self._looked = os.getpid(), None, float("-inf")
        if parents is not None:
            parents.close()

    def _remember(self, found: tuple[int, dict[str, Any] | None], now: float) -> None:
        with self._lock:
            self._seen, self._looked = found, now

    def _fetch(self, connection: Connection) -> tuple[int, dict[str, Any] | None]:
        try:
            records = connection.call(
                "Reading the release", lambda client: client.retrieve(self._collection, [_POINT], with_payload=True)
            )
        except CollectionMissingError:
            return 0, None
        payload = (records[0].payload if records else None) or {}
        return (payload["number"], json.loads(payload["release"])) if payload else (0, None)

    def _write(self, connection: Connection, number: int, release: str) -> None:
        """Write the release after ``number``, unless somebody else has done so since it was read."""
        # As text: a number that JSON changes by its last bit would make every release a new one.
        point = models.PointStruct(id=_POINT, vector={}, payload={"number": number + 1, "release": release})
        same = models.FieldCondition(key="number", range=models.Range(gte=number, lte=number))
        if number == 0:
            ServerStore(connection).create_hidden(self._collection, CollectionSpec())
        connection.call(
            "Writing the release",
            lambda client: client.upsert(
                self._collection, [point], wait=True, update_filter=models.Filter(must=[same])
            ),
        )


class _SessionStore(ServerStore):
    """The store for one block, with the release of when it was first asked for."""

    _max_age = REFRESH_SECONDS

    def __init__(self, session: ServerSession, connection: Connection) -> None:
        super().__init__(connection)
        self._session = session
        self._fixed: tuple[int, dict[str, Any] | None] | None = None

    @property
    def release(self) -> dict[str, Any] | None:
        """The release, the same for the whole block; None if there is none yet."""
        return self._latest()[1]

    @property
    def number(self) -> int:
        """The number of the release, 0 if there is none yet."""
        return self._latest()[0]

    def rows(
        self, name: str, ids: Sequence[str], with_payload: PayloadFields, with_vectors: bool
    ) -> Sequence[StoredRow]:
        """See :class:`~.session.StoreView`; nothing of a server is kept here."""
        return self.get_many(name, ids, with_payload, with_vectors)

    def close(self) -> None:
        """Nothing to do: the client is the session's."""

    def _latest(self) -> tuple[int, dict[str, Any] | None]:
        if self._fixed is None:
            self._fixed = self._session.latest(self._max_age)
        return self._fixed


class SessionWriter(_SessionStore):
    """A :class:`~.session.StoreWriter` for one block."""

    _max_age = 0.0  # whoever builds a release on the former one needs the newest

    def publish(self, release: dict[str, Any] | None = None) -> int:
        """Let readers see ``release``; returns its number, which grows when the release changes.

        :param release: JSON values; None keeps the former one.
        """
        self._fixed = self._session.put_release(release)
        return self._fixed[0]


class SessionView(_SessionStore):
    """A :class:`~.session.StoreView` for one block; like that of a folder it refuses to be written to."""

    def create(self, name: str, spec: CollectionSpec) -> None:
        """Refused: a reader never writes."""
        raise _refusal()

    def drop(self, name: str) -> None:
        """Refused: a reader never writes."""
        raise _refusal()

    def upsert(self, name: str, points: Iterable[Point], unless_newer: str | None = None) -> None:
        """Refused: a reader never writes."""
        raise _refusal()

    def delete(self, name: str, ids: Sequence[str] | None = None, filter: Condition | None = None) -> None:
        """Refused: a reader never writes."""
        raise _refusal()


def _refusal() -> StoreError:
    return StoreError("What a session gives for reading cannot be written to; write in its writing() block.")


def _plain_json(release: dict[str, Any]) -> dict[str, Any]:
    try:
        return json.loads(json.dumps(release, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise StoreError(f"A release is made of JSON values: {error}.") from error
