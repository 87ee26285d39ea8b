"""The installed wheel in somebody else's Feast project, whose folder is called `feature_repo` like one of ours.

Only the wheel gives `materialize` there: a new environment has it, and the heavy dependencies of this one by path.
"""

import json
import os
import shutil
import site
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("feature_repo", "embedders", "materialize", "serving_client", "pinfeather")
STORE = "    type: materialize.online_store.PinfeatherOnlineStore\n    path: data/online\n"
FEAST = "from feast.cli.cli import cli; cli()"


class Alone:
    """A Python that has the wheel, and a project made with `feast init`."""

    def __init__(self, python: Path, project: Path) -> None:
        self.python, self.project = python, project

    def run(self, code, *words, cwd=None):
        """Standard output of ``code`` run in the project's root, which is then first on its path."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST", "COV"))}
        result = subprocess.run(
            [self.python, "-c", code, *words],
            cwd=cwd or self.project,
            env={**kept, "FEAST_USAGE": "False"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert result.returncode == 0, f"{code} {words}\n{result.stdout[-3000:]}\n{result.stderr[-5000:]}"
        return result.stdout

    def feast(self, *words):
        """One command of Feast's own command line on the project."""
        return self.run(FEAST, "-c", "feature_repo", *words)

    def read(self, *drivers):
        """The online features of some drivers, read from the project's root."""
        return json.loads(self.run(READ, *map(str, drivers)).splitlines()[-1])


READ = """
import json, sys
import feast.filter_models, feast.infra.online_stores.helpers
from feast import FeatureStore
before = set(sys.modules)
import materialize.online_store
loaded = sorted(set(sys.modules) - before)
store = FeatureStore("feature_repo")
names = ["driver_hourly_stats:" + name for name in ("conv_rate", "avg_daily_trips", "driver_metadata")]
rows = store.get_online_features(names, [{"driver_id": int(word)} for word in sys.argv[1:]]).to_dict()
import feature_repo, materialize
where = {"theirs": list(feature_repo.__path__), "ours": materialize.__file__}
print(json.dumps({"rows": rows, "loaded": loaded, **where}, default=str))
"""

STORED = """
from materialize.stores.session import session
with session("feature_repo/data/online").reading() as store:
    print({name: store.count(name) for name in store.collections()})
"""

EXPECTED = """
import json
import pandas as pd
frame = pd.read_parquet("feature_repo/data/driver_stats.parquet")
frame = frame.sort_values(["event_timestamp", "created"]).groupby("driver_id").tail(1).set_index("driver_id")
print(json.dumps({str(i): [float(r.conv_rate), int(r.avg_daily_trips)] for i, r in frame.iterrows()}))
"""


def build_wheel(folder: Path) -> Path:
    """The wheel of this checkout's files, built in a copy: setuptools writes beside the sources."""
    source = folder / "source"
    source.mkdir(parents=True)
    for room in ROOMS:
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__", "data"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source]
    try:
        ready = int(metadata.version("setuptools").split(".")[0]) >= 77  # as [build-system] in pyproject.toml asks
    except metadata.PackageNotFoundError:
        ready = False
    built = subprocess.run([*command, *(["--no-build-isolation"] if ready else [])], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("pinfeather-*.whl")
    return wheel


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The environment and the project, applied twice and materialized."""
    folder = tmp_path_factory.mktemp("alone")
    wheel = build_wheel(folder / "wheel")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    install = ["-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run([sys.executable, *install], check=True)
    # A folder named in a .pth file is only a place to look in: the .pth files inside it, among them the one that
    # leads to this checkout, are not read.
    (own,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (own / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")

    alone = Alone(python, folder / "shop")
    alone.run(FEAST, "init", "shop", cwd=folder)
    settings = alone.project / "feature_repo" / "feature_store.yaml"
    text = settings.read_text()
    changed = text.replace("    type: sqlite\n    path: data/online_store.db\n", STORE)
    assert changed != text, f"feast init writes other settings now:\n{text}"
    settings.write_text(changed)
    alone.feast("apply")
    alone.feast("apply")
    alone.feast("materialize", "2020-01-01T00:00:00", "2100-01-01T00:00:00")
    return alone


def test_only_the_wheel_gives_our_modules(alone):
    origin = "print(*[importlib.util.find_spec(name).origin for name in ('materialize', 'serving_client')], sep='\\n')"
    for path in alone.run(f"import importlib.util\n{origin}").split():
        assert Path(path).is_relative_to(alone.python.parent.parent), path


def test_rows_are_read_from_the_projects_root(alone):
    read = alone.read(1001, 1005, 7)
    assert Path(read["ours"]).is_relative_to(alone.python.parent.parent)
    assert [Path(path) for path in read["theirs"]] == [alone.project / "feature_repo"]  # theirs hides ours
    rows, expected = read["rows"], json.loads(alone.run(EXPECTED))
    for place, driver in enumerate(("1001", "1005")):
        assert rows["conv_rate"][place] == pytest.approx(expected[driver][0])
        assert rows["avg_daily_trips"][place] == expected[driver][1]
        assert rows["driver_metadata"][place] is not None
    assert [rows[name][2] for name in ("conv_rate", "avg_daily_trips", "driver_metadata")] == [None] * 3

    assert "materialize.online_store" in read["loaded"]
    roots = {name.partition(".")[0] for name in read["loaded"]}
    assert not roots & {*ROOMS, "torch", "transformers", "sentence_transformers", "qdrant_client"} - {"materialize"}


def test_the_stores_need_neither_feast_nor_torch(alone):
    loaded = alone.run("import sys, materialize.stores.session\nprint(*sorted(sys.modules), sep='\\n')").split()
    roots = {name.partition(".")[0] for name in loaded}
    assert "materialize" in roots
    assert not roots & {*ROOMS, "feast", "torch", "qdrant_client"} - {"materialize"}


def test_teardown_leaves_no_row(alone):  # last: the project is empty after it
    assert "shop@driver_id" in alone.run(STORED)
    alone.feast("teardown")
    assert alone.run(STORED).strip() == "{}"
