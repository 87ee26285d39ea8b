"""What each source is worth: the three scorers on the generated catalogue, with each source off in turn.

Run from the checkout's root (ten minutes on 2 cores; ``--pins 200`` for a quick look):

    .venv/bin/python -m benchmarks.ablation

Figures are those of `pinfeather evaluate --without SOURCE`: query-disjoint folds, texts encoded anew by the packaged
model, 95 % intervals by bootstrap over queries. The catalogue is synthetic, so they say that the switchboard works and
which sources the generator makes useful, not what a source is worth elsewhere.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.machine import machine, save
from embedders.encoder import Encoder, load_encoder
from feature_repo.aggregates import aggregate
from feature_repo.paths import RepoPaths
from feature_repo.switchboard import SOURCES
from feature_repo.validation import validate
from materialize.run import RunOptions, materialize
from pinfeather.apply import apply_definitions
from pinfeather.generate import NOW, generate_catalogue
from pinfeather.init import init_repository
from pinfeather.pipeline import fit_lexical
from pinfeather.training import Judged, cross_validate_judged

SCORERS = ("bm25", "zero-shot", "student")
CASES = ((), *((name,) for name in SOURCES), ("boards", "queries", "engagement"))
"""Nothing off, each source off, and all that people did."""


def generated(folder: Path, pins: int, seed: int, encoder: Encoder) -> RepoPaths:
    """A repository with a generated catalogue, materialized, ready to be judged."""
    paths = init_repository(folder / "repo")
    generate_catalogue(paths.raw, pins=pins, seed=seed)
    validate(paths)
    aggregate(paths, as_of=NOW)
    apply_definitions(paths)
    materialize(paths, RunOptions(encoder=encoder))
    fit_lexical(paths)
    return paths


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pins", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = machine("ablation", ("torch", "duckdb"))
    cases = []
    print(f"{'without':30}" + "".join(f"{scorer:>26}" for scorer in SCORERS))
    encoder = load_encoder("packaged")
    with tempfile.TemporaryDirectory() as folder:
        paths = generated(Path(folder), options.pins, options.seed, encoder)
        for without in CASES:
            rows = cross_validate_judged(Judged.read(paths, encoder, without=without), SCORERS, seed=options.seed)
            cases.append({"without": list(without), "figures": rows})
            cells = (f"{row['ndcg@20']:.3f} [{row['ndcg@20_ci'][0]:.3f}, {row['ndcg@20_ci'][1]:.3f}]" for row in rows)
            print(f"{', '.join(without) or 'nothing':30}" + "".join(f"{cell:>26}" for cell in cells), flush=True)
    save("ablation", found | {"pins": options.pins, "seed": options.seed, "cases": cases})


if __name__ == "__main__":
    main()
