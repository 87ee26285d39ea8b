"""Pin encoding beside one ``SentenceTransformer.encode`` call, and the time of one query.

Run from the checkout's root (about 3 minutes on 2 cores without bf16, 1 with it):

    .venv/bin/python -m benchmarks.encode --texts 1000

The text is title and description (cut at 500 characters) of the CrowdFlower pairs in ``../shared/data`` if they are
there, else made up; all texts are distinct. Every way gets all texts in one call, tokenising included, loading not,
with the threads that it takes by itself; the ways take turns, ``--rounds`` times, and the best round counts. Processor
seconds are given beside wall time: they say what a way costs on a machine where others work too. ``naive`` is
``SentenceTransformer.encode(texts)``, which sorts by length inside; ``naive 1 thread`` is the same after
``torch.set_num_threads(1)``, to tell what threads cost from what batches cost. Cosine and the overlap of each text's
10 nearest are against ``naive``. bf16 is run where the processor has it (``--force-bf16`` runs it anywhere, emulated
and slow).
"""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.machine import ROOT, machine, save

PAIRS = ROOT.parent / "shared" / "data" / "crowdflower" / "dev_pairs.parquet"
PACKAGES = ("torch", "transformers", "tokenizers", "sentence-transformers", "numpy")
SEED = 20
WORDS = (
    "walnut oak linen brass velvet rustic modern lamp sofa shelf garden terrace recipe lemon pasta basil weekend",
    "Lisbon capsule wardrobe summer dress boots knitted pattern small balcony herbs storage kitchen island tile",
)
NO_BF16 = "bf16: not run (processor has none)"

Vectors = npt.NDArray[np.float32]


def load_texts(count: int) -> tuple[str, list[str], list[str]]:
    """Where the text is from, ``count`` distinct pin texts (fewer if there are not so many), and queries."""
    rng = random.Random(SEED)
    words = " ".join(WORDS).split()
    if PAIRS.is_file():
        import pyarrow.parquet as pq

        pairs = pq.read_table(PAIRS, columns=["query", "title", "description_text"]).to_pydict()
        pins = {f"{t}. {(d or '')[:500]}" for t, d in zip(pairs["title"], pairs["description_text"], strict=True)}
        texts, queries, source = sorted(pins), sorted(set(pairs["query"])), "crowdflower/dev_pairs.parquet"
    else:
        texts = [" ".join(rng.choices(words, k=rng.randint(15, 110))) for _ in range(count)]
        queries, source = [" ".join(rng.choices(words, k=3)) for _ in range(200)], "made up"
    rng.shuffle(texts)
    return source, texts[:count], queries


def timed(call: Callable[[], Vectors]) -> tuple[float, float, Vectors]:
    """Wall seconds, processor seconds and the result of ``call``."""
    wall, cpu = perf_counter(), process_time()
    vectors = call()
    return perf_counter() - wall, process_time() - cpu, vectors


def nearest(vectors: Vectors, count: int = 10) -> npt.NDArray[np.intp]:
    """The ``count`` nearest other rows of each row, by cosine."""
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -2)
    return np.argsort(-scores, axis=1, kind="stable")[:, :count]


def query_latency(encode: Callable[[list[str]], Any], queries: list[str], count: int) -> dict[str, float]:
    """Milliseconds of one query at a time, after 10 to warm up."""
    times = []
    for number in range(count + 10):
        start = perf_counter()
        encode([queries[number % len(queries)]])
        times.append((perf_counter() - start) * 1e3)
    p50, p99 = np.percentile(times[10:], [50, 99])
    return {"p50_ms": round(float(p50), 2), "p99_ms": round(float(p99), 2)}


