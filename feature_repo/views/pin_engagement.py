"""View ``pin_engagement``: Counts and smoothed rates of a pin in the search log."""

from __future__ import annotations

from pathlib import Path

from feast import FeatureView, Field
from feast.types import Float32, Int64, String

from feature_repo.entities import pin
from feature_repo.views.common import OWNER, parquet_source, tags


def pin_engagement(sources: Path) -> FeatureView:
    """The view over ``sources/pin_engagement.parquet``."""
    description = "Counts and smoothed rates of a pin in the search log."
    return FeatureView(
        name="pin_engagement",
        entities=[pin],
        schema=[
            Field(name="pin_id", dtype=String),
            Field(name="impressions", dtype=Int64),
            Field(name="clicks", dtype=Int64),
            Field(name="long_clicks", dtype=Int64),
            Field(name="saves", dtype=Int64),
            Field(name="click_rate", dtype=Float32),
            Field(name="save_rate", dtype=Float32),
        ],
        source=parquet_source("pin_engagement", sources / "pin_engagement.parquet", description),
        online=True,
        owner=OWNER,
        description=description,
        tags=tags("engagement"),
    )
