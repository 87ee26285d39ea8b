"""Import of WANDS, the Wayfair annotation data set (Chen et al., ECIR 2022): pins and judgments, no logs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from feature_repo.errors import PinfeatherError
from feature_repo.text import normalise
from pinfeather.importers.common import Form, PublicSet, Row, level_of, part, read_rows, write_set
from pinfeather.importers.markup import plain_text

LEVEL_OF: Mapping[str, int] = {"Exact": 5, "Partial": 3, "Irrelevant": 1}
"""Five-level meaning of the set's three labels, our choice; levels 2 and 4 never occur."""
SET = PublicSet("wands", "wands", "wands-2022", datetime(2022, 4, 10, tzinfo=UTC))
"""Its time is that of the conference."""
FILES = ("query.csv", "product.csv", "label.csv")

HELP = """\
Import WANDS, Wayfair's annotation data set: queries of a furniture shop, products, graded by people.

PATH is the folder `dataset` of https://github.com/wayfair/WANDS (MIT licence) with query.csv, product.csv and
label.csv, which are separated by tabs. Every product becomes a pin with its name and description, every label a
judgment. Exact maps to level 5, Partial to 3, Irrelevant to 1 (our choice). Classes, features and ratings of the
products are left out.
"""

_WANTED = "the folder `dataset` of https://github.com/wayfair/WANDS with " + ", ".join(FILES)
_QUERIES = Form({"id": ("query_id",), "query": ("query",)}, "query.csv: query_id, query, query_class", delimiter="\t")
_PRODUCTS = Form(
    {"id": ("product_id",), "title": ("product_name",), "description": ("product_description",)},
    "product.csv: product_id, product_name, product_description and others",
    delimiter="\t",
)
_LABELS = Form(
    {"query": ("query_id",), "product": ("product_id",), "label": ("label",)},
    "label.csv: id, query_id, product_id, label",
    delimiter="\t",
)


def import_wands(path: Path, repo_raw: Path) -> dict[str, int]:
    """Write ``pins/wands.parquet`` and ``judgments/wands.parquet`` into ``repo_raw``.

    Importing twice replaces the same two files. Gives ``pins``, ``judgments``, ``queries`` and ``skipped`` (products
    without any text, labels of empty queries and of skipped products) back.

    :raises PinfeatherError: if a file is missing, cannot be read, has no rows, lacks a column or has an unknown label;
        if a label names a query or product that is not there; or if ``repo_raw`` holds another catalogue.
    """
    queries_path, products_path, labels_path = (part(Path(path), (name,), _WANTED) for name in FILES)
    queries = {row["id"]: normalise(row["query"]) for _, row in read_rows(queries_path, _QUERIES)}
    shown: dict[str, bool] = {}
    skipped = 0

    def pins() -> Iterator[Row]:
        nonlocal skipped
        for _, row in read_rows(products_path, _PRODUCTS):
            title, description = plain_text(row["title"]), plain_text(row["description"])
            again = row["id"] in shown
            shown.setdefault(row["id"], bool(title or description))
            if again or not shown[row["id"]]:
                skipped += 1
                continue
            yield SET.pin(f"wands-{row['id']}", title, description)

    def judgments() -> Iterator[Row]:
        nonlocal skipped
        for number, row in read_rows(labels_path, _LABELS):
            level = level_of(labels_path, number, "label", row["label"], LEVEL_OF)
            if row["query"] not in queries or row["product"] not in shown:
                raise PinfeatherError(
                    f"{labels_path}, row {number}: query {row['query']!r} or product {row['product']!r} is not in "
                    f"{FILES[0]} and {FILES[1]} beside it. Expected {_WANTED}."
                )
            if queries[row["query"]] and shown[row["product"]]:
                yield SET.judgment(queries[row["query"]], f"wands-{row['product']}", level)
            else:
                skipped += 1

    counts = write_set(SET, repo_raw, pins(), judgments())
    return {**counts, "skipped": skipped}