def load_ways(options: argparse.Namespace) -> tuple[dict[str, Callable[[list[str]], Vectors]], dict[str, Any]]:
    """The ways that are compared, by name, and what is known of each: load seconds and recipe."""
    from embedders.encoder import load_encoder, packaged_model_path
    from embedders.recipe import processor_has_bf16

    start = perf_counter()
    encoder = load_encoder(device="cpu", precision="fp32")
    about: dict[str, Any] = {
        "ours fp32": {"first_load_s": round(perf_counter() - start, 2), "recipe": encoder.recipe.to_json()}
    }
    ours = {"ours fp32": encoder.encode}
    if processor_has_bf16() or options.force_bf16:
        low = load_encoder(device="cpu", precision="bf16")
        about["ours bf16"], ours["ours bf16"] = {"recipe": low.recipe.to_json()}, low.encode
    else:
        print(NO_BF16)
        about["ours bf16"] = {"not_run": NO_BF16}

    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(packaged_model_path()), device="cpu")

    def naive(texts: list[str]) -> Vectors:
        return model.encode(texts, show_progress_bar=False)

    def naive_one_thread(texts: list[str]) -> Vectors:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return naive(texts)
        finally:
            torch.set_num_threads(threads)

    return {"naive": naive, "naive 1 thread": naive_one_thread, **ours}, about


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that the report holds but the machine."""
    source, texts, queries = load_texts(options.texts)
    ways, about = load_ways(options)
    best: dict[str, tuple[float, float, Vectors]] = {}
    for _ in range(options.rounds):
        for name, encode in ways.items():
            wall, cpu, vectors = timed(lambda encode=encode: encode(texts))
            before = best.get(name, (np.inf, np.inf, vectors))
            best[name] = min(wall, before[0]), min(cpu, before[1]), vectors
    naive_wall, naive_cpu, reference = best["naive"]
    neighbours = nearest(reference)
    for name, (wall, cpu, vectors) in best.items():
        cosines = (vectors * reference).sum(axis=1)
        shared = [len(set(a) & set(b)) for a, b in zip(nearest(vectors), neighbours, strict=True)]
        about.setdefault(name, {}).update(
            texts_per_s=round(len(texts) / wall, 1),
            x_naive=round(naive_wall / wall, 2),
            texts_per_cpu_s=round(len(texts) / cpu, 1),
            x_naive_cpu=round(naive_cpu / cpu, 2),
            mean_cosine=round(float(cosines.mean()), 6),
            min_cosine=round(float(cosines.min()), 6),
            top10_overlap=round(float(np.mean(shared)) / 10, 4),
            query=query_latency(ways[name], queries, options.queries),
        )
    from embedders.encoder import TokenCounter

    tokens = TokenCounter().count(texts)
    return {
        "source": source,
        "texts": len(texts),
        "tokens_p5_p50_p95": [int(value) for value in np.percentile(tokens, [5, 50, 95])],
        "rounds": options.rounds,
        "queries": options.queries,
        "ways": about,
    }


def print_table(report: dict[str, Any]) -> None:
    """The report for a reader."""
    low, middle, high = report["tokens_p5_p50_p95"]
    print(f"{report['texts']} texts ({report['source']}), tokens p5/p50/p95 {low}/{middle}/{high}, {report['cpu']}")
    columns = ("texts/s", "x naive", "per cpu s", "x naive", "mean cos", "min cos", "top-10", "query p50", "p99 ms")
    print(f"{'':14}" + "".join(f"{column:>11}" for column in columns))
    for name, way in report["ways"].items():
        if "texts_per_s" not in way:
            continue
        values = [way["texts_per_s"], way["x_naive"], way["texts_per_cpu_s"], way["x_naive_cpu"]]
        values += [way["mean_cosine"], way["min_cosine"], way["top10_overlap"], *way["query"].values()]
        print(f"{name:14}" + "".join(f"{value:>11}" for value in values))


def main() -> None:
    """Measure, print the table, write the JSON report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=1000, help="how many texts (default 1000)")
    parser.add_argument("--rounds", type=int, default=2, help="turns of every way; the best counts (default 2)")
    parser.add_argument("--queries", type=int, default=200, help="single queries timed (default 200)")
    parser.add_argument("--force-bf16", action="store_true", help="run bf16 where it is emulated, too")
    parser.add_argument("--out", type=Path, help="the JSON report; default results/encode.json")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    report = machine("encode", PACKAGES) | measure(options)
    order = {name: report["ways"][name] for name in ("naive", "naive 1 thread", "ours fp32", "ours bf16")}
    report["ways"] = order
    print_table(report)
    save("encode", report, options.out)


if __name__ == "__main__":
    main()
