"""Board titles: do all generic titles of an item rank below all its specific ones, and what does it cost.

Run from the checkout's root (three minutes on 2 cores):

    .venv/bin/python -m benchmarks.board_titles --data ../shared/data

Each catalogue of :mod:`benchmarks.board_title_data` goes through the aggregate's own code, with thirty planted generic
titles (``listed``: the packaged words hold them) and with nine that no list knows (``unlisted``). The alternatives
rank the same titles by counts without the cap on titles per user and pin. ``items``: share of items whose generic
titles all rank below every specific one; ``titles``: share of (item, generic title) that do; a tie is a failure. Items
without both kinds are no case.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.board_title_data import GENERIC, UNLISTED, Catalogue, books, movies
from benchmarks.machine import ROOT, machine, peak_mb, save
from feature_repo.aggregates import boards
from feature_repo.aggregates.session import Resources, Session, microseconds
from feature_repo.aggregates.titles import title_words
from feature_repo.columns import arrow_type
from feature_repo.contracts import CONTRACTS
from feature_repo.paths import RepoPaths
from feature_repo.screening import Purpose, Screening, guess_language
from feature_repo.text import normalise

DATA = ROOT.parent / "shared" / "data"
AS_OF = datetime(2026, 1, 1, tzinfo=UTC)
ALL_TITLES = 10**6
SHOWN = 10
VARIANTS: dict[str, dict[str, Any]] = {
    "ours": {},
    "ours without the word list": {"generic_words": None},
    "ours, prevalence of words only": {"title_weight": 0.0},
    "ours, prevalence of titles only": {"title_weight": 1.0},
}
Crowds = dict[str, dict[str, int]]
"""People by item and title key."""


@contextmanager
def opened(catalogue: Catalogue, copies: int = 1, **rules: object) -> Iterator[Session]:
    """A session over the catalogue as valid tables; ``rules`` become ``screening.yaml``."""
    import yaml

    with tempfile.TemporaryDirectory() as folder:
        paths = RepoPaths(Path(folder))
        paths.valid.mkdir(parents=True)
        if rules:
            (paths.root / "screening.yaml").write_text(yaml.safe_dump(rules))
        for name in ("pins", "board_saves", "search_log", "captions"):
            schema = pa.schema([(column.name, arrow_type(column.kind)) for column in CONTRACTS[name].columns])
            with pq.ParquetWriter(paths.valid / f"{name}.parquet", schema) as writer:
                for copy in range(copies):
                    writer.write_table(_rows(name, catalogue, copy, schema))
        with Session(paths, Resources()) as session:
            session.open_tables()
            session.cut_off(microseconds(AS_OF))
            yield session


def _rows(table: str, catalogue: Catalogue, copy: int, schema: pa.Schema) -> pa.Table:
    if table == "pins":
        items = dict.fromkeys(row.item for row in catalogue.saves)
        rows: list[dict[str, Any]] = [{"pin_id": f"{item}-{copy}", "event_timestamp": AS_OF} for item in items]
    elif table == "board_saves":
        rows = [
            {
                "board_id": f"{row.user}/{row.title}/{copy}",
                "board_title": row.title if copy == 0 else f"{row.title} {copy}",
                "pin_id": f"{row.item}-{copy}",
                "user_id": f"{row.user}-{copy}",
                "saved_at": datetime.fromtimestamp(row.at, UTC),
                "secret": False,
            }
            for row in catalogue.saves
        ]
    else:
        rows = []
    return pa.Table.from_pylist(rows, schema=schema)


def ranked_by_us(
    catalogue: Catalogue, min_users: int, title_weight: float = boards.TITLE_WEIGHT, **rules: object
) -> dict[str, list[str]]:
    """All title keys of every item, in the order that the aggregate gives them."""
    kept = boards.KEPT_TITLES, boards.TITLE_WEIGHT
    boards.KEPT_TITLES, boards.TITLE_WEIGHT = ALL_TITLES, title_weight
    try:
        with opened(catalogue, **rules) as session:
            boards.write_board_titles(session, min_users)
            rows = session.con.execute("SELECT pin_id, board_titles FROM board_titles").fetchall()
    finally:
        boards.KEPT_TITLES, boards.TITLE_WEIGHT = kept
    return {item.rpartition("-")[0]: [_key(title) for title in titles] for item, titles in rows}


def crowds_of(catalogue: Catalogue) -> Crowds:
    """What the alternatives count: the people of every title, merged and screened as ours are."""
    people: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    screening = Screening()
    refused = {row.title for row in catalogue.saves if screening.reason(normalise(row.title), Purpose.BOARD_TITLE)}
    for row in catalogue.saves:
        if row.title not in refused:
            people[row.item][_key(row.title)].add(row.user)
    return {item: {key: len(users) for key, users in titles.items()} for item, titles in people.items()}


def alternatives(crowds: Crowds) -> dict[str, Callable[[str, int], float]]:
    """Simple scores of (title key, people), lower is better."""
    items = len(crowds)
    with_word, with_title = Counter[str](), Counter[str]()
    for titles in crowds.values():
        with_word.update({word for key in titles for word in key.split()})
        with_title.update(titles.keys())
    logs = {word: math.log((count + 1) / (items + 1)) for word, count in with_word.items()}

    def mean(key: str) -> float:
        said = set(key.split())
        return sum(logs[word] for word in sorted(said)) / len(said)

    return {
        "most people first": lambda _, users: -users,
        "words: mean IDF": lambda key, _: mean(key),
        "words: highest IDF": lambda key, _: min(logs[word] for word in key.split()),
        "title: IDF": lambda key, _: math.log((with_title[key] + 1) / (items + 1)),
        "mean IDF and people (before)": lambda key, users: mean(key) - 0.5 * math.log(users),
    }


def judged(titles: dict[str, list[str]], score: Callable[[str, str], float], generic: set[str]) -> dict[str, float]:
    """The two shares over all items that have generic and specific titles."""
    items = good_items = all_titles = good_titles = 0
    for item, keys in titles.items():
        specific = [score(item, key) for key in keys if key not in generic]
        below = [score(item, key) for key in keys if key in generic]
        if specific and below:
            worst = max(specific)
            items += 1
            good_items += worst < min(below)
            all_titles += len(below)
            good_titles += sum(found > worst for found in below)
    return {"cases": items, "items": round(good_items / items, 4), "titles": round(good_titles / all_titles, 4)}


def compare(make: Callable[..., Catalogue], folder: Path) -> Iterator[dict[str, Any]]:
    """Every scorer on one catalogue, for both lists of generic titles and both thresholds."""
    for kind, planted in (("listed", GENERIC), ("unlisted", UNLISTED)):
        catalogue = make(folder, planted)
        generic = {_key(title) for title in planted}
        crowds = crowds_of(catalogue)
        for min_users in (1, 2):
            where = {"catalogue": make.__name__, "generic": kind, "min_users": min_users}
            for name, changes in VARIANTS.items():
                ranked = ranked_by_us(catalogue, min_users, **changes)
                places = {(item, key): place for item, keys in ranked.items() for place, key in enumerate(keys)}
                yield where | {"scorer": name} | judged(ranked, lambda *pair, places=places: places[pair], generic)
            known = {item: {k: n for k, n in titles.items() if n >= min_users} for item, titles in crowds.items()}
            for name, score in alternatives(crowds).items():
                found = judged(
                    {item: list(titles) for item, titles in known.items()},
                    lambda item, key, score=score, known=known: score(key, known[item][key]),
                    generic,
                )
                yield where | {"scorer": name} | found


def shown(catalogue: Catalogue, min_users: int, items: int) -> dict[str, list[str]]:
    """The titles that are served for items spread over the catalogue, those with five titles or more."""
    with opened(catalogue) as session:
        boards.write_board_titles(session, min_users)
        rows = session.con.execute("SELECT pin_id, board_titles FROM board_titles ORDER BY pin_id").fetchall()
    full = [(item.rpartition("-")[0], titles) for item, titles in rows if len(titles) >= 5]
    return {catalogue.names[item]: titles for item, titles in full[:: len(full) // items][:items]}


def throughput(catalogue: Catalogue, copies: int) -> dict[str, Any]:
    """Rows a second of the whole stage; the copies share no title, pin or person, so distinct titles grow too."""
    with opened(catalogue, copies) as session:
        started = time.perf_counter()
        boards.write_board_titles(session, 2)
        seconds = time.perf_counter() - started
    rows = copies * len(catalogue.saves)
    distinct = copies * len({row.title for row in catalogue.saves})
    return {"saves": rows, "distinct_titles": distinct, "saves_per_s": round(rows / seconds), "peak_mb": peak_mb()}


def screening_rates(data: Path) -> dict[str, Any]:
    """Texts a second through the rules (processor time), and guesses of the language of captions people wrote."""
    screening, found = Screening(), {}
    sources = {
        "board title": ("goodbooks_shelves/tags.parquet", "tag_name", Purpose.BOARD_TITLE),
        "query": ("sogou_queries/query_counts.parquet", "query", Purpose.QUERY),
        "link text": ("homedepot/dev_pairs.parquet", "title", Purpose.LINK),
    }
    for name, (file, column, purpose) in sources.items():
        texts = [text for text in dict.fromkeys(pq.read_table(data / file)[column].to_pylist()) if text][:60_000]
        started = time.process_time()
        reasons = Counter(screening.reason(normalise(text), purpose) for text in texts)
        seconds = time.process_time() - started
        counts = {str(reason): count for reason, count in reasons.most_common() if reason}
        found[name] = {"texts": len(texts), "texts_per_cpu_s": round(len(texts) / seconds), "refused": counts}
    guesses = {}
    table = pq.read_table(data / "multi30k" / "task1_translations.parquet")
    captions = {lang: table[lang].to_pylist()[:5_000] for lang in ("en", "de", "fr", "cs")}
    rows = pq.read_table(data / "flickr8k_captions" / "captions.parquet", columns=["lang", "caption"]).to_pylist()
    captions["zh"] = [row["caption"] for row in rows if row["lang"] == "zh"][:5_000]
    for lang, texts in captions.items():
        said = Counter(guess_language(normalise(text)) for text in texts)
        guesses[lang] = {
            "texts": len(texts),
            "right": round(said[lang] / len(texts), 4),
            "no_guess": round(said[None] / len(texts), 4),
            "wrong": round(1 - (said[lang] + said[None]) / len(texts), 4),
        }
    return {"screening": found, "languages": guesses}


def _key(title: str) -> str:
    return " ".join(title_words(title))


def main() -> None:
    """Measure, print tables in Markdown, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--copies", type=int, default=20, help="copies of the books for the throughput")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    report = machine("board_titles", ("duckdb", "pyarrow", "regex"))
    folders = ((movies, options.data / "ml_latest_small"), (books, options.data / "goodbooks_shelves"))
    rows = [row for make, folder in folders for row in compare(make, folder)]
    columns = ["catalogue", "generic", "min_users", "scorer", "cases", "items", "titles"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(str(row[name]) for name in columns)} |")
    movie_saves, book_saves = (make(folder) for make, folder in folders)
    examples = {"movies": shown(movie_saves, 1, SHOWN), "books": shown(book_saves, 2, SHOWN)}
    for name, titles in (pair for part in examples.values() for pair in part.items()):
        print(f"* **{name}**: {' · '.join(titles)}")
    speed = throughput(book_saves, options.copies)
    measured = screening_rates(options.data)
    print(speed, measured)
    save("board_titles", report | {"ranking": rows, "examples": examples, "throughput": speed} | measured, options.out)


if __name__ == "__main__":
    main()
