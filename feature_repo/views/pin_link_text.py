"""View ``pin_link_text``: Title and description of the page a pin links to."""

from __future__ import annotations

from pathlib import Path

from feast import FeatureView, Field
from feast.types import String

from feature_repo.entities import pin
from feature_repo.views.common import OWNER, parquet_source, tags


def pin_link_text(sources: Path) -> FeatureView:
    """The view over ``sources/pin_link_text.parquet``."""
    description = "Title and description of the page a pin links to."
    return FeatureView(
        name="pin_link_text",
        entities=[pin],
        schema=[
            Field(name="pin_id", dtype=String),
            Field(name="link_url", dtype=String),
            Field(name="link_title", dtype=String),
            Field(name="link_description", dtype=String),
        ],
        source=parquet_source("pin_link_text", sources / "pin_link_text.parquet", description),
        online=True,
        owner=OWNER,
        description=description,
        tags=tags("content"),
    )
