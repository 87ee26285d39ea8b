"""Write two small tables, apply the definitions, materialize, read and search.

Run it: ``python examples/feast_online_store/run.py`` (about 10 seconds, most of them the import of Feast).
"""

# ruff: noqa: T201 (it is there to print)
from __future__ import annotations

import logging
import os
import warnings
from contextlib import redirect_stdout
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd

HERE = Path(__file__).resolve().parent
NOW = datetime(2026, 11, 1, tzinfo=UTC)
SEA_AND_CRIME = [0.7, 0.7, 0.0, 0.0]
BOOKS = [  # isbn, title, language, taste (how much of sea, crime, love and science), blurb
    ("9780000000011", "The Whale Road", "en", [1.0, 0.0, 0.2, 0.1], "A captain hunts one whale across two oceans."),
    ("9780000000028", "Harbour of Knives", "en", [0.6, 0.9, 0.0, 0.0], "A murder on the quay, and nobody saw it."),
    ("9780000000035", "Salt Letters", "en", [0.7, 0.0, 0.9, 0.0], "Two lighthouse keepers write to each other."),
    ("9780000000042", "The Ninth Planet", "en", [0.0, 0.1, 0.1, 1.0], "An astronomer counts what cannot be seen."),
    ("9780000000059", "Le Quai des brumes froides", "fr", [0.5, 1.0, 0.1, 0.0], "Un meurtre sur le quai, en hiver."),
    ("9780000000066", "Reef Biology for Lovers", "en", [0.8, 0.0, 0.5, 0.8], "A whale of a textbook, and a wedding."),
]


def write_tables() -> None:
    """The two batch sources of ``definitions.py``."""
    (HERE / "data").mkdir(exist_ok=True)
    isbn, title, language, taste, blurb = zip(*BOOKS, strict=True)
    times = [NOW - timedelta(hours=hour) for hour in range(len(BOOKS))]
    sales = {"isbn": isbn, "sold_last_week": [40, 7, 12, 3, 5, 1], "rating": [4.5, 3.9, 4.8, 4.1, 4.0, 3.2]}
    blurbs = {"isbn": isbn, "title": title, "blurb": blurb, "language": language, "taste": taste}
    pd.DataFrame({**sales, "event_timestamp": times}).to_parquet(HERE / "data" / "sales.parquet")
    pd.DataFrame({**blurbs, "event_timestamp": times}).to_parquet(HERE / "data" / "blurbs.parquet")


def show(heading: str, answer: dict[str, list[Any]], *columns: str, by: str | None = None) -> None:
    """Print some columns of what Feast answered, best first by ``distance`` or ``text_rank``."""
    rows = list(zip(*(answer[column] for column in columns), strict=True))
    if by:
        rows.sort(key=lambda row: row[columns.index(by)], reverse=by == "text_rank")
    print(f"\n{heading}")
    for row in rows:
        print(
            "".join(
                f"  {x:<26}" if isinstance(x, str) else f"{x:>8.3f}" if type(x) is float else f"{x!s:>8}" for x in row
            )
        )


def main() -> None:
    """All of it."""
    os.environ.setdefault("FEAST_USAGE", "False")
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    from definitions import book, book_blurb, book_sales
    from feast import FeatureStore
    from feast.filter_models import ComparisonFilter

    write_tables()
    store = FeatureStore(repo_path=str(HERE))
    store.apply([book, book_sales, book_blurb])
    with redirect_stdout(StringIO()):  # Feast's progress bars
        store.materialize(NOW - timedelta(days=1), NOW + timedelta(days=1))

    sales = ["book_sales:sold_last_week", "book_sales:rating", "book_blurb:title"]
    read = store.get_online_features(sales, [{"isbn": isbn} for isbn in ("9780000000011", "9780000000035", "none")])
    show("Features of three keys, one of them unknown:", read.to_dict(), "isbn", "title", "sold_last_week", "rating")

    documents = ["book_blurb:title", "book_blurb:language"]
    answer = store.retrieve_online_documents_v2(documents, top_k=3, query=SEA_AND_CRIME)
    show("Nearest to sea and crime:", answer.to_dict(), "title", "distance", by="distance")

    english = ComparisonFilter(type="eq", key="language", value="en")
    answer = store.retrieve_online_documents_v2(documents, top_k=3, query=SEA_AND_CRIME, filters=english)
    show("The same, in English only:", answer.to_dict(), "title", "distance", by="distance")

    answer = store.retrieve_online_documents_v2(documents, top_k=3, query_string="whale")
    show("With the word whale:", answer.to_dict(), "title", "text_rank", by="text_rank")

    answer = store.retrieve_online_documents_v2(documents, top_k=3, query=SEA_AND_CRIME, query_string="whale")
    show("Both at once:", answer.to_dict(), "title", "distance", "text_rank", by="distance")


if __name__ == "__main__":
    main()
