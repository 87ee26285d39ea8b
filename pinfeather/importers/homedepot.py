"""Import of the Home Depot "Product Search Relevance" set (Kaggle, 2016): pins and judgments, no logs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from feature_repo.errors import PinfeatherError
from feature_repo.text import normalise
from pinfeather.importers.common import Form, PublicSet, Row, read_rows, write_set
from pinfeather.importers.markup import plain_text

SET = PublicSet("homedepot", "homedepot-mean", "homedepot-2016", datetime(2016, 1, 18, tzinfo=UTC))
"""Its time is the start of the competition."""
BOUNDS = ((1.3, 1), (1.7, 2), (2.3, 3), (2.7, 4), (3.0, 5))
"""Highest mean relevance of each level: thirds fall to 1 | 1.33, 1.67 | 2 | 2.33, 2.67 | 3."""

HELP = """\
Import the Home Depot "Product Search Relevance" set: what shoppers typed at a home-improvement shop, graded by people.

PATH is the set as published (train.csv, or train.csv.zip, of the Kaggle competition of 2016,
https://www.kaggle.com/c/home-depot-product-search-relevance/data; columns id, product_uid, product_title, search_term,
relevance), or a Parquet file with query, item_id, title and relevance. Where product_descriptions.csv (or .csv.zip)
lies beside it, pins get their descriptions; without it they have a title only. The set is not part of Pinfeather and
is used under the rules of the competition: check them before you pass it on.

Each product becomes a pin, each row a judgment. Labels are means of about three raters, 1 (irrelevant) to 3 (perfect),
and map to five levels as up to 1.3 to 1, up to 1.7 to 2, up to 2.3 to 3, up to 2.7 to 4, else 5; the mean itself,
stretched to 1 to 5, is kept as level_mean.
"""

_FORM = Form(
    {
        "query": ("search_term", "query"),
        "product": ("product_uid", "item_id"),
        "title": ("product_title", "title"),
        "relevance": ("relevance",),
    },
    "the competition's labelled train.csv: id, product_uid, product_title, search_term, relevance (74,067 rows; "
    "test.csv has no labels)",
)
_DESCRIPTIONS = Form(
    {"product": ("product_uid",), "description": ("product_description",)},
    "the competition's product_descriptions.csv: product_uid, product_description",
    member="product_descriptions.csv",
)


def import_homedepot(path: Path, repo_raw: Path) -> dict[str, int]:
    """Write ``pins/homedepot.parquet`` and ``judgments/homedepot.parquet`` into ``repo_raw``.

    Importing twice replaces the same two files. Gives ``pins``, ``judgments``, ``queries``, ``skipped`` (rows without
    query, product or any text) and ``described`` (pins with a description) back.

    :raises PinfeatherError: if a file cannot be read, has no rows, lacks a column or has an unknown relevance; or if
        ``repo_raw`` holds another catalogue.
    """
    path, skipped = Path(path), 0
    texts = _descriptions(path.parent)
    pins: dict[str, Row] = {}
    judgments: list[Row] = []
    for number, row in read_rows(path, _FORM):
        query, title, product = normalise(row["query"]), plain_text(row["title"]), normalise(str(row["product"] or ""))
        relevance = _relevance(path, number, row["relevance"])
        description = texts.get(product, "")
        if not query or not product or not (title or description):
            skipped += 1
            continue
        pin_id = f"hd-{product}"
        pins.setdefault(pin_id, SET.pin(pin_id, title, description))
        judgments.append(SET.judgment(query, pin_id, level(relevance), mean=2 * relevance - 1))
    described = sum(pin["description"] is not None for pin in pins.values())
    return {**write_set(SET, repo_raw, pins.values(), judgments), "skipped": skipped, "described": described}


def level(relevance: float) -> int:
    """The level of a mean relevance from 1 to 3, by :data:`BOUNDS`."""
    return next(number for highest, number in BOUNDS if relevance <= highest)


def _relevance(path: Path, number: int, value: Any) -> float:
    try:
        relevance = float(value)
    except (TypeError, ValueError):
        relevance = 0.0
    if not 1 <= relevance <= 3:
        raise PinfeatherError(
            f"{path}, row {number}: relevance {value!r} is no number from 1 to 3. Is this the published file?"
        )
    return relevance


def _descriptions(folder: Path) -> dict[str, str]:
    """Description of each product, where the file is there."""
    for name in ("product_descriptions.csv", "product_descriptions.csv.zip"):
        if (folder / name).is_file():
            rows = read_rows(folder / name, _DESCRIPTIONS)
            return {normalise(str(row["product"] or "")): plain_text(row["description"]) for _, row in rows}
    return {}
