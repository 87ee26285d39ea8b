"""What a run is asked to do, and its state over one space."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from embedders.encoder import Encoder
from feature_repo.paths import RepoPaths
from materialize.definitions import RepoDefinitions
from materialize.encoders import Encoders
from materialize.ledger import Ledger
from materialize.log_index import LogIndex
from materialize.plan import PinChange
from materialize.quarantine import CarefulEncoding
from materialize.selection import Selection
from materialize.spaces import Space
from materialize.standing import RunCounts, Target
from materialize.stores.session import StoreWriter


@dataclass(frozen=True)
class RunOptions:
    """How to run: which model and device, and how many gone pins are believed."""

    model: str | None = None
    device: str = "auto"
    precision: str = "auto"
    max_gone: float = 0.2
    allow_deletes: bool = False
    lock_timeout: float = 10.0
    progress: Callable[[int, int], None] | None = None
    """Called with (pins written, pins to write)."""
    tell: Callable[[str], None] | None = None
    """Called with words about choices made: which device and precision, and why."""
    encoder: Encoder | None = None
    """Use this encoder instead of loading the spaces' own; its fingerprint must be that of their model."""
    space: str | None = None
    """This space alone; feature rows then only if it is the live one. None: every space that is kept."""
    fill: str | None = None
    """Last of all, add to this space pins that it has not had yet: at most ``fill_limit``."""
    fill_limit: int | None = None
    restore: bool = False
    """Encode nothing: only write what the vector log has and the store has not."""
    only: frozenset[str] | None = None
    """These pins alone are written or deleted, vectors and rows of views by pin; None for all."""
    rows: Mapping[str, frozenset[str]] | None = None
    """Feature view to the keys of the rows that alone are written; None for those of ``only``."""
    limit: int | None = None
    """So many points at most are written in each space, the rest by later runs; deletions and rows are not counted."""
    retry_quarantined: bool = False
    """Try texts again that an encoder could not take."""
    rescan: bool = False
    """Read source files, too, that are as the last scan left them."""
    stop: Callable[[], bool] | None = None
    """Asked between two batches; once it says True the run ends there, published, and ``interrupted`` is set."""
    erased: frozenset[str] | None = None
    """Pins that an erasure took something from: their loss is believed, and none of them is held. None: no erasure."""


@dataclass
class SpaceRun:
    """One run over one space: what it works with, and how far it is."""

    paths: RepoPaths
    definitions: RepoDefinitions
    options: RunOptions
    encoders: Encoders
    store: StoreWriter
    ledger: Ledger
    con: Any
    """Reads the sources of the feature views."""
    held: frozenset[str]
    """Pins that `validate` rejected: they keep what was written of them last."""
    target: Target
    number: int
    counts: RunCounts
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    clock: float = field(default_factory=time.perf_counter)
    """When it started, for its seconds."""
    selection: Selection = field(default_factory=Selection)
    planned: dict[bytes, int] | None = None
    """Text fingerprint to how many pins want its vector; None if that was not counted."""
    careful: CarefulEncoding = field(default_factory=CarefulEncoding)
    poisoned: list[PinChange] = field(default_factory=list)
    """Pins whose text was found to be poison in this run."""
    paid: int = 0
    """Pins of the batches that are written, of those whose point is to be written."""
    part: int = 0
    shared: dict[bytes, npt.NDArray[np.float32]] = field(default_factory=dict)
    """Vectors of texts that several pins carry."""
    resumed: bool = False
    """Whether a run of the space ended too early before: then the log is asked for texts, too."""
    logged: LogIndex | None = None
    """The vector log by pin, read when first needed."""

    @property
    def project(self) -> str:
        """Feast's project, which is part of every point's id."""
        return self.definitions.project

    @property
    def space(self) -> Space:
        """The space that is written."""
        return self.target.space

    @property
    def left(self) -> int:
        """Pins that were counted to be written and are not."""
        return max(0, self.counts.paid + len(self.poisoned) - self.paid)

    def log(self) -> LogIndex:
        """What the vector log has, as of when it was first asked for in this run."""
        self.logged = self.logged or LogIndex(self.paths, self.space.name)
        return self.logged

    def stopping(self) -> bool:
        """Whether the run was asked to stop; once it was, it stays so."""
        self.counts.interrupted = self.counts.interrupted or bool(self.options.stop and self.options.stop())
        return self.counts.interrupted

    def finish(self, status: str, error: BaseException | None = None) -> None:
        """Note in the ledger how the run ended, and its counts."""
        self.counts.seconds = time.perf_counter() - self.clock
        noted = {**self.counts.to_json(), "encode_seconds": self.counts.stages.get("encode", 0.0)}
        if error is not None:
            noted["error"] = str(error) or type(error).__name__
        self.ledger.finish_run(self.number, status, noted)
