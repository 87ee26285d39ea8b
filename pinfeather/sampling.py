"""A sample of the search log for labelling: options, the files that are written, and what may overwrite them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.erasures import Erasures, unless_erased
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.paths import RepoPaths
from materialize.files import write_json, write_parquet
from pinfeather.sampling_draw import SHOWN, UNSHOWN, Draw
from pinfeather.sampling_frame import Frame, LogFiles, Window, open_frame
from pinfeather.sampling_quota import DIMENSIONS, RULES
from pinfeather.sampling_rankers import SCORERS, Ranker

FORMAT = 1
Tell = Callable[[str], None]


@dataclass(frozen=True)
class SampleOptions:
    """What to draw.

    :raises UsageError: for numbers, rules or a name that cannot be.
    """

    count: int = 1_000
    seed: int = 0
    name: str | None = None
    """Default: the day, or the first and the last one."""
    first: date | None = None
    last: date | None = None
    unshown: float = 0.2
    """Share of pairs that were retrieved and not shown."""
    quotas: Mapping[str, str] = field(default_factory=dict)
    """Rule of a dimension; the square root for those not named."""
    scorer: str = "auto"
    min_users: int = 1
    retrieved: int = 50
    """Pins that a query is searched for."""

    def __post_init__(self) -> None:
        for option, value, least in (
            ("--count", self.count, 1),
            ("--seed", self.seed, 0),
            ("--min-users", self.min_users, 1),
            ("--retrieved", self.retrieved, 1),
        ):
            if value < least:
                raise UsageError(f"{option} is {value}: give {least} or more.")
        if not 0 <= self.unshown <= 1:
            raise UsageError(f"--unshown is {self.unshown}: give a share from 0 to 1.")
        if self.scorer not in SCORERS:
            raise UsageError(f"--scorer {self.scorer!r}: allowed are {', '.join(SCORERS)}.")
        for dimension, rule in self.quotas.items():
            if dimension not in DIMENSIONS or rule not in RULES:
                raise UsageError(
                    f"--quota {dimension}={rule}: allowed are {', '.join(DIMENSIONS)} with {', '.join(RULES)}, as in "
                    "lang=equal."
                )
        if self.name is not None:
            check_name(self.name)

    @property
    def rules(self) -> list[str]:
        """The rule of every dimension, in order."""
        return [self.quotas.get(dimension, "sqrt") for dimension in DIMENSIONS]

    def settings(self, window: Window) -> dict[str, Any]:
        """Everything that the options decide of a sample."""
        return {
            "from": window.first.isoformat(),
            "to": window.last.isoformat(),
            "count": self.count,
            "seed": self.seed,
            "unshown_share": self.unshown,
            "quotas": dict(zip(DIMENSIONS, self.rules, strict=True)),
            "scorer": self.scorer,
            "min_users": self.min_users,
            "retrieved": self.retrieved,
        }


def check_name(name: str) -> str:
    """A name of a sample.

    :raises UsageError: if it is no plain name.
    """
    if not name or Path(name).name != name or name.startswith("."):
        raise UsageError(f"A sample cannot be called {name!r}: give a plain name such as october.")
    return name


def sample(
    paths: RepoPaths,
    options: SampleOptions,
    ranker: Callable[[], AbstractContextManager[Ranker]],
    tell: Tell | None = None,
) -> dict[str, Any]:
    """Draw the sample and write ``samples/NAME.parquet`` and, last, ``NAME.json``; its facts.

    The same log, release and options give the same bytes, whatever the order of rows and files.

    :param ranker: opens who predicts levels and retrieves; called once the settings are known to be good.
    :raises UsageError: if another sample has the name, or the days are none.
    :raises PinfeatherError: without a log or a row of the days, if something was erased meanwhile, or if a sample of
        the same settings was drawn when log or release were others.
    """
    say = tell or (lambda words: None)
    files = LogFiles.of(paths)
    window = files.window(options.first, options.last)
    name = options.name or "_".join(dict.fromkeys((window.first.isoformat(), window.last.isoformat())))
    settings = options.settings(window)
    _refuse_others(paths, name, settings)
    erasures = Erasures.load(paths)
    say("the log")
    with open_frame(paths, files, window, options.seed, options.min_users, erasures) as frame:
        if not frame.size:
            raise PinfeatherError(
                f"No pair of the search log from {window.first} to {window.last} may be sampled: {_reasons(frame)}. "
                "Give other days, or look at the rows."
            )
        with ranker() as opened:
            draw = Draw(frame, opened, options.rules, options.retrieved, say)
            drawn = draw.all(options.count, options.unshown)
            note = {
                "format": FORMAT,
                "sample": name,
                **settings,
                "scored_by": opened.scorer,
                "scored_with": opened.model,
                "pairs": len(drawn.pairs),
                "queries": len(drawn.pairs["query"].unique()),
                SHOWN: sum(row["taken"] for row in drawn.strata),
                UNSHOWN: sum(row["taken"] for row in drawn.searched),
                "log_pairs": frame.size,
                "left_out": dict(sorted(frame.left_out.items())),
                "strata": drawn.strata,
                "searched": drawn.searched,
            }
    with unless_erased(paths, erasures):
        _write(paths, name, drawn.pairs, note)
    return {**note, "file": str(parquet_of(paths, name))}


def parquet_of(paths: RepoPaths, name: str) -> Path:
    """Where the pairs of a sample lie."""
    return paths.samples / f"{name}.parquet"


def sample_names(paths: RepoPaths) -> list[str]:
    """The samples that there are, by name."""
    return sorted(path.stem for path in paths.samples.glob("*.json") if parquet_of(paths, path.stem).is_file())


def _note_of(paths: RepoPaths, name: str) -> dict[str, Any] | None:
    path = paths.samples / f"{name}.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise PinfeatherError(
            f"{path} cannot be read ({error}): restore it, or delete it with its .parquet."
        ) from error


def _refuse_others(paths: RepoPaths, name: str, settings: dict[str, Any]) -> None:
    """Refuses to overwrite a sample of other settings."""
    note = _note_of(paths, name)
    if note is None:
        return
    others = [key for key, value in settings.items() if note.get(key) != value]
    if others:
        key = others[0]
        raise UsageError(
            f"There is a sample {name} already, with {key} {note.get(key)!r} and not {settings[key]!r}: give another "
            "--name. Labels may have been made of it, so it is not overwritten."
        )


def _write(paths: RepoPaths, name: str, pairs: pa.Table, note: dict[str, Any]) -> None:
    """Both files, the note last; a sample that is complete and the same stays as it is.

    :raises PinfeatherError: if it is complete and another.
    """
    target, old = parquet_of(paths, name), _note_of(paths, name)
    if old is not None and target.is_file():
        if old == note and pq.read_table(target).equals(pairs):
            return
        raise PinfeatherError(
            f"The sample {name} was drawn with the same settings when the log, the release or the erasures were "
            "others; it stays as it is. Give another --name."
        )
    write_parquet(target, pairs)
    write_json(paths.samples / f"{name}.json", note)


def _reasons(frame: Frame) -> str:
    return "; ".join(f"{rows:,} {why}" for why, rows in frame.left_out.most_common()) or "none was left out"
