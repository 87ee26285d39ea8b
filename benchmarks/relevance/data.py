"""The judged sets of the tables, and the one split of each: fold 0 judges, the rest trains.

The same split for every table, teacher and student (:mod:`benchmarks.relevance.folds` takes the other folds in turn);
queries of the two sides share no words in another order or number (:func:`embedders.evaluation.folds.query_folds`). The
sets are not part of Pinfeather; ``../shared/data`` beside the checkout holds them, or the folder that
``PINFEATHER_SHARED_DATA`` names. What else is held out of them was never here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import ROOT
from embedders.evaluation.folds import query_folds, query_groups
from embedders.evaluation.metrics import Floats
from embedders.evaluation.pairs import PairSet
from embedders.student_training import together
from embedders.targets import soft_targets
from feature_repo.errors import PinfeatherError
from feature_repo.pin_text import PinFields
from feature_repo.text import normalise

if TYPE_CHECKING:
    import pyarrow as pa

FOLDS, SEED, JUDGE_FOLD = 5, 0, 0
SETS = ("crowdflower", "homedepot")


def folder() -> Path:
    """Where the public sets lie."""
    return Path(os.environ.get("PINFEATHER_SHARED_DATA") or ROOT.parent / "shared" / "data")


def load(name: str) -> PairSet:
    """All pairs of one of :data:`SETS` with their levels, in file order; equal products are one pin.

    :raises PinfeatherError: for another name, or if the file is not there.
    """
    readers: dict[str, Callable[[], PairSet]] = {"crowdflower": _crowdflower, "homedepot": _homedepot}
    if name not in readers:
        raise PinfeatherError(f"There is no set {name!r}: allowed are {', '.join(SETS)}.")
    return readers[name]()


def split(name: str, fold: int = JUDGE_FOLD) -> tuple[PairSet, PairSet]:
    """(train, judge) of one of :data:`SETS`: query-disjoint, the same on every machine.

    :raises PinfeatherError: as :func:`load`.
    """
    pairs = load(name)
    judges = query_folds(pairs.queries, FOLDS, SEED) == fold
    return pairs.subset(~judges), pairs.subset(judges)


def may_train(query: str, fold: int = JUDGE_FOLD) -> bool:
    """Whether a query that is in neither set would be on the training side."""
    return bool(query_folds([query], FOLDS, SEED)[0] != fold)


def of_queries(pairs: PairSet, size: int, seed: int = 0) -> PairSet:
    """About ``size`` pairs, see :func:`rows_of_queries`."""
    return pairs.subset(rows_of_queries(pairs.queries, size, seed))


def rows_of_queries(queries: Sequence[str], size: int, seed: int = 0) -> NDArray[np.bool_]:
    """[n] which rows to take for about ``size``: whole queries in a seeded order until the next one would not fit.

    A smaller sample is part of each larger one of the same seed.
    """
    names, groups = query_groups(queries)
    order = np.random.default_rng(seed).permutation(len(names))
    total = np.cumsum(np.bincount(groups, minlength=len(names))[order])
    taken = order[: max(1, int(np.searchsorted(total, size, "right")))]
    return np.isin(groups, taken)


def joined(name: str, *parts: PairSet) -> PairSet:
    """The pairs of all ``parts`` under one name, with their targets."""
    return together(name, *parts)


def _crowdflower() -> PairSet:
    table = _table("crowdflower")
    # what the set calls variance is the raters' standard deviation, on a scale of four levels
    deviations = np.array(table.column("relevance_variance").to_pylist(), np.float64)
    return _pairs("crowdflower", table, "description_text", variances=(4 / 3 * deviations) ** 2)


def _homedepot() -> PairSet:
    table = _table("homedepot")
    relevance = np.array(table.column("relevance").to_pylist(), np.float64)
    return _pairs("homedepot", table, None, means=2 * relevance - 1)


def _table(name: str) -> pa.Table:
    import pyarrow.parquet

    path = folder() / name / "dev_pairs.parquet"
    if not path.is_file():
        raise PinfeatherError(f"{path} is not there: put the set beside the checkout, or set PINFEATHER_SHARED_DATA.")
    return pyarrow.parquet.read_table(path)


def _pairs(
    name: str,
    table: pa.Table,
    description: str | None,
    means: Floats | None = None,
    variances: Floats | None = None,
) -> PairSet:
    """Pairs of a table, their targets made of what its raters said."""
    titles = table.column("title").to_pylist()
    descriptions = table.column(description).to_pylist() if description else [None] * table.num_rows
    pins = [
        PinFields(title=normalise(title) or None, description=normalise(text) or None)
        for title, text in zip(titles, descriptions, strict=True)
    ]
    queries = [normalise(query) for query in table.column("query").to_pylist()]
    levels = np.array(table.column("level5").to_pylist(), np.int64)
    pairs = PairSet.from_rows(name, queries, pins, levels, source=name)
    return replace(pairs, targets=soft_targets(levels, means, variances))
