"""Clients of a service that is somewhere else: the methods and answers of the embedded client, over HTTP."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import math
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from feature_repo.board_text import Board
from feature_repo.errors import PinfeatherError, UsageError
from serving_client.answers import Embeddings
from serving_client.client import PinClient
from serving_client.degraded import CODES, UnavailableError
from serving_client.http.wire import ARROW, JSON, from_arrow, from_json
from serving_client.methods import EMBEDDED_ONLY, Method, served_methods
from serving_client.stages import DeadlineError, seconds_left

if TYPE_CHECKING:
    import httpx

P = ParamSpec("P")
T = TypeVar("T")

TIMEOUT = 10.0
CONNECT_SECONDS = 2.0
LONGEST_PAUSE = 2.0
"""Seconds; a service that wants more before it is asked again is not asked again."""
CONNECTIONS = 64


_BATCHES = (Sequence[str], Iterable[str])


class RemoteError(PinfeatherError):
    """The service could not be reached, or refused or failed at a request.

    :param code: the error's code, such as ``unauthorized`` or ``unavailable``; empty if no service answered.
    """

    def __init__(self, message: str, code: str = "", request_id: str = "") -> None:
        super().__init__(message)
        self.code, self.request_id = code, request_id


class _Request:
    """One call as it goes over the wire, and what its answer means."""

    def __init__(self, url: str, timeout: float, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.url, self.method = url, served_methods()[name]
        left = seconds_left()
        self.ends = time.monotonic() + (timeout if left is None else min(left, timeout))
        self.body = json.dumps(_keys(self.method, args, kwargs)).encode() if self.method.parameters else None

    def parts(self) -> dict[str, Any]:
        """What httpx sends."""
        seconds = self.ends - time.monotonic()
        if seconds <= 0:
            raise DeadlineError(f"The deadline passed before {self.url} answered: give the request more time.")
        headers = {"X-Deadline-Ms": str(max(1, math.ceil(seconds * 1000)))}
        headers["Accept"] = f"{ARROW}, {JSON}" if self.method.answer is Embeddings else JSON
        if self.body is not None:
            headers["Content-Type"] = JSON
        return {
            "method": self.method.verb,
            "url": self.url + self.method.path,
            "content": self.body,
            "headers": headers,
            "timeout": _timeout(seconds),
        }

    def failure(self, error: Exception) -> PinfeatherError:
        """What it means that no answer came."""
        if isinstance(error, TimeoutError) or time.monotonic() >= self.ends:
            return DeadlineError(f"{self.url} did not answer in time: give the request more time.")
        return RemoteError(
            f"{self.url} cannot be reached ({type(error).__name__}): is `pinfeather serve` running there?"
        )

    def pause(self, response: httpx.Response) -> float | None:
        """Seconds after which to ask again; None for not at all."""
        wanted = response.headers.get("retry-after", "")
        if response.status_code != 503 or not (wanted.isascii() and wanted.isdigit()):
            return None
        pause = float(wanted)
        return pause if pause <= LONGEST_PAUSE and time.monotonic() + pause < self.ends else None

    def answer(self, response: httpx.Response) -> Any:
        """The answer that ``response`` carries; its error raised if it is one."""
        if response.status_code != 200:
            raise _error_of(response, self.url)
        if response.headers.get("content-type", "").startswith(ARROW):
            return from_arrow(response.content)
        try:
            data = response.json()
        except ValueError as error:
            raise RemoteError(
                f"{self.url} answered with something else than JSON: is it a Pinfeather service?"
            ) from error
        return from_json(self.method.answer, data)


def _timeout(seconds: float) -> httpx.Timeout:
    import httpx

    return httpx.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))


def _keys(method: Method, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments by name, as JSON takes them.

    :raises TypeError: as the method itself raises it, for arguments that it does not take.
    :raises UsageError: for one that only an embedded client takes.
    """
    given = inspect.signature(getattr(PinClient, method.name)).bind(None, *args, **kwargs).arguments
    given.pop("self")
    for name in EMBEDDED_ONLY.get(method.name, ()):
        if given.pop(name, False):
            raise UsageError(f"{method.name} takes {name} only from a client in the same process: use PinClient.")
    return {name: _text_of(method.hints[name], name, _plain(value)) for name, value in given.items()}


