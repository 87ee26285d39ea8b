"""View ``pin_captions``: Caption of a pin's image, written by a vision-language model."""

from __future__ import annotations

from pathlib import Path

from feast import FeatureView, Field
from feast.types import String

from feature_repo.entities import pin
from feature_repo.views.common import OWNER, parquet_source, tags


def pin_captions(sources: Path) -> FeatureView:
    """The view over ``sources/pin_captions.parquet``."""
    description = "Caption of a pin's image, written by a vision-language model."
    return FeatureView(
        name="pin_captions",
        entities=[pin],
        schema=[
            Field(name="pin_id", dtype=String),
            Field(name="caption", dtype=String),
            Field(name="captioner", dtype=String),
        ],
        source=parquet_source("pin_captions", sources / "pin_captions.parquet", description),
        online=True,
        owner=OWNER,
        description=description,
        tags=tags("content"),
    )
