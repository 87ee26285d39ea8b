"""API keys: several, each with a name; only their hashes are kept."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from feature_repo.errors import UsageError

SHORTEST_KEY = 16
"""Characters of a key; what is shorter can be guessed."""
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_HASH = re.compile(r"sha256:([0-9a-f]{64})")


class Keys:
    """The keys that a service accepts.

    A key has enough entropy not to need a slow hash, unlike a password.

    :param entries: ``name:key``, or ``name:sha256:HEX`` with the SHA-256 of the key.
    :raises UsageError: for an entry of another form, a short key, or a name or key that stands twice.
    """

    def __init__(self, entries: Iterable[str] = ()) -> None:
        self._hashes: dict[str, bytes] = {}
        for number, entry in enumerate(entries, 1):
            name, _, key = entry.strip().partition(":")
            if not _NAME.fullmatch(name) or not key:
                raise UsageError(  # the entry may be a bare key, so it is not repeated
                    f"API key {number} has no form of a key: write it as name:key, the name in letters, digits, _ . -"
                )
            if name in self._hashes:
                raise UsageError(f"There are two API keys called {name!r}: give each its own name.")
            digest = _digest_of(name, key)
            if digest in self._hashes.values():
                raise UsageError(f"The API key called {name!r} has another name already: give each name its own key.")
            self._hashes[name] = digest

    def __bool__(self) -> bool:
        return bool(self._hashes)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the keys."""
        return tuple(self._hashes)

    def name_of(self, key: str) -> str | None:
        """The name of ``key``; None if it is none. It takes as long for every key."""
        given = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
        found = None
        for name, digest in self._hashes.items():
            if hmac.compare_digest(given, digest):
                found = name
        return found

    @classmethod
    def read(cls, file: Path | None, environment: Mapping[str, str]) -> Keys:
        """The keys of ``file`` (one a line; # begins a comment) and of ``PINFEATHER_API_KEYS`` (by commas).

        :raises UsageError: if the file cannot be read or holds none, or as above.
        """
        entries = [entry for entry in environment.get("PINFEATHER_API_KEYS", "").split(",") if entry.strip()]
        if file is not None:
            try:
                lines = [line.strip() for line in file.read_text("utf-8").splitlines()]
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(
                    f"The file of API keys {file} cannot be read ({type(error).__name__}): give a file of UTF-8 text "
                    "with one name:key a line."
                ) from error
            found = [line for line in lines if line and not line.startswith("#")]
            if not found:
                raise UsageError(f"{file} holds no API key: write one name:key a line.")
            entries += found
        return cls(entries)


def _digest_of(name: str, key: str) -> bytes:
    if hashed := _HASH.fullmatch(key):
        return bytes.fromhex(hashed[1])
    if len(key) < SHORTEST_KEY or not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(
            f"The API key called {name!r} is not accepted: it takes at least {SHORTEST_KEY} printable ASCII characters "
            "without spaces, such as `openssl rand -hex 24` gives."
        )
    return hashlib.sha256(key.encode()).digest()
