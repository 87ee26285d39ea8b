"""Import of the CrowdFlower "Search Results Relevance" set (Kaggle, 2015): pins and judgments, no logs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import xxhash

from feature_repo.errors import PinfeatherError
from feature_repo.text import normalise
from pinfeather.importers.common import Form, PublicSet, Row, level_of, read_rows, write_set
from pinfeather.importers.markup import plain_text

LEVEL_OF: Mapping[float, int] = {1: 1, 2: 2, 3: 4, 4: 5}
"""Five-level meaning of the set's median relevance; the set has no middle, so level 3 never occurs."""
SET = PublicSet("crowdflower", "crowdflower-median", "crowdflower-2015", datetime(2015, 5, 11, tzinfo=UTC))
"""Its time is the start of the competition."""

HELP = """\
Import the CrowdFlower "Search Results Relevance" set: real shopping queries, products, graded by people.

PATH is the set as published (train.csv, or train.csv.zip, of the Kaggle competition of 2015,
https://www.kaggle.com/c/crowdflower-search-relevance/data; columns id, query, product_title, product_description,
median_relevance, relevance_variance) or a Parquet file with query, title, description_text, median_relevance and
relevance_variance. The set is not part of Pinfeather and is used under the rules of the competition: check them before
you pass it on.

Each distinct (title, description) becomes a pin, each row a judgment. Labels are medians of at least three raters,
1 (irrelevant) to 4 (perfect), and map to five levels as 1 to 1, 2 to 2, 3 to 4, 4 to 5; no row has level 3. What the
set calls relevance_variance is the standard deviation of the raters: its square becomes level_variance, stretched to
the scale of five levels. Markup in descriptions is removed.
"""

_STRETCH = 4 / 3
"""Steps of 1 to 5 for one step of 1 to 4."""
_FORM = Form(
    {
        "query": ("query",),
        "title": ("product_title", "title"),
        "description": ("product_description", "description_text", "description_raw", "description"),
        "relevance": ("median_relevance",),
        "deviation": ("relevance_variance",),
    },
    "the competition's labelled train.csv: id, query, product_title, product_description, median_relevance, "
    "relevance_variance (10,158 rows; test.csv has no labels)",
)


def import_crowdflower(path: Path, repo_raw: Path) -> dict[str, int]:
    """Write ``pins/crowdflower.parquet`` and ``judgments/crowdflower.parquet`` into ``repo_raw``.

    Importing twice replaces the same two files. Gives ``pins``, ``judgments``, ``queries`` and ``skipped`` (rows
    without query or without any text) back.

    :raises PinfeatherError: if the file cannot be read, has no rows, lacks a column or has an unknown relevance; or
        if ``repo_raw`` holds another catalogue.
    """
    path, skipped = Path(path), 0
    pins: dict[str, Row] = {}
    judgments: list[Row] = []
    for number, row in read_rows(path, _FORM):
        query, title, description = normalise(row["query"]), plain_text(row["title"]), plain_text(row["description"])
        level = level_of(path, number, "median_relevance", row["relevance"], LEVEL_OF)
        if not query or not (title or description):
            skipped += 1
            continue
        pin_id = "cf-" + xxhash.xxh3_64_hexdigest(f"{title}\x1f{description}".encode())
        pins.setdefault(pin_id, SET.pin(pin_id, title, description))
        judgments.append(SET.judgment(query, pin_id, level, variance=_variance(path, number, row["deviation"])))
    return {**write_set(SET, repo_raw, pins.values(), judgments), "skipped": skipped}


def _variance(path: Path, number: int, value: Any) -> float | None:
    """Variance of the raters on the scale of 1 to 5; None where the cell is empty."""
    if value is None or value == "":
        return None
    try:
        deviation = float(value)
    except ValueError:
        deviation = -1.0
    if not 0 <= deviation <= 3:
        raise PinfeatherError(
            f"{path}, row {number}: relevance_variance {value!r} is no number from 0 to 3. Is this the published file?"
        )
    return (_STRETCH * deviation) ** 2
