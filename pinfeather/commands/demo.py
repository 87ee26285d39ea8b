"""The command ``pinfeather demo``."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import click

from feature_repo.errors import PinfeatherError
from pinfeather.options import json_option
from pinfeather.output import emit_json, progress, say, table

SEARCHES = ("small balcony with plants", "quick vegan dinner", "rustic wedding table")


@click.command("demo")
@click.option("--pins", default=5000, show_default=True, type=click.IntRange(100, 100_000), show_envvar=True)
@click.option("--seed", default=0, show_default=True, type=int, show_envvar=True)
@click.option(
    "--dir",
    "folder",
    metavar="DIR",
    envvar="PINFEATHER_DEMO_DIR",
    show_envvar=True,
    help="Keep everything here: a new folder.",
)
@json_option
def demo_command(pins: int, seed: int, folder: str | None, as_json: bool) -> None:
    """Run the whole pipeline on a generated catalogue and show what it does.

    \b
    Examples:
      pinfeather demo
      pinfeather demo --pins 500 --dir my_demo
      pinfeather demo --json > report.json
    """
    from pinfeather.demo import run_demo

    root = Path(folder) if folder else Path(tempfile.mkdtemp(prefix="pinfeather-demo-")) / "demo"
    if folder and (root / "feature_store.yaml").exists():
        raise PinfeatherError(f"--dir {folder} holds a repository already: name a new folder, nothing was changed.")
    try:
        report = run_demo(root, pins, seed, say, lambda: progress("materialize", as_json))
        if as_json:
            emit_json(report.to_json())
        else:
            _show(report.to_json())
            _listings(root)
            _next(root if folder else None)
    finally:
        if not folder:
            shutil.rmtree(root.parent, ignore_errors=True)


def _show(report: dict[str, Any]) -> None:
    runs = [("first", "first"), ("again", "second"), ("7 edited, 3 deleted", "edited")]
    columns = ("new", "changed", "unchanged", "gone", "encoded_texts", "upserted", "deleted", "seconds")
    rows = [[name, *(report[key][column] for column in columns)] for name, key in runs]
    table("materialize (pins)", ["run", *columns], rows, "synthetic catalogue")
    checks = ("checked", "missing", "extra", "stale", "wrong_space", "corrupted", "ahead")
    table("audit (points)", [*checks], [[report["audit"][name] for name in checks]])
    figures = ("ndcg@20", "precision@8", "accuracy", "auroc_3", "auroc_4", "auroc_5")
    scorers = [*report["baselines"], report["evaluate"]]
    note = f"synthetic judgments: {report['evaluate']['pairs']:,} pairs, {report['evaluate']['queries']} queries; "
    note += "every query judged by a head that has not seen it"
    table(
        "evaluate", ["scorer", *figures], [[one["scorer"], *(one[name] for name in figures)] for one in scorers], note
    )
    say(f"{report['seconds']:.0f} s, peak memory {report['peak_memory_mb']:,} MB.")


def _listings(root: Path) -> None:
    from pinfeather.listing import pin_name, show_near, show_search
    from serving_client import PinClient

    with PinClient(root) as client:
        found = [client.search(query, 5, explain=True, content=True) for query in SEARCHES]
        for results in found:
            show_search(results)
        firsts = [results.hits[0] for results in found if results.hits]
        pin = firsts[0]
        related = client.related_pins(pin.pin_id, 5, content=True)
        show_near(client, related.hits, f"related to: {pin_name(pin.content, pin.pin_id)}")
        feed = client.home_feed([hit.pin_id for hit in firsts], 6, content=True)
        show_near(client, feed.hits, "home feed, for somebody who looked at the first pin of each search")
    say("why: where every pin starts (baseline 3 and the bias), then what moved this one; they sum to the level in ().")
    say("cosine and tower products compare meaning; bm25 and match count words (all: in any field; share: of the best")
    say("that the query can get); rates are engagement; no ... says what a pin lacks. All: embedders/relevance.py.")


def _next(kept: Path | None) -> None:
    say("\nWhat to try next:")
    if kept is None:
        say("  pinfeather demo --dir my_demo                        keep everything it makes")
        kept = Path("my_demo")
    say(f'  pinfeather search "green velvet sofa" --repo {kept}')
    say(f"  pinfeather plan --repo {kept}                        what a run would cost, before it runs")
    say("  pinfeather init my_repo                              a repository over your own tables")
    say("  pinfeather import crowdflower PATH my_repo           public judgments")
