"""Imports point one way, and nothing heavy stands on the path of a quick command."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
ROOMS = ("feature_repo", "embedders", "materialize", "serving_client", "pinfeather")
FILES = sorted(path for room in ROOMS for path in (CHECKOUT / room).rglob("*.py") if "data" not in path.parts)


def imports(path, module_level_only=False):
    """Names of the modules that ``path`` imports."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if module_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_no_room_climbs(path):
    room = ROOMS.index(path.relative_to(CHECKOUT).parts[0])
    above = set(ROOMS[room + 1 :])
    climbed = [name for name in imports(path) if name.split(".")[0] in above]
    assert not climbed, f"{path.name} imports {climbed}: rooms may import only rooms to their left in {ROOMS}"


@pytest.mark.parametrize("path", sorted((CHECKOUT / "materialize/stores").glob("*.py")), ids=lambda path: path.name)
def test_stores_work_alone(path):
    foreign = {name for name in imports(path) if name.split(".")[0] in (*ROOMS, "torch", "transformers")}
    assert {name for name in foreign if not name.startswith("materialize.stores")} == set()


def test_the_online_store_imports_only_the_stores():
    names = set(imports(CHECKOUT / "materialize/online_store.py"))
    foreign = {name for name in names if name.split(".")[0] in (*ROOMS, "torch")}
    assert {name for name in foreign if not name.startswith("materialize.stores")} == set()


def test_feature_repo_has_no_torch():
    heavy = {"torch", "transformers", "sentence_transformers"}
    assert [
        p.name for p in FILES if p.relative_to(CHECKOUT).parts[0] == "feature_repo" and heavy & set(imports(p))
    ] == []


@pytest.mark.parametrize(
    "code",
    [
        "import pinfeather.cli, sys; sys.argv = ['pinfeather', '--help']; pinfeather.cli.cli(standalone_mode=False)",
        "import serving_client",
        "import materialize.plan, materialize.audit",
    ],
)
def test_quick_paths_import_neither_feast_nor_torch(code):
    check = f"{code}\nimport sys; print([m for m in ('feast', 'torch', 'transformers', 'sklearn') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=CHECKOUT, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_feast_imports_only_the_definitions():
    ignored = (CHECKOUT / "feature_repo/.feastignore").read_text().split("\n")
    modules = {path.name for path in (CHECKOUT / "feature_repo").glob("*.py")} - {"definitions.py"}
    folders = {
        path.name for path in (CHECKOUT / "feature_repo").iterdir() if path.is_dir() and path.name[0] not in "._"
    }
    assert modules | {f"{folder}/**" for folder in folders} | {"data/**"} <= set(ignored)