def _text_of(hint: Any, name: str, value: Any) -> Any:
    """Ids that are numbers as their digits, as the embedded client takes them."""
    if name == "pin_id" and isinstance(value, int | float):
        return str(value)
    if hint in _BATCHES and isinstance(value, list):
        return [str(each) if isinstance(each, int | float) else each for each in value]
    return value


def _plain(value: Any) -> Any:
    """An argument as JSON: boards as objects, times as texts, any batch as a list."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Board):
        return asdict(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, bytes) or not hasattr(value, "__iter__"):
        raise UsageError(f"A {type(value).__name__} cannot be sent to a service: give texts, numbers or lists of them.")
    return [_plain(each) for each in value]


def _error_of(response: httpx.Response, url: str) -> PinfeatherError:
    try:
        error = response.json()["error"]
        code, message, request_id = str(error["code"]), str(error["message"]), str(error["request_id"])
    except (ValueError, KeyError, TypeError):
        return RemoteError(f"{url} answered with status {response.status_code}: is it a Pinfeather service?")
    if code == "deadline":
        return DeadlineError(message)
    if code in ("bad_request", "too_large"):
        return UsageError(message)
    if code == "unavailable" and error.get("reason") in CODES:
        return UnavailableError(message, error["reason"])
    return RemoteError(f"{message} ({url}, request {request_id})", code, request_id)


def _options(url: str, api_key: str | None, timeout: float) -> dict[str, Any]:
    """What both kinds of httpx clients are made with.

    :raises UsageError: if ``url`` is no http address or ``timeout`` no time.
    """
    import httpx

    if not url.lower().startswith(("http://", "https://")):
        raise UsageError(f"{url} is no address of a service: give one such as http://127.0.0.1:8080.")
    if not timeout > 0:
        raise UsageError(f"A timeout of {timeout} seconds is none: give a number above 0.")
    try:
        httpx.URL(url)
    except httpx.InvalidURL as error:
        raise UsageError(f"{url} is no address of a service: {error}.") from error
    if api_key and not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
        raise UsageError("The API key is none: it has printable ASCII characters only, without spaces or a line's end.")
    headers = {"X-Api-Key": api_key} if api_key else {}
    return {"headers": headers, "limits": httpx.Limits(max_connections=CONNECTIONS), "follow_redirects": False}


def _remote(
    method: Callable[Concatenate[PinClient, P], T],
) -> Callable[Concatenate[RemotePinClient, P], T]:
    """A method with the same arguments and answer that asks the service."""

    @functools.wraps(method)
    def call(self: RemotePinClient, *args: P.args, **kwargs: P.kwargs) -> Any:
        return self._ask(method.__name__, args, kwargs)

    return call


def _remote_awaited(
    method: Callable[Concatenate[PinClient, P], T],
) -> Callable[Concatenate[AsyncRemotePinClient, P], Coroutine[Any, Any, T]]:
    """The same, to await."""

    @functools.wraps(method)
    async def call(self: AsyncRemotePinClient, *args: P.args, **kwargs: P.kwargs) -> Any:
        return await self._ask(method.__name__, args, kwargs)

    return call


class RemotePinClient:
    """The client of a service; otherwise :class:`~serving_client.client.PinClient`. Threads may share it.

    One calls it so::

        with RemotePinClient("http://127.0.0.1:8080", api_key=key) as client:
            found = client.search("green velvet sofa", limit=5)

    Errors are those of the embedded client; what is the service's or the network's is a :class:`RemoteError`. A lost
    connection, and a 503 that says when to come back, are tried once more. No method changes pins, so that is safe.

    :param url: address of the service, with a path if a gateway gives it one.
    :param api_key: sent with every request.
    :param timeout: seconds for a request as a whole, its second try included; a deadline set by
        :func:`serving_client.stages.deadline` counts where it is earlier, and the service hears of either.
    :param transport: what carries the requests, as httpx takes it.
    :param pause: waits so many seconds before a second try.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = TIMEOUT,
        transport: httpx.BaseTransport | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        options = _options(url, api_key, timeout)
        import httpx

        self.url, self.timeout, self._pause = url.rstrip("/"), timeout, pause
        from serving_client.bounded_calls import bound

        self._http = httpx.Client(transport=transport, **options)
        bound(self._http)

    def __enter__(self) -> RemotePinClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _ask(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        request = _Request(self.url, self.timeout, name, args, kwargs)
        response = self._send(request, last=False)
        if response is not None and (pause := request.pause(response)) is not None:
            self._pause(pause)
            response = None
        if response is None:
            response = self._send(request, last=True)
        assert response is not None
        return request.answer(response)

    def _send(self, request: _Request, *, last: bool) -> httpx.Response | None:
        """The response; None if none came, unless it was the last try."""
        import httpx

        from serving_client.bounded_calls import ending

        try:
            with ending(request.ends):
                return self._http.request(**request.parts())
        except httpx.RequestError as error:
            if last or time.monotonic() >= request.ends:
                raise request.failure(error) from error
            return None

    embed_queries = _remote(PinClient.embed_queries)
    embed_boards = _remote(PinClient.embed_boards)
    pin_embeddings = _remote(PinClient.pin_embeddings)
    pin_features = _remote(PinClient.pin_features)
    query_features = _remote(PinClient.query_features)
    score = _remote(PinClient.score)
    search = _remote(PinClient.search)
    related_pins = _remote(PinClient.related_pins)
    home_feed = _remote(PinClient.home_feed)
    board_pins = _remote(PinClient.board_pins)
    boards_for_pin = _remote(PinClient.boards_for_pin)
    evict_queries = _remote(PinClient.evict_queries)
    status = _remote(PinClient.status)


class AsyncRemotePinClient:
    """:class:`RemotePinClient` with methods to await, for one event loop.

    :param url: this and the following as there; ``pause`` is awaited.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = TIMEOUT,
        transport: httpx.AsyncBaseTransport | None = None,
        pause: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
    ) -> None:
        options = _options(url, api_key, timeout)
        import httpx

        self.url, self.timeout, self._pause = url.rstrip("/"), timeout, pause
        self._http = httpx.AsyncClient(transport=transport, **options)

    async def __aenter__(self) -> AsyncRemotePinClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _ask(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        request = _Request(self.url, self.timeout, name, args, kwargs)
        response = await self._send(request, last=False)
        if response is not None and (pause := request.pause(response)) is not None:
            await self._pause(pause)
            response = None
        if response is None:
            response = await self._send(request, last=True)
        assert response is not None
        return request.answer(response)

    async def _send(self, request: _Request, *, last: bool) -> httpx.Response | None:
        import httpx

        try:
            async with asyncio.timeout(request.ends - time.monotonic()):
                return await self._http.request(**request.parts())
        except TimeoutError as error:
            raise request.failure(error) from error
        except httpx.RequestError as error:
            if last or time.monotonic() >= request.ends:
                raise request.failure(error) from error
            return None

    embed_queries = _remote_awaited(PinClient.embed_queries)
    embed_boards = _remote_awaited(PinClient.embed_boards)
    pin_embeddings = _remote_awaited(PinClient.pin_embeddings)
    pin_features = _remote_awaited(PinClient.pin_features)
    query_features = _remote_awaited(PinClient.query_features)
    score = _remote_awaited(PinClient.score)
    search = _remote_awaited(PinClient.search)
    related_pins = _remote_awaited(PinClient.related_pins)
    home_feed = _remote_awaited(PinClient.home_feed)
    board_pins = _remote_awaited(PinClient.board_pins)
    boards_for_pin = _remote_awaited(PinClient.boards_for_pin)
    evict_queries = _remote_awaited(PinClient.evict_queries)
    status = _remote_awaited(PinClient.status)
