"""What a request must show before anything works for it: its host, its key, its type, and a body that is not too large.

A body is read as a whole here, within a time, and only then handed on.
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving_client.http.errors import Refused
from serving_client.http.frame import PAGE, SenderGoneError, told_of
from serving_client.http.headers import header_of
from serving_client.http.settings import Settings, is_loopback

OPEN = frozenset({"/", "/healthz", "/readyz"})
"""Paths that need no key, beside the page's files: they tell nothing of pins."""


class Gate:
    """Lets requests pass or refuses them."""

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self.app, self.settings = app, settings
        self._held = 0
        """Bytes of the bodies of all requests under way."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if self.settings.keys:
            if scope["path"] not in OPEN and not scope["path"].startswith(PAGE):
                told_of(scope).key = self._key(scope)
        else:
            _check_host(scope)
        if scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        _check_type(scope)
        parts: list[bytes] = []
        try:
            await self._read(scope, receive, parts)
            await self.app(scope, _replayed(b"".join(parts), receive), send)
        finally:
            self._held -= sum(map(len, parts))

    def _key(self, scope: Scope) -> str:
        scheme, _, bearer = (header_of(scope, b"authorization") or "").partition(" ")
        given = header_of(scope, b"x-api-key") or (bearer.strip() if scheme.lower() == "bearer" else "")
        name = self.settings.keys.name_of(given)
        if name is None:
            what = "This API key is not known" if given else "There is no API key"
            raise Refused(401, f"{what}: send one as X-Api-Key or as Authorization: Bearer.", WWW_Authenticate="Bearer")
        return name

    async def _read(self, scope: Scope, receive: Receive, parts: list[bytes]) -> None:
        """Read the body into ``parts``."""
        most = self.settings.max_body
        length = header_of(scope, b"content-length") or "0"
        if length.isdigit() and int(length) > most:
            raise _too_large(most)
        size = 0
        try:
            async with asyncio.timeout(self.settings.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise SenderGoneError
                    part = message.get("body", b"")
                    parts.append(part)
                    size += len(part)
                    self._held += len(part)
                    if size > most:
                        raise _too_large(most)
                    if self._held > self.settings.max_held:
                        raise Refused(503, "Too many large bodies at a time.", Retry_After="1", Connection="close")
                    if not message.get("more_body", False):
                        return
        except TimeoutError:
            raise Refused(
                408, f"The body did not arrive within {self.settings.body_seconds:g} seconds.", Connection="close"
            ) from None


def _too_large(most: int) -> Refused:
    return Refused(413, f"The body has more than {most:,} bytes, which is all this service takes.", Connection="close")


def _check_host(scope: Scope) -> None:
    """Refuse names by which a foreign web page could lead a browser of this machine here."""
    host = header_of(scope, b"host") or ""
    name = host.partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if not is_loopback(name.strip("[]")):
        raise Refused(400, "Without API keys this service answers only to localhost and loopback addresses as Host.")


def _check_type(scope: Scope) -> None:
    media, _, rest = (header_of(scope, b"content-type") or "").partition(";")
    charset = rest.strip().lower().removeprefix("charset=").strip('"')
    if media.strip().lower() != "application/json" or charset not in ("", "utf-8"):
        raise Refused(415, "Send the body as Content-Type: application/json, in UTF-8.", Connection="close")


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Gives ``body`` in one piece, then what else comes."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
