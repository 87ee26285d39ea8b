"""Import of ESCI, Amazon's shopping queries data set (Reddy et al., arXiv 2206.06588): pins and judgments, no logs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.text import normalise
from pinfeather.importers.common import Form, PublicSet, Row, level_of, part, read_rows, write_set
from pinfeather.importers.markup import plain_text

LEVEL_OF: Mapping[str, int] = {"E": 5, "S": 4, "C": 2, "I": 1}
"""Five-level meaning of exact, substitute, complement, irrelevant, our choice; level 3 never occurs."""
LANGUAGES: Mapping[str, str] = {"us": "en", "es": "es", "jp": "ja"}
"""Language of each locale."""
SET = PublicSet("esci", "esci", "esci-2022", datetime(2022, 6, 14, tzinfo=UTC))
"""Its time is that of the paper."""

HELP = """\
Import ESCI, Amazon's shopping queries data set: difficult queries in three languages, products, graded by people.

PATH is the folder `shopping_queries_dataset` of https://github.com/amazon-science/esci-data (Apache 2.0 licence) with
shopping_queries_dataset_examples.parquet and shopping_queries_dataset_products.parquet. Every product of the locales
becomes a pin with its title, and its description and bullet points as description; every example a judgment. Exact
maps to level 5, Substitute to 4, Complement to 2, Irrelevant to 1 (our choice; no row has level 3). Brand, color, the
split into train and test and the reduced version of the set are left out.
"""

_EXAMPLES = ("shopping_queries_dataset_examples.parquet", "examples.parquet")
_PRODUCTS = ("shopping_queries_dataset_products.parquet", "products.parquet")
_WANTED = "the folder `shopping_queries_dataset` of https://github.com/amazon-science/esci-data"
_EXAMPLE_FORM = Form(
    {name: (name,) for name in ("query", "product_id", "product_locale", "esci_label")},
    f"{_EXAMPLES[0]}: query, product_id, product_locale, esci_label and others",
)
_PRODUCT_FORM = Form(
    {
        name: (name,)
        for name in ("product_id", "product_title", "product_description", "product_bullet_point", "product_locale")
    },
    f"{_PRODUCTS[0]}: product_id, product_title, product_description, product_bullet_point, product_locale",
)


def import_esci(path: Path, repo_raw: Path, locales: Sequence[str] = tuple(LANGUAGES)) -> dict[str, int]:
    """Write ``pins/esci.parquet`` and ``judgments/esci.parquet`` of these locales into ``repo_raw``.

    Importing again replaces the same two files. Rows are read in batches, so memory holds product ids and no texts.
    Gives ``pins``, ``judgments``, ``queries`` and ``skipped`` (products without any text, examples of empty queries and
    of products that are not there) back.

    :raises UsageError: for a locale that the set does not have.
    :raises PinfeatherError: if a file is missing, cannot be read, has no rows of these locales, lacks a column or has
        an unknown label; or if ``repo_raw`` holds another catalogue.
    """
    if unknown := sorted(set(locales) - set(LANGUAGES)) or (not locales and ["none"]):
        raise UsageError(f"Unknown locale {', '.join(unknown)}: the set has {', '.join(LANGUAGES)}.")
    products_path, examples_path = part(Path(path), _PRODUCTS, _WANTED), part(Path(path), _EXAMPLES, _WANTED)
    shown: set[str] = set()
    skipped = 0

    def pins() -> Iterator[Row]:
        nonlocal skipped
        for _, row in read_rows(products_path, _PRODUCT_FORM):
            if (locale := row["product_locale"]) not in locales:
                continue
            title = plain_text(row["product_title"])
            texts = (plain_text(row[name]) for name in ("product_description", "product_bullet_point"))
            description = " ".join(text for text in texts if text)
            pin_id = _pin_id(locale, row["product_id"])
            if pin_id in shown or not (title or description):
                skipped += 1
                continue
            shown.add(pin_id)
            yield SET.pin(pin_id, title, description, LANGUAGES[locale], locale.upper())

    def judgments() -> Iterator[Row]:
        nonlocal skipped
        for number, row in read_rows(examples_path, _EXAMPLE_FORM):
            if (locale := row["product_locale"]) not in locales:
                continue
            level = level_of(examples_path, number, "esci_label", row["esci_label"], LEVEL_OF)
            query, pin_id = normalise(row["query"]), _pin_id(locale, row["product_id"])
            if query and pin_id in shown:
                yield SET.judgment(query, pin_id, level, lang=LANGUAGES[locale])
            else:
                skipped += 1

    return {
        **write_set(SET, repo_raw, _some(pins(), products_path), _some(judgments(), examples_path)),
        "skipped": skipped,
    }


def _pin_id(locale: str, product: str) -> str:
    return f"esci-{locale}-{product}"


def _some(rows: Iterator[Row], path: Path) -> Iterator[Row]:
    """The same rows, of which there must be one."""
    row = None
    for row in rows:
        yield row
    if row is None:
        raise PinfeatherError(f"{path} has no row of these locales that can be used: name others with --locale.")
