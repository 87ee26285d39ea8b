"""A teacher that counts and dies, a sample to label, and the labels that are there."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from past_tables import at, event, pin, put

from feature_repo.aggregates import aggregate
from feature_repo.pin_text import DEFAULT_TEMPLATE
from pinfeather.init import init_repository
from pinfeather.labelling_store import LabelFolder, read_labels
from pinfeather.sampling import parquet_of
from pinfeather.sampling_draw import SCHEMA as SAMPLE


class Died(Exception):
    """The process is gone."""


class CountingTeacher:
    """A fake at the edge: probabilities as a function of query and text, and the count of every pair asked for."""

    def __init__(self, fingerprint="f" * 32, dies_at=None) -> None:
        self.name, self.fingerprint, self.template = "fake", fingerprint, DEFAULT_TEMPLATE
        self.calls: list[list[tuple[str, str]]] = []
        self.dies_at = dies_at

    @property
    def pairs(self):
        """Every pair that was computed, in order."""
        return [pair for call in self.calls for pair in call]

    def probabilities(self, queries, texts, progress=None):
        """Five numbers that sum to 1."""
        if self.dies_at == len(self.calls):
            raise Died
        self.calls.append(list(zip(queries, texts, strict=True)))
        return np.array([chances(query, text) for query, text in self.calls[-1]])


def chances(query, text):
    rows = np.random.default_rng(xxhash.xxh3_64_intdigest(f"{query}|{text}".encode())).random(5)
    return rows / rows.sum()


def pins(**titles):
    return [pin(name, -10, title) for name, title in titles.items()]


def put_pins(paths, **titles):
    put(paths, pins=pins(**titles), search_log=[event("oak", "a", "u", 1)])
    aggregate(paths, as_of=at(5))


def put_sample(paths, *pairs, name="s", weight=2.0):
    """A sample of these pairs, as `sample` writes it."""
    rows = [
        {"query": query, "pin_id": pin_id, "source": "shown", "lang": "en", "band": "head", "freshness": "new"}
        | {"level": "low", "stratum": 0, "weight": weight, "visits": 1, "event_timestamp": at(1)}
        for query, pin_id in pairs
    ]
    paths.samples.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, SAMPLE), parquet_of(paths, name))
    (paths.samples / f"{name}.json").write_text("{}")


def labels(paths, version="f" * 32):
    return read_labels(paths, version).to_pylist()


def stored(paths, version="f" * 32):
    """All rows of all parts."""
    return [row for part in LabelFolder(paths, version).parts() for row in pq.read_table(part).to_pylist()]


def sampled_shop(folder):
    """A repository with four pins and a sample of twelve pairs to label."""
    paths = init_repository(folder)
    put_pins(paths, a="oak shelf", b="oak shelf", c="brass lamp", d="wool rug")
    put_sample(paths, *((query, name) for query in ("oak", "lamp", "rug") for name in "abcd"))
    return paths
