"""Where everything of one Pinfeather repository lies on disk.

The online store and the registry lie where ``feature_store.yaml`` says, so that Feast and the commands use the same
ones; it is read when one of the two is asked for, since many commands need neither.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from feature_repo.errors import PinfeatherError, UsageError

CONFIG = "feature_store.yaml"
ONLINE_STORE = "materialize.online_store.PinfeatherOnlineStore"
_ONLINE, _REGISTRY = "data/online", "data/registry.db"
_FILE_REGISTRIES = (None, "FileRegistryStore", "feast.infra.registry.file.FileRegistryStore")


@dataclass(frozen=True)
class RepoPaths:
    """The folders and files of one repository; ``root`` is absolute and holds ``feature_store.yaml``."""

    root: Path

    @classmethod
    def open(cls, repo: str | Path) -> RepoPaths:
        """The paths of an existing repository.

        :raises UsageError: if ``repo`` is empty or holds no ``feature_store.yaml``.
        """
        if not str(repo).strip():
            raise UsageError(f"--repo is empty: name a folder with {CONFIG}.")
        root = Path(repo).expanduser().absolute()
        if not (root / CONFIG).is_file():
            raise UsageError(
                f"--repo {repo!s} is no Feast repository: {root / CONFIG} does not exist. "
                f"Make one with `pinfeather init {repo!s}`, or name an existing one with --repo DIR."
            )
        return cls(root)

    @property
    def data(self) -> Path:
        """Everything that commands write."""
        return self.root / "data"

    @property
    def raw(self) -> Path:
        """Raw tables as they came: ``raw/<table>/*.parquet``."""
        return self.data / "raw"

    @property
    def valid(self) -> Path:
        """Rows that passed their contract: ``valid/<table>.parquet``; :meth:`valid_files` names the files."""
        return self.data / "valid"

    @property
    def rejected(self) -> Path:
        """Rows that did not, with the reason: ``rejected/<table>.parquet``; see :meth:`rejected_files`."""
        return self.data / "rejected"

    def valid_files(self, table: str) -> list[Path]:
        """The files of the accepted rows of ``table``, by name; none before the first `pinfeather validate`.

        A table that is validated file by file (``search_log``) has one file for each raw file and at least one. A file
        never changes: other content has another name.
        """
        return self._files(self.valid, table)

    def rejected_files(self, table: str) -> list[Path]:
        """The files of the rejected rows of ``table``, by name."""
        return self._files(self.rejected, table)

    def _files(self, folder: Path, table: str) -> list[Path]:
        parts = read_parts(self.valid / table)
        if parts is not None:
            return sorted(folder / table / part["file"] for part in parts)
        single = folder / f"{table}.parquet"
        return [single] if single.is_file() else []

    @property
    def views(self) -> Path:
        """Batch sources of the feature views: ``views/<view>.parquet``."""
        return self.data / "views"

    @property
    def aggregates(self) -> Path:
        """What the aggregates keep to merge the next day's log into."""
        return self.data / "aggregates"

    @property
    def captions(self) -> Path:
        """Captions that were made here: ``captions/<captioner fingerprint>/*.parquet``."""
        return self.data / "captions"

    @property
    def erasures(self) -> Path:
        """What must never come back, as keyed hashes, and the key."""
        return self.data / "erasures"

    @property
    def reports(self) -> Path:
        """Reports about the features, and what runs noted for them: ``reports/*.json``."""
        return self.data / "reports"

    @property
    def lexical(self) -> Path:
        """Statistics snapshots: ``lexical/<digest>.json``."""
        return self.data / "lexical"

    @property
    def bundles(self) -> Path:
        """Student bundles, one folder each."""
        return self.data / "bundles"

    @property
    def teachers(self) -> Path:
        """Trained teachers, one folder each."""
        return self.data / "teachers"

    @property
    def samples(self) -> Path:
        """Samples of the log that wait for labels: ``samples/<name>.parquet``."""
        return self.data / "samples"

    @property
    def labels(self) -> Path:
        """The teacher's labels: ``labels/<teacher version>/*.parquet``."""
        return self.data / "labels"

    @cached_property
    def registry(self) -> Path:
        """The Feast registry file: ``registry``, or its ``path``, in ``feature_store.yaml``.

        :raises PinfeatherError: if that names no local file, or the configuration cannot be read.
        """
        config = read_config(self.root / CONFIG)
        return self.root / (_REGISTRY if config is None else _registry_path(config, self.root / CONFIG))

    @cached_property
    def online_store(self) -> Mapping[str, Any]:
        """``online_store`` in ``feature_store.yaml``: folder or server, and its options.

        :raises PinfeatherError: if that configures another kind of store, or the configuration cannot be read.
        """
        config = read_config(self.root / CONFIG)
        return {} if config is None else _online_store(config, self.root / CONFIG)

    @cached_property
    def project(self) -> str:
        """The Feast project that ``feature_store.yaml`` names."""
        return str((read_config(self.root / CONFIG) or {}).get("project", ""))

    @property
    def online(self) -> Path:
        """The folder of the embedded store, with its publications.

        :raises PinfeatherError: if ``feature_store.yaml`` names no folder, or cannot be read.
        """
        path = self.online_store.get("path", _ONLINE)
        if "url" in self.online_store or path == ":memory:":
            raise PinfeatherError(f"The online store of {self.root / CONFIG} is no folder.")
        return self.root / Path(path).expanduser()

    @property
    def ledger(self) -> Path:
        """Ledger: ``ledger.db`` and one folder of shards a space."""
        return self.data / "ledger"

    @property
    def vectors(self) -> Path:
        """Vector logs: ``vectors/<space>/*.parquet``."""
        return self.data / "vectors"

    @property
    def warm(self) -> Path:
        """Query vectors for clients to begin with: ``warm/<space>.npz``."""
        return self.data / "warm"

    @property
    def spaces(self) -> Path:
        """Space manifests: ``spaces/<space>.json``."""
        return self.data / "spaces"

    @property
    def releases(self) -> Path:
        """Past releases: ``releases/000001.json``; the current one is ``release.json`` beside it."""
        return self.data / "releases"

    @property
    def release(self) -> Path:
        """The current release manifest."""
        return self.data / "release.json"


PARTS = ".parts.json"
"""In the folder of a table that is validated file by file: which of its files count. Written last, all at once."""


def read_parts(folder: Path) -> list[dict[str, Any]] | None:
    """What is noted of the parts in ``folder``; None if no table was validated into it.

    :raises PinfeatherError: if the note cannot be read.
    """
    path = folder / PARTS
    try:
        return list(json.loads(path.read_text(encoding="utf-8"))["parts"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PinfeatherError(
            f"{path} cannot be read ({error}). Delete the folder {folder}, then run `pinfeather validate`, which reads "
            "every raw file of the table again."
        ) from error


def read_config(path: Path) -> Mapping[str, Any] | None:
    """``feature_store.yaml`` as Feast reads it, with environment variables put in; None if there is no such file.

    :raises PinfeatherError: if it is no YAML mapping.
    """
    import yaml

    wanted = "Feast wants a YAML mapping there: correct it, or compare it with the one that `pinfeather init` writes."
    try:
        config = yaml.safe_load(os.path.expandvars(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise PinfeatherError(f"{path} is no UTF-8 text. {wanted}") from error
    except yaml.YAMLError as error:  # its own message quotes the file, where there may be passwords
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise PinfeatherError(f"{path}{line}: {getattr(error, 'problem', None) or 'no YAML'}. {wanted}") from error
    if not isinstance(config, dict):
        raise PinfeatherError(f"{path} holds {'nothing' if config is None else type(config).__name__}. {wanted}")
    return config


def _online_store(config: Mapping[str, Any], source: Path) -> Mapping[str, Any]:
    """The options of our store, as ``materialize.online_store`` gets them."""
    given = config.get("online_store")
    store = {"type": given} if isinstance(given, str) else given if isinstance(given, dict) else {}
    path = store.get("path", _ONLINE)
    if store.get("type") != ONLINE_STORE or not isinstance(path, str) or not path:
        raise PinfeatherError(
            f"{source} has an online_store of type {store.get('type')!r} with the path {path!r}. Pinfeather writes to "
            f"its own store: set online_store to `type: {ONLINE_STORE}` and `path: {_ONLINE}` (or another folder), or "
            "`url: https://host:6333` of a Qdrant server."
        )
    return store


def _registry_path(config: Mapping[str, Any], source: Path) -> Path:
    """The registry file, as Feast finds it; it takes a ``~`` for a folder of that name, which nobody means."""
    given = config.get("registry")
    registry = {"path": given} if isinstance(given, str) else given if isinstance(given, dict) else {}
    path = registry.get("path")
    kind, store = registry.get("registry_type", "file"), registry.get("registry_store_type")
    local = kind == "file" and store in _FILE_REGISTRIES and isinstance(path, str)
    if not local or not path or "://" in path or path.startswith("~"):
        shown = f"{path.split('://')[0]}://..." if isinstance(path, str) and "://" in path else repr(path)  # passwords
        raise PinfeatherError(
            f"{source} has a registry of type {store or kind!r} with the path {shown}. So far Pinfeather reads a "
            f"registry that is a local file only (other kinds come later): set registry to `path: {_REGISTRY}`, or "
            f"another file, relative to {source.parent} or absolute (Feast does not expand ~)."
        )
    return Path(path)
