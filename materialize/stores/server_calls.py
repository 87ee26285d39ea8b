"""One client of a Qdrant server, or of a Qdrant in this process's memory: opening it, calling it, its failures.

Every call may be repeated without harm (ids are given, writes replace), so what passes by itself is tried again.
"""

from __future__ import annotations

import math
import os
import random
import re
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
from qdrant_client import QdrantClient

from .deadline import seconds_left
from .errors import (
    BadInputError,
    StoreAccessError,
    StoreError,
    StoreSlowError,
)
from .place import MEMORY, Place
from .port import CollectionSpec
from .server_failures import ExistsError, Failure, NotQdrantError, TooLargeError, judge
from .server_models import read_options

OLDEST = (1, 16)
"""The first Qdrant whose writes take a condition, and whose collections keep metadata."""

__all__ = ["Connection", "ExistsError", "Patience", "TooLargeError"]

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How often a call is tried, and how it waits in between. Tests give a clock and a sleep of their own.

    No try begins later than twice the store's ``timeout`` after the first, so a call ends within three times that, and
    with the deadline of the request (:mod:`.deadline`) if that is earlier.
    """

    tries: int = 5
    shortest: float = 0.2
    longest: float = 5.0
    """Seconds before the second try, which double up to this; half of each wait is left to chance."""
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    chance: Callable[[], float] = random.random

    def pause(self, tried: int) -> float:
        """Seconds to wait after so many tries."""
        return min(self.longest, self.shortest * 2 ** (tried - 1)) * (0.5 + 0.5 * self.chance())


class Connection:
    """The client of one place, for the process that made it. Threads may share it.

    ``timeout`` is rounded up to whole seconds by the client.

    :raises BadInputError: if the place's settings make no sense.
    :raises StoreUnavailableError: if the server does not answer.
    :raises StoreError: if it is no Qdrant, or one older than :data:`OLDEST`.
    """

    def __init__(self, place: Place, patience: Patience | None = None) -> None:
        self.place = place
        self.patience = patience or Patience()
        self.in_memory = place.path == MEMORY
        self.options = read_options(place.collection)
        """Further arguments of ``create_collection``."""
        self.specs: dict[str, CollectionSpec] = {}
        """Of collections seen, so that a call needs no question before it."""
        self.label = "in this process's memory" if self.in_memory else f"at {place.url}"
        self._pid = os.getpid()
        self._closed = False
        # The local mode of the client is not made for threads.
        self._turn: AbstractContextManager[Any] = threading.RLock() if self.in_memory else nullcontext()
        self._client = QdrantClient(MEMORY) if self.in_memory else _open_client(place)
        if not self.in_memory:
            try:
                self._check_version()
            except BaseException:
                self.close()
                raise

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    @property
    def foreign(self) -> bool:
        """Whether another process made it, before a fork."""
        return self._pid != os.getpid()

    def close(self) -> None:
        """Let the client go; may be called twice."""
        self._closed = True
        if self.foreign:
            _PARENTS.append(self._client)  # its sockets belong to the parent
            return
        with self._turn:
            self._client.close()

    def waits(self) -> dict[str, Any]:
        """Arguments that end a read over gRPC with the deadline of the request, rounded up to whole seconds."""
        left = seconds_left()
        return {} if left is None or not self.place.prefer_grpc else {"timeout": max(math.ceil(left), 1)}

    def call(self, what: str, run: Callable[[QdrantClient], T]) -> T:
        """``run`` with the client, again after failures that pass by themselves.

        :param what: begins the message of an error, such as ``Writing to pins``.
        :raises StoreUnavailableError: once no further try is left, or no time.
        """
        if self.foreign:
            raise StoreError(f"This store {self.label} was opened before a fork; open it in the new process.")
        began, tried = self.patience.clock(), 0
        while True:
            if self._closed:
                raise StoreError(f"The store {self.label} was closed; open it again.")
            if seconds_left() == 0:
                raise StoreSlowError(f"{what} was not begun: the deadline of the request has passed.")
            try:
                with self._turn:
                    return run(self._client)
            except StoreError:
                raise
            except Exception as error:
                failure = judge(error)
            tried += 1
            if not failure.passes:
                raise self._error(what, failure)
            pause = self.patience.pause(tried) if failure.wait is None else failure.wait
            now = self.patience.clock()
            left = seconds_left()
            hasty = left is not None and pause >= left
            if hasty or tried == self.patience.tries or now + pause > began + 2 * self.place.timeout:
                raise self._unavailable(what, failure, tried, now - began)
            self.patience.sleep(pause)

    def _unavailable(self, what: str, failure: Failure, tried: int, seconds: float) -> StoreError:
        asked = f" and asks to wait {failure.wait:g} s" if failure.wait else ""
        return failure.kind(
            self._clean(
                f"{what} failed: Qdrant {self.label} {failure.words}{asked} (tried {tried} times in {seconds:.1f} s). "
                f"Check that the server runs and that url leads to it; if it is only busy, try again later or raise "
                f"timeout, now {self.place.timeout:g} s. Repeating the call is safe."
            )
        )

    def _error(self, what: str, failure: Failure) -> StoreError:
        begin = f"{what} failed: Qdrant {self.label}"
        words = failure.words
        if failure.kind is StoreAccessError:
            what_it_does = "refuses the api_key" if self.place.api_key else "wants an api_key"
            text = f"{begin} {what_it_does} ({words}). Give api_key a key that may do this."
        elif failure.kind in (BadInputError, TooLargeError):
            text = f"{begin} refuses the request: {words}."
        elif failure.kind is NotQdrantError:
            text = (
                f"{begin} does not answer as a Qdrant server does: {words}. url names a server's REST port, 6333 where "
                "nothing else was set; prefer_grpc uses grpc_port beside it."
            )
        else:
            text = f"{begin} {words}."
        return failure.kind(self._clean(text))

    def _clean(self, text: str) -> str:
        return text.replace(self.place.api_key, "<api_key>") if self.place.api_key else text

    def _check_version(self) -> None:
        found = self.call("Asking for the version", lambda client: client.info())
        version = re.match(r"v?(\d+)\.(\d+)", found.version)
        if "qdrant" not in found.title.lower() or version is None:
            raise self._error(
                "Asking for the version", Failure(NotQdrantError, f"it calls itself {found.title!r} {found.version!r}")
            )
        if (int(version[1]), int(version[2])) < OLDEST:
            raise StoreError(
                f"Qdrant {self.label} has version {found.version}; {'.'.join(map(str, OLDEST))} or newer is needed. "
                "Upgrade the server, one minor version at a time."
            )


def _open_client(place: Place) -> QdrantClient:
    url = urlsplit(place.url or "")
    if url.username or url.password:
        raise BadInputError("url may not hold a user or a password; give the key as api_key.")
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
        raise BadInputError(f"url is http(s)://host:port of a Qdrant server, not {place.url!r}.")
    if place.timeout <= 0:
        raise BadInputError(f"timeout is a number of seconds above 0, not {place.timeout!r}.")
    if place.api_key is not None and not re.fullmatch(r"[!-~]+", place.api_key):
        raise BadInputError("api_key is empty or holds a blank, a line break or a letter beyond ASCII.")
    further: dict[str, Any] = {}
    if place.tls_ca is not None:
        if url.scheme != "https":
            raise BadInputError(f"tls_ca goes with a url that begins with https, not with {place.url!r}.")
        try:
            further["verify"] = ssl.create_default_context(cafile=place.tls_ca)
            further["grpc_options"] = {"root_certificates": Path(place.tls_ca).read_bytes()}
        except OSError as error:  # which every error of ssl is
            raise BadInputError(f"tls_ca names no readable certificates: {place.tls_ca} ({error.strerror}).") from None
    client = QdrantClient(
        url=place.url,
        api_key=place.api_key,
        prefer_grpc=place.prefer_grpc,
        grpc_port=place.grpc_port,
        timeout=place.timeout,  # type: ignore[arg-type]  # rounded up by the client
        check_compatibility=False,  # _check_version says it as an error, before anything is written
        **further,
    )
    client.http.client.add_middleware(_within_deadline)
    return client


def _within_deadline(request: httpx.Request, send: Callable[[httpx.Request], httpx.Response]) -> httpx.Response:
    """Let no step of the request wait longer than is left; the client itself knows whole seconds only."""
    left = seconds_left()
    if left is not None:
        waits = request.extensions.get("timeout", {})
        request.extensions["timeout"] = {
            step: left if seconds is None else min(seconds, left) for step, seconds in waits.items()
        }
    return send(request)


_PARENTS: list[QdrantClient] = []
"""Clients of a parent process: closed by it, never here, not even when they are collected."""
