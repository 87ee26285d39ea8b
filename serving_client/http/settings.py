"""What a service allows, and for how long."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from feature_repo.errors import UsageError
from serving_client.http.auth import Keys
from serving_client.workers import THREADS, WAITING


@dataclass(frozen=True)
class Settings:
    """Bounds of one service. The defaults suit a search page: hundreds of candidates, answers within a moment."""

    keys: Keys = field(default_factory=Keys)
    """Without any, only requests to a loopback address are answered."""
    max_body: int = 1 << 20
    """Bytes of a request's body."""
    max_held: int = 64 << 20
    """Bytes of the bodies of all requests under way."""
    max_candidates: int = 2000
    """Pins that a request may name or ask to be scored."""
    max_queries: int = 256
    """Queries or boards of a request."""
    deadline: float = 10.0
    """Seconds that a request may take; a client may ask for fewer."""
    body_seconds: float = 10.0
    """Seconds within which a request's body has to arrive."""
    send_seconds: float = 30.0
    """Seconds within which a client has to take each part of an answer."""
    read_ahead: int = 0
    """Bytes of rows that are read before anybody asks for them, see :meth:`.PinClient.read_ahead`; 0 for none."""
    threads: int = THREADS
    waiting: int = WAITING
    """Requests that may wait for a thread."""

    def __post_init__(self) -> None:
        numbers = ("max_body", "max_held", "max_candidates", "max_queries", "deadline", "body_seconds", "send_seconds")
        for name in numbers:
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} is {getattr(self, name)}: give a number above 0.")


def is_loopback(host: str) -> bool:
    """Whether ``host``, a name or an address, is this machine as seen only from itself."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_host(host: str, keys: Keys) -> None:
    """Refuse to be reachable for everybody.

    :raises UsageError: if there is no key and ``host`` is no loopback address.
    """
    if not keys and not is_loopback(host):
        raise UsageError(
            f"Without API keys the service listens on loopback addresses only, not on {host}: give --api-key-file or "
            "set PINFEATHER_API_KEYS, or use --host 127.0.0.1."
        )
