"""Valid tables of a small past world, written as `validate` writes them."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.columns import arrow_type
from feature_repo.contracts import CONTRACTS
from feature_repo.history.grid import DAY

START = datetime(2026, 3, 1, tzinfo=UTC)


def at(days=0.0, microseconds=0):
    """A time ``days`` after the first of March 2026, midnight UTC."""
    return START + timedelta(days=days, microseconds=microseconds)


def micros(moment):
    """Microseconds since 1970."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def put(paths, **tables):
    """Writes valid tables; columns that a row leaves out are null, tables that are left out are empty."""
    paths.valid.mkdir(parents=True, exist_ok=True)
    for name, contract in CONTRACTS.items():
        schema = pa.schema([(column.name, arrow_type(column.kind)) for column in contract.columns])
        pq.write_table(pa.Table.from_pylist(tables.get(name, []), schema=schema), paths.valid / f"{name}.parquet")


def pin(name, when=-30, title=None, **more):
    """A pin that was made, and last edited, at ``when``."""
    row = {"pin_id": name, "title": title or f"title of {name}", "created_at": at(when), "event_timestamp": at(when)}
    return row | more


def save(pin_id, title, user, when, **more):
    """A save to a board of the user's own."""
    row = {"board_id": f"{user}/{title}", "board_title": title, "pin_id": pin_id, "user_id": user, "saved_at": at(when)}
    return row | {"secret": False} | more


def event(query, pin_id, user, when, action="impression", request=None, **more):
    """A row of the search log."""
    moment = when if isinstance(when, datetime) else at(when)
    row = {"request_id": request or f"{user}/{query}/{moment}", "query": query, "user_id": user, "pin_id": pin_id}
    return row | {"action": action, "event_timestamp": moment} | more


def visit(query, pin_id, user, when, *actions, **more):
    """An impression and what followed, seconds apart, all of one request."""
    moment = when if isinstance(when, datetime) else at(when)
    rows = enumerate(("impression", *actions))
    request = f"{user}/{query}/{moment}"
    return [
        event(query, pin_id, user, moment + timedelta(seconds=number), action, request, **more)
        for number, action in rows
    ]


def caption(image, text, when, captioner="blip"):
    """A caption of an image."""
    return {"image_sha256": image, "captioner": captioner, "caption": text, "event_timestamp": at(when)}


__all__ = ["DAY", "START", "at", "caption", "event", "micros", "pin", "put", "save", "visit"]
