"""View ``pin_student_embedding``: the live space's vectors; its batch source is that space's vector log.

Beside it one view ``pin_student_embedding__<space>`` for each space, over that space's own log: for training sets and
as-of joins that must not change with a promotion. These are offline only. Points have the same ids in every space, made
from the unsuffixed name so that a promotion rewrites none, and Feast would ask by the suffixed one; online a space that
is not live is read with ``PinClient.pin_embeddings(ids, space=NAME)``.
"""

from __future__ import annotations

import json

from feast import FeatureView, Field
from feast.types import Array, Float32, String

from feature_repo.entities import pin
from feature_repo.paths import RepoPaths
from feature_repo.views.common import OWNER, parquet_source, tags

NAME = "pin_student_embedding"
PACKAGED_DIMENSION = 384


def pin_student_embedding(paths: RepoPaths) -> FeatureView:
    """The view over the live space, whose vectors have unit length (so cosine is the dot product)."""
    description = "Unit vector of the student's pin tower over the canonical pin text, from the live space."
    return FeatureView(
        name=NAME,
        entities=[pin],
        schema=[
            Field(name="pin_id", dtype=String),
            Field(
                name="embedding",
                dtype=Array(Float32),
                vector_index=True,
                vector_length=live_dimension(paths),
                vector_search_metric="cosine",
            ),
        ],
        source=parquet_source(NAME, paths.vectors / NAME / "*.parquet", description),
        online=True,
        owner=OWNER,
        description=description,
        tags=tags("embedding"),
    )


def space_embeddings(paths: RepoPaths) -> list[FeatureView]:
    """One view for each space that has a manifest, in the order of their names."""
    views = []
    for manifest in sorted(paths.spaces.glob("*.json")):
        space = json.loads(manifest.read_text())
        name = f"{NAME}__{space['name']}"
        description = f"Unit vectors of the space {space['name']} (dimension {space['dimension']}), live or not."
        views.append(
            FeatureView(
                name=name,
                entities=[pin],
                schema=[Field(name="pin_id", dtype=String), Field(name="embedding", dtype=Array(Float32))],
                source=parquet_source(name, paths.vectors / space["name"] / "*.parquet", description),
                online=False,
                owner=OWNER,
                description=description,
                tags=tags("embedding", space=space["name"], model=space["model_fingerprint"]),
            )
        )
    return views


def live_dimension(paths: RepoPaths) -> int:
    """Dimension of the space that the current release names; the packaged model's before the first release."""
    if not paths.release.is_file():
        return PACKAGED_DIMENSION
    space = json.loads(paths.release.read_text())["names"].get(NAME)
    manifest = paths.spaces / f"{space}.json"
    return int(json.loads(manifest.read_text())["dimension"]) if manifest.is_file() else PACKAGED_DIMENSION
