"""What the parts of one service share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from serving_client.client import PinClient
from serving_client.http.errors import without_folders
from serving_client.http.metrics import Metrics
from serving_client.http.readiness import Readiness
from serving_client.http.settings import Settings
from serving_client.workers import Workers


@dataclass
class Service:
    """A client and what serves it."""

    client: PinClient
    settings: Settings
    readiness: Readiness = field(default_factory=Readiness)

    def __post_init__(self) -> None:
        self.workers = Workers(self.settings.threads, self.settings.waiting)
        self.metrics = Metrics(self.client, self.workers)
        self.aside = ThreadPoolExecutor(2, thread_name_prefix="pinfeather-aside")
        """For loading, one thing at a time, and for metrics: neither waits for the other or for requests."""

    @property
    def root(self) -> str:
        """The repository's folder, which no answer names."""
        return str(self.client.paths.root)

    def tellable(self, message: str) -> str:
        """``message`` for those who ask: without a folder of this machine."""
        return without_folders(message.replace(self.root, "the repository"))

    def close(self) -> None:
        """Take no more calls; those under way may end by themselves."""
        self.workers.close(wait=False)
        self.aside.shutdown(wait=False, cancel_futures=True)
