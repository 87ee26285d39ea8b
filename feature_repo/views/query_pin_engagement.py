"""View ``query_pin_engagement``: Counts and smoothed rates of a pin under one query."""

from __future__ import annotations

from pathlib import Path

from feast import FeatureView, Field
from feast.types import Float32, Int64, String

from feature_repo.entities import pin, query
from feature_repo.views.common import OWNER, parquet_source, tags


def query_pin_engagement(sources: Path) -> FeatureView:
    """The view over ``sources/query_pin_engagement.parquet``."""
    description = "Counts and smoothed rates of a pin under one query."
    return FeatureView(
        name="query_pin_engagement",
        entities=[query, pin],
        schema=[
            Field(name="query", dtype=String),
            Field(name="pin_id", dtype=String),
            Field(name="impressions", dtype=Int64),
            Field(name="clicks", dtype=Int64),
            Field(name="long_clicks", dtype=Int64),
            Field(name="saves", dtype=Int64),
            Field(name="engagement_rate", dtype=Float32),
            Field(name="click_rate", dtype=Float32),
            Field(name="save_rate", dtype=Float32),
        ],
        source=parquet_source("query_pin_engagement", sources / "query_pin_engagement.parquet", description),
        online=True,
        owner=OWNER,
        description=description,
        tags=tags("engagement"),
    )
