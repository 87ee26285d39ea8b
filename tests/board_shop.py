"""Pins and saves of boards, and the views that are made of them."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.aggregates import boards, links
from feature_repo.aggregates.session import Resources, Session, microseconds
from feature_repo.columns import arrow_type
from feature_repo.contracts import CONTRACTS

AS_OF = datetime(2026, 1, 1, tzinfo=UTC)


def at(days):
    return AS_OF + timedelta(days=days)


def pin(name="p", days=-50, **more):
    return {"pin_id": name, "event_timestamp": at(days), **more}


def save(title, user, pin_id="p", days=-10, board=None, secret=False, removed=None):
    return {
        "board_id": board or f"{user}/{title}",
        "board_title": title,
        "pin_id": pin_id,
        "user_id": user,
        "saved_at": at(days),
        "removed_at": None if removed is None else at(removed),
        "secret": secret,
    }


def crowd(title, people=2, pin_id="p"):
    """Saves by people who save this title only."""
    return [save(title, f"{title}-{number}", pin_id) for number in range(people)]


def run(paths, pins, saves=(), min_users=1, threads=2):
    """Titles by pin, rows of both views, and what was left out."""
    paths.valid.mkdir(parents=True, exist_ok=True)
    for name, rows in {"pins": pins, "board_saves": saves, "search_log": [], "captions": []}.items():
        schema = pa.schema([(column.name, arrow_type(column.kind)) for column in CONTRACTS[name].columns])
        pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), paths.valid / f"{name}.parquet")
    with Session(paths, Resources(threads=threads)) as session:
        session.open_tables()
        session.cut_off(microseconds(AS_OF))
        boards.write_board_titles(session, min_users)
        links.write_link_text(session)
        session.commit()
        screened = {table: Counter(reasons) for table, reasons in session.screened.items()}
    found = {
        view: pq.read_table(paths.views / f"{view}.parquet").to_pylist()
        for view in ("pin_board_titles", "pin_link_text")
    }
    return {row["pin_id"]: row["board_titles"] for row in found["pin_board_titles"]}, found, screened


def titles_of(paths, saves, **more):
    found, _, screened = run(paths, [pin()], saves, **more)
    return found["p"], screened.get("board_saves", Counter())
