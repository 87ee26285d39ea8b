"""View ``pin_relevance``: Token ids of a pin's fields and the scalars that the student's head reads, in one row."""

from __future__ import annotations

from pathlib import Path

from feast import FeatureView, Field
from feast.types import Bytes, Float32, Int64, String

from feature_repo.entities import pin
from feature_repo.views.common import OWNER, parquet_source, tags


def pin_relevance(sources: Path) -> FeatureView:
    """The view over ``sources/pin_relevance.parquet``."""
    description = "Token ids of a pin's fields and the scalars that the student's head reads, in one row."
    return FeatureView(
        name="pin_relevance",
        entities=[pin],
        schema=[
            Field(name="pin_id", dtype=String),
            Field(name="tokens", dtype=Bytes),
            Field(name="lexical_version", dtype=Int64),
            Field(name="click_rate", dtype=Float32),
            Field(name="save_rate", dtype=Float32),
        ],
        source=parquet_source("pin_relevance", sources / "pin_relevance.parquet", description),
        online=True,
        owner=OWNER,
        description=description,
        tags=tags("model"),
    )
