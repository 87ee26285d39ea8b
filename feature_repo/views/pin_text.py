"""View ``pin_text``: Title, description and filterable properties of a pin."""

from __future__ import annotations

from pathlib import Path

from feast import FeatureView, Field
from feast.types import Bool, String, UnixTimestamp

from feature_repo.entities import pin
from feature_repo.views.common import OWNER, parquet_source, tags


def pin_text(sources: Path) -> FeatureView:
    """The view over ``sources/pin_text.parquet``."""
    description = "Title, description and filterable properties of a pin."
    return FeatureView(
        name="pin_text",
        entities=[pin],
        schema=[
            Field(name="pin_id", dtype=String),
            Field(name="title", dtype=String),
            Field(name="description", dtype=String),
            Field(name="lang", dtype=String),
            Field(name="country", dtype=String),
            Field(name="created_at", dtype=UnixTimestamp),
            Field(name="image_sha256", dtype=String),
            Field(name="safe", dtype=Bool),
        ],
        source=parquet_source("pin_text", sources / "pin_text.parquet", description),
        online=True,
        owner=OWNER,
        description=description,
        tags=tags("content"),
    )
