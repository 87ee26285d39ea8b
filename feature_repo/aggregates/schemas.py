"""What ``aggregate`` writes: the columns of every view source."""

from __future__ import annotations

import pyarrow as pa

TIMESTAMP = pa.timestamp("us", tz="UTC")

_TEXTS = pa.list_(pa.string())
_COUNTS = {name: pa.int64() for name in ("impressions", "clicks", "long_clicks", "saves")}
_RATES = {"click_rate": pa.float32(), "save_rate": pa.float32()}

_COLUMNS: dict[str, dict[str, pa.DataType]] = {
    "pin_text": {
        "pin_id": pa.string(),
        "title": pa.string(),
        "description": pa.string(),
        "lang": pa.string(),
        "country": pa.string(),
        "created_at": TIMESTAMP,
        "image_sha256": pa.string(),
        "safe": pa.bool_(),
    },
    "pin_link_text": {
        "pin_id": pa.string(),
        "link_url": pa.string(),
        "link_title": pa.string(),
        "link_description": pa.string(),
    },
    "pin_captions": {"pin_id": pa.string(), "caption": pa.string(), "captioner": pa.string()},
    "pin_board_titles": {"pin_id": pa.string(), "board_titles": _TEXTS},
    "pin_engaged_queries": {"pin_id": pa.string(), "engaged_queries": _TEXTS},
    "pin_engagement": {"pin_id": pa.string(), **_COUNTS, **_RATES},
    "pin_relevance": {"pin_id": pa.string(), "tokens": pa.binary(), "lexical_version": pa.int64(), **_RATES},
    "query_stats": {
        "query": pa.string(),
        "searches": pa.int64(),
        "impressions": pa.int64(),
        "clicks": pa.int64(),
        "saves": pa.int64(),
        "users": pa.int64(),
        "lang": pa.string(),
        "band": pa.string(),
        "interests": _TEXTS,
        "interest_shares": pa.list_(pa.float32()),
    },
    "query_pin_engagement": {
        "query": pa.string(),
        "pin_id": pa.string(),
        **_COUNTS,
        "engagement_rate": pa.float32(),
        **_RATES,
    },
}

VIEW_SCHEMAS: dict[str, pa.Schema] = {
    view: pa.schema([*columns.items(), ("event_timestamp", TIMESTAMP), ("created_timestamp", TIMESTAMP)])
    for view, columns in _COLUMNS.items()
}
"""Schema of each view source. Join keys first, then features, then ``event_timestamp`` and ``created_timestamp``.

``created_timestamp`` equals ``event_timestamp``: a source has one row per key, and the same events give the same bytes.
"""

REPEATED = [
    *_COUNTS,
    *_RATES,
    *("lang", "country", "captioner", "lexical_version", "query", "searches", "users", "band", "engagement_rate"),
    *(f"{name}.list.element" for name in ("board_titles", "engaged_queries", "interests")),
]
"""Columns, by their paths in Parquet, in which it is worth while to look for repeated values."""
