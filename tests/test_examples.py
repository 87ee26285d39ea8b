"""The examples run as they are, and print what their README says."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]


def test_feast_online_store_prints_what_its_readme_shows(tmp_path):
    source = CHECKOUT / "examples" / "feast_online_store"
    for name in ("feature_store.yaml", "definitions.py", "run.py"):
        shutil.copy(source / name, tmp_path / name)
    done = subprocess.run(
        [sys.executable, tmp_path / "run.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (shown,) = re.findall(r"```text\n(.*?)\n```", (source / "README.md").read_text(), re.DOTALL)
    assert done.stdout.strip("\n") == shown
