"""View ``query_stats``: How often a query is searched, in which language, its popularity band and its topics."""

from __future__ import annotations

from pathlib import Path

from feast import FeatureView, Field
from feast.types import Array, Float32, Int64, String

from feature_repo.entities import query
from feature_repo.views.common import OWNER, parquet_source, tags


def query_stats(sources: Path) -> FeatureView:
    """The view over ``sources/query_stats.parquet``."""
    description = "How often a query is searched, in which language, its popularity band and its topics."
    return FeatureView(
        name="query_stats",
        entities=[query],
        schema=[
            Field(name="query", dtype=String),
            Field(name="searches", dtype=Int64),
            Field(name="impressions", dtype=Int64),
            Field(name="clicks", dtype=Int64),
            Field(name="saves", dtype=Int64),
            Field(name="users", dtype=Int64),
            Field(name="lang", dtype=String),
            Field(name="band", dtype=String),
            Field(name="interests", dtype=Array(String)),
            Field(name="interest_shares", dtype=Array(Float32)),
        ],
        source=parquet_source("query_stats", sources / "query_stats.parquet", description),
        online=True,
        owner=OWNER,
        description=description,
        tags=tags("engagement"),
    )
