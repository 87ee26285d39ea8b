"""How long until something can be asked: the service, the client that only reads vectors, and Feast beside it.

Run from the checkout's root (about two minutes on 2 cores, and five more once to make the catalogue):

    .venv/bin/python -m benchmarks.serving.start

Each is a new process, and they take turns. ``import`` is from before to after the import in a process that has done
nothing else, ``first answer`` from the start of the process to the vectors of 100 pins. Feast reads the same rows from
the same store. ``ready`` is from the start of ``pinfeather serve`` to the first 200 of its /readyz: publication and
model are loaded, and a search was done. ``memory`` is what it then has in memory, and ``torch`` whether that is a part.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from benchmarks.machine import conclude, machine
from benchmarks.serving.catalogue import catalogue_parser, repository
from benchmarks.serving.service import CHECKOUT, serving

PACKAGES = ("feast", "torch", "transformers", "qdrant-edge-py", "numpy")
READY_SECONDS = 5.0
IMPORT_SECONDS = 0.7
PIN_IDS = 100

OURS = """
client = PinClient({repo!r})
assert client.pin_embeddings({pins!r}).found.all()
"""
FEAST = """
store = FeatureStore({repo!r})
rows = store.get_online_features(
    features=["pin_student_embedding:embedding"], entity_rows=[{{"pin_id": pin}} for pin in {pins!r}]
).to_dict()
assert all(row is not None for row in rows["embedding"])
"""
WAYS: Mapping[str, tuple[str, str]] = {
    "PinClient": ("from serving_client import PinClient", OURS),
    "Feast": ("from feast import FeatureStore", FEAST),
}
CODE = """
from time import perf_counter
start = perf_counter()
{load}
print(perf_counter() - start)
{ask}
"""


def once(load: str, ask: str, repo: Path, pins: list[str]) -> dict[str, float]:
    """Seconds of one new process."""
    code = CODE.format(load=load, ask=ask.format(repo=str(repo), pins=pins))
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "FEAST_USAGE": "False"}
    start = perf_counter()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        raise SystemExit(f"{load} failed: {done.stderr[-2000:]}")
    return {"import_s": float(done.stdout.split()[0]), "first_answer_s": perf_counter() - start}


def run(repo: Path, pins: list[str], rounds: int) -> dict[str, Any]:
    """Medians of ``rounds`` processes each, after one that fills the caches of the disk."""
    times: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    ready: list[dict[str, float]] = []
    torch = False
    for number in range(rounds + 1):
        for name, (load, ask) in WAYS.items():
            times[name].append(once(load, ask, repo, pins))
        with serving(repo) as service:
            ready.append({"ready_s": service.seconds_to_ready, "memory_mib": service.memory_mib()})
            torch = torch or service.has_loaded("libtorch")
        print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
    report: dict[str, Any] = {name: _medians(found) for name, found in times.items()}
    worst = round(max(each["ready_s"] for each in ready[1:]), 3)
    report["service"] = _medians(ready) | {"worst_s": worst, "torch": torch}
    return report


def _medians(found: list[dict[str, float]]) -> dict[str, float]:
    """Of each figure, without the first round."""
    return {key: round(median(each[key] for each in found[1:]), 3) for key in found[0]}


def table(report: dict[str, Any]) -> str:
    """The results as Markdown."""
    ours, feast, service = report["PinClient"], report["Feast"], report["service"]
    return "\n".join(
        [
            "| | PinClient | Feast | ratio |",
            "|---|---|---|---|",
            *(
                f"| {words} | {ours[key]:.2f} s | {feast[key]:.2f} s | {feast[key] / ours[key]:.1f} |"
                for words, key in (("import", "import_s"), ("first answer", "first_answer_s"))
            ),
            f"| `pinfeather serve` ready | {service['ready_s']:.2f} s | | |",
            f"| its memory, {'with' if service['torch'] else 'without'} torch | {service['memory_mib']:.0f} MiB | | |",
        ]
    )


def main() -> None:
    """The command; ends with 1 if a bound was not met."""
    parser = catalogue_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="where the report goes; by default benchmarks/results/")
    options = parser.parse_args()
    paths = repository(options.pins, options.folder)
    import pyarrow.parquet as pq

    pins = pq.read_table(paths.raw / "pins", columns=["pin_id"])["pin_id"].to_pylist()[:: options.pins // PIN_IDS]
    report = machine("serving.start", PACKAGES) | {"pins": options.pins, "rounds": options.rounds}
    report |= run(paths.root, pins[:PIN_IDS], options.rounds)
    late = []
    if report["service"]["ready_s"] > READY_SECONDS:
        late.append(f"ready after {report['service']['ready_s']} s, not within {READY_SECONDS:g}")
    if report["PinClient"]["import_s"] > IMPORT_SECONDS:
        late.append(f"import takes {report['PinClient']['import_s']} s, not {IMPORT_SECONDS:g}")
    if report["service"]["torch"]:
        late.append("the service has loaded torch")
    conclude("serving_start", report, late, table(report), options.out)


if __name__ == "__main__":
    main()
