"""The README's table on real judgments: the command line's own steps over CrowdFlower, and the figures they print.

Run from the checkout's root (four minutes on 2 cores):

    .venv/bin/python -m benchmarks.crowdflower --data PATH

PATH is what ``pinfeather import crowdflower`` takes (its help says where the set comes from); the default is the copy
in ``../shared/data`` if it is there. All three scorers are judged in one run, on 5 folds that share no query.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.machine import ROOT, machine, save

DATA = ROOT.parent / "shared" / "data" / "crowdflower" / "dev_pairs.parquet"
STEPS = ("validate", "aggregate", "apply", "materialize", "lexical fit")
FIGURES = ("ndcg@20", "precision@8", "accuracy", "auroc_3", "auroc_4", "auroc_5")


def pinfeather(*words: str) -> str:
    """Stdout of one command."""
    done = subprocess.run([sys.executable, "-m", "pinfeather", *words], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        raise SystemExit(f"pinfeather {' '.join(words)} failed:\n{done.stderr}")
    return done.stdout


def main() -> None:
    """Run the steps, print the table in Markdown, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(DATA))
    options = parser.parse_args()
    report = machine("crowdflower", ("torch", "numpy"))
    with tempfile.TemporaryDirectory() as folder:
        repo = str(Path(folder) / "crowdflower")
        pinfeather("import", "crowdflower", options.data, repo)
        for step in STEPS:
            pinfeather(*step.split(), "--repo", repo)
        figures = json.loads(pinfeather("evaluate", "--repo", repo, "--json"))
    print(f"{figures[0]['pairs']} pairs, {figures[0]['queries']} queries\n")
    print(f"| scorer | {' | '.join(FIGURES)} |\n|---|{'---|' * len(FIGURES)}")
    for one in figures:
        cells = [f"{one[name]:.3f} [{one[f'{name}_ci'][0]:.3f}, {one[f'{name}_ci'][1]:.3f}]" for name in FIGURES]
        print(f"| {one['scorer']} | {' | '.join(cells)} |")
    save("crowdflower", report | {"figures": figures})


if __name__ == "__main__":
    main()
