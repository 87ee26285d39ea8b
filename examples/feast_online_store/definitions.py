"""A bookshop's features: what sells, and what each book is about."""

from datetime import timedelta

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float32, Int64, String

book = Entity(name="book", join_keys=["isbn"], value_type=ValueType.STRING)

book_sales = FeatureView(
    name="book_sales",
    entities=[book],
    ttl=timedelta(days=30),
    schema=[Field(name="sold_last_week", dtype=Int64), Field(name="rating", dtype=Float32)],
    source=FileSource(name="sales", path="data/sales.parquet", timestamp_field="event_timestamp"),
)

# vector_index makes it a document view: it gets a collection of its own, to be searched by vector and by words.
book_blurb = FeatureView(
    name="book_blurb",
    entities=[book],
    ttl=timedelta(days=3650),
    schema=[
        Field(name="title", dtype=String),
        Field(name="blurb", dtype=String),
        Field(name="language", dtype=String),
        Field(name="taste", dtype=Array(Float32), vector_index=True, vector_length=4, vector_search_metric="cosine"),
    ],
    source=FileSource(name="blurbs", path="data/blurbs.parquet", timestamp_field="event_timestamp"),
)
