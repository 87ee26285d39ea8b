"""Where a store is."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import BadInputError

MEMORY = ":memory:"
"""As a path: a store in this process's memory, for tests."""

DEFAULT_PATH = "data/online"
_NUMBER = (int, float)
_WORDS: Mapping[Any, str] = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    _NUMBER: "a number",
    dict: "a mapping, as Qdrant's create_collection takes it",
}
_KINDS: Mapping[str, Any] = {
    "path": str,
    "url": str,
    "api_key": str,
    "prefer_grpc": bool,
    "grpc_port": int,
    "timeout": _NUMBER,
    "tls_ca": str,
    "collection": dict,
    "cache_mb": _NUMBER,
}


@dataclass(frozen=True)
class Place:
    """A folder, a Qdrant server, or this process's memory; :func:`~.session.session` opens it.

    :raises BadInputError: unless exactly one of ``path`` and ``url`` is given.
    """

    path: str | None = None
    """Folder of the embedded store, or ``":memory:"``."""
    url: str | None = None
    """``http(s)://host:port`` of a Qdrant server."""
    namespace: str = ""
    """Feast project: names the server's release collection."""
    api_key: str | None = field(default=None, repr=False)
    prefer_grpc: bool = False
    grpc_port: int = 6334
    timeout: float = 30.0
    """Seconds a request to the server may take."""
    tls_ca: str | None = None
    """File of a private certificate authority for https and gRPC, else the system's count."""
    collection: str = "{}"
    """JSON text of the mapping that is given to Qdrant's ``create_collection`` unchanged."""
    root: str = ""
    """Repository that uses the store, so that two in-memory stores of one process are apart."""
    cache_bytes: int = 256 << 20
    """Decoded rows and columns that a reader of a folder keeps, in bytes; 0 for none."""

    def __post_init__(self) -> None:
        if bool(self.path) == bool(self.url):
            given = "both" if self.path else "neither"
            raise BadInputError(f"A store has either a path or a url; {given} was given.")

    @classmethod
    def of(cls, options: Mapping[str, Any], root: str | Path, namespace: str) -> Place:
        """The place that ``online_store`` in a ``feature_store.yaml`` names.

        :param options: its keys; those that say nothing of the place are left out of account.
        :param root: the repository's folder, to which ``path`` is relative.
        :param namespace: the Feast project.
        :raises BadInputError: naming the key that is wrong.
        """
        given = {key: value for key, value in options.items() if value is not None}
        for key, kinds in _KINDS.items():
            if key in given and (not isinstance(given[key], kinds) or isinstance(given[key], bool) != (kinds is bool)):
                raise BadInputError(f"online_store.{key} is {given[key]!r}; give {_WORDS[kinds]}.")
            if kinds is _NUMBER and key in given:
                check_number(key, given[key], above=key == "timeout")
        url, path = given.get("url"), given.get("path", None if given.get("url") else DEFAULT_PATH)
        if url and path:
            raise BadInputError(
                f"online_store has a url ({url}) and a path ({path}): keep url for a Qdrant server, path for a folder."
            )
        if url and not url.startswith(("http://", "https://")):
            raise BadInputError(f"online_store.url is {url!r}; give http://host:port or https://host:port.")
        if path and path != MEMORY:
            path = str(Path(root) / Path(path).expanduser())
        return cls(
            path=path,
            url=url,
            namespace=namespace,
            collection=_json(given.get("collection", {})),
            root=str(root),
            cache_bytes=int(given.get("cache_mb", 256) * (1 << 20)),
            **{key: given[key] for key in ("api_key", "prefer_grpc", "grpc_port", "timeout", "tls_ca") if key in given},
        )

    @property
    def embedded(self) -> bool:
        """Whether it is a folder of this machine."""
        return bool(self.path) and self.path != MEMORY


def check_number(key: str, value: Any, above: bool = False) -> None:
    """Refuse what is no finite number of at least 0; ``above``: of more than 0.

    :raises BadInputError: naming the key of ``online_store``.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < 0 or (above and value == 0):
        raise BadInputError(f"online_store.{key} is {value!r}; give a number {'above' if above else 'of at least'} 0.")


def _json(collection: Mapping[str, Any]) -> str:
    try:
        return json.dumps(collection, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BadInputError(f"online_store.collection is made of JSON values: {error}.") from None
