"""Where everything of one Pinfeather repository lies on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from feature_repo.errors import PinfeatherError


@dataclass(frozen=True)
class RepoPaths:
    """The folders and files of one repository; ``root`` is absolute and holds ``feature_store.yaml``."""

    root: Path

    @classmethod
    def open(cls, repo: str | Path) -> RepoPaths:
        """The paths of an existing repository.

        :raises PinfeatherError: if ``repo`` holds no ``feature_store.yaml``.
        """
        root = Path(repo).expanduser().absolute()
        if not (root / "feature_store.yaml").is_file():
            raise PinfeatherError(
                f"--repo {repo!s} is no Feast repository: {root / 'feature_store.yaml'} does not exist. "
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
        """Rows that passed their contract: ``valid/<table>.parquet``."""
        return self.data / "valid"

    @property
    def rejected(self) -> Path:
        """Rows that did not, with the reason: ``rejected/<table>.parquet``."""
        return self.data / "rejected"

    @property
    def views(self) -> Path:
        """Batch sources of the feature views: ``views/<view>.parquet``."""
        return self.data / "views"

    @property
    def lexical(self) -> Path:
        """Statistics snapshots: ``lexical/<digest>.json``."""
        return self.data / "lexical"

    @property
    def bundles(self) -> Path:
        """Student bundles, one folder each."""
        return self.data / "bundles"

    @property
    def registry(self) -> Path:
        """The Feast registry file of the embedded default."""
        return self.data / "registry.db"

    @property
    def online(self) -> Path:
        """The embedded Qdrant Edge folder with its publications."""
        return self.data / "online"

    @property
    def ledger(self) -> Path:
        """Ledger: ``ledger.db`` and one folder of shards a space."""
        return self.data / "ledger"

    @property
    def vectors(self) -> Path:
        """Vector logs: ``vectors/<space>/*.parquet``."""
        return self.data / "vectors"

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
