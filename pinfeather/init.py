"""A repository of the user's own: what ``pinfeather init`` writes."""

from __future__ import annotations

import re
from pathlib import Path

from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.paths import RepoPaths

_STORE = """\
project: {project}
provider: local
registry:
  path: data/registry.db
  # A view that is being materialized keeps answering online reads.
  serve_features_while_materializing: true
offline_store:
  type: duckdb
online_store:
  type: materialize.online_store.PinfeatherOnlineStore
  path: data/online
entity_key_serialization_version: 3
"""

_DEFINITIONS = '''\
"""What `feast apply` and `pinfeather apply` read: every entity, view and service of this repository."""

from pathlib import Path

from feature_repo.objects import feast_objects

# Pinfeather's own entities, views and services over data/views/*.parquet. Feast collects this module's globals.
globals().update(feast_objects(Path(__file__).parent))

# Add views of your own below, for example:
#
# from feast import FeatureView, Field
# from feast.types import Float32, String
# from feature_repo.entities import pin
# from feature_repo.views.common import parquet_source
#
# pin_quality = FeatureView(
#     name="pin_quality",
#     entities=[pin],
#     schema=[Field(name="pin_id", dtype=String), Field(name="quality", dtype=Float32)],
#     source=parquet_source("pin_quality", Path(__file__).parent / "data/views/pin_quality.parquet", "Photo quality."),
# )
'''


def init_repository(folder: str | Path) -> RepoPaths:
    """Write a repository into ``folder``, which may exist but holds no repository yet.

    :raises PinfeatherError: if there is one already; nothing is ever overwritten.
    """
    if not str(folder).strip():
        raise UsageError("DIR is empty: name the folder of the new repository, such as my_repo.")
    root = Path(folder).expanduser().absolute()
    files = {
        "feature_store.yaml": _STORE.format(project=_project_name(root.name)),
        "definitions.py": _DEFINITIONS,
        ".feastignore": "data/**\n",
        ".gitignore": "data/\n__pycache__/\n",
    }
    if taken := [name for name in files if (root / name).exists()]:
        raise PinfeatherError(
            f"{root} has a {taken[0]} already and nothing was overwritten: "
            f"use it with --repo {folder}, or name a new folder."
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (root / name).write_text(text)
        (root / "data" / "raw").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PinfeatherError(f"Cannot write {root}: {error.strerror}. Name a folder that can be written.") from error
    return RepoPaths(root)


def as_written(root: Path) -> bool:
    """Whether the definitions are still those that :func:`init_repository` wrote, with nothing of a user's own."""
    file = root / "definitions.py"
    folders = [each for each in root.iterdir() if each.is_dir() and each.name != "data"]
    # Feast reads every module of a repository.
    modules = [*root.glob("*.py"), *(module for folder in folders for module in folder.rglob("*.py"))]
    return modules == [file] and file.read_text() == _DEFINITIONS


def _project_name(name: str) -> str:
    """A name that Feast accepts: letters, digits and underscores, no underscore first."""
    return re.sub(r"\W", "_", name).strip("_").lower() or "pinfeather"
