"""A training set of ``pinfeather train examples`` as pairs: levels or a teacher's labels with features as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from embedders.evaluation.metrics import LEVELS
from embedders.evaluation.pairs import PairSet
from feature_repo.errors import PinfeatherError
from feature_repo.pin_text import PinFields
from materialize.sources import TEXT_COLUMNS

MARK = "pin_text_fingerprint"
"""A column that training sets have and other files have not."""
_RATES = ("pin_relevance__click_rate", "pin_relevance__save_rate")


def is_training_set(path: Path) -> bool:
    """Whether ``path`` is a Parquet file that `pinfeather train examples` wrote."""
    try:
        return path.suffix == ".parquet" and MARK in pq.read_schema(path).names
    except (OSError, pa.ArrowException):
        return False  # said with its reason when it is read


def example_pairs(path: Path) -> PairSet:
    """Pairs with pin texts, word statistics' tokens and rates of the time of each label.

    Rows whose pin or text was not known then are left out. Judgments give levels, a teacher's labels give targets and
    the weights of their sample. A pin counts once for each state in which it was.

    :raises PinfeatherError: for a set of clicks or saves, which are no levels, or if no row is left.
    """
    table = pq.read_table(path)
    table = table.filter(pc.is_valid(table["pin_text"]))
    probabilities = [f"probability_{level}" for level in range(1, LEVELS + 1)]
    taught = set(probabilities) <= set(table.column_names)
    if not taught and "level" not in table.column_names:
        raise PinfeatherError(
            f"{path} has labels of the log, and students learn levels: make the set of judgments, or of a teacher's "
            "labels (`pinfeather train examples --from-teacher NAME`)."
        )
    if not taught:
        table = table.filter(pc.is_valid(table["level"]))
    if not table.num_rows:
        raise PinfeatherError(
            f"No row of {path} has a level and a pin text that was known at the time of its label: make it of labels "
            "from when their pins were in the catalogue."
        )
    named = {name: f"{view}__{feature}" for name, (view, feature) in TEXT_COLUMNS.items()}
    texts = table.select(list(named.values())).rename_columns(list(named)).to_pylist()
    fields = [PinFields.from_row(row) for row in texts]
    tokens = table["pin_relevance__tokens"].to_pylist()
    rates = np.array([table[name].to_pylist() for name in _RATES], np.float64)  # None becomes NaN
    states = list(zip(fields, tokens, *(map(repr, rate) for rate in rates), strict=True))
    numbers = {state: number for number, state in enumerate(dict.fromkeys(states))}
    pin_of = np.array([numbers[state] for state in states], np.int64)
    first = np.unique(pin_of, return_index=True)[1]
    targets = np.column_stack([table[name].to_numpy() for name in probabilities]).astype(np.float64) if taught else None
    return PairSet(
        path.stem,
        tuple(table["query"].to_pylist()),
        tuple(state[0] for state in numbers),
        pin_of,
        levels=None if taught else table["level"].to_numpy().astype(np.int64),
        blobs=tuple(state[1] for state in numbers),
        click_rate=rates[0][first],
        save_rate=rates[1][first],
        source=path.name,
        targets=None if targets is None else targets / targets.sum(axis=1, keepdims=True),
        weights=table["weight"].to_numpy().astype(np.float64) if "weight" in table.column_names else None,
    )
