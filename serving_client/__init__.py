"""What consumers call: vectors, features, five-level scores and lists of pins.

``PinClient`` works in the own process over a repository, ``RemotePinClient`` asks a service that is run by
``pinfeather serve``; ``AsyncPinClient`` and ``AsyncRemotePinClient`` are the same to await. All have the same methods
and answers, so that :func:`connect` makes code independent of where the pins are.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serving_client.async_client import AsyncPinClient
    from serving_client.client import PinClient
    from serving_client.remote_client import AsyncRemotePinClient, RemotePinClient

_HOMES = {
    "PinClient": "serving_client.client",
    "AsyncPinClient": "serving_client.async_client",
    "RemotePinClient": "serving_client.remote_client",
    "AsyncRemotePinClient": "serving_client.remote_client",
}
"""Name to its module, imported when asked for: who needs one client does not wait for the others."""

__all__ = ["AsyncPinClient", "AsyncRemotePinClient", "PinClient", "RemotePinClient", "connect"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def connect(where: str | Path, **options: Any) -> PinClient | RemotePinClient:
    """A client of what is at ``where``: a repository's folder, or the http(s) address of a service.

    :param options: those of the client that it gives, :class:`PinClient` or :class:`RemotePinClient`.
    """
    if str(where).lower().startswith(("http://", "https://")):
        from serving_client.remote_client import RemotePinClient

        return RemotePinClient(str(where), **options)
    from serving_client.client import PinClient

    return PinClient(where, **options)
