"""View ``pin_engaged_queries``: Up to twenty queries after which people engaged with a pin, in two years."""

from __future__ import annotations

from pathlib import Path

from feast import FeatureView, Field
from feast.types import Array, String

from feature_repo.entities import pin
from feature_repo.views.common import OWNER, parquet_source, tags


def pin_engaged_queries(sources: Path) -> FeatureView:
    """The view over ``sources/pin_engaged_queries.parquet``."""
    description = "Up to twenty queries after which people engaged with a pin, in two years."
    return FeatureView(
        name="pin_engaged_queries",
        entities=[pin],
        schema=[
            Field(name="pin_id", dtype=String),
            Field(name="engaged_queries", dtype=Array(String)),
        ],
        source=parquet_source("pin_engaged_queries", sources / "pin_engaged_queries.parquet", description),
        online=True,
        owner=OWNER,
        description=description,
        tags=tags("content"),
    )
