"""Apply a repository's Feast definitions in a process of its own: Feast changes folders and imports by bare names."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

from feature_repo.errors import PinfeatherError
from feature_repo.feast_import import import_feast
from feature_repo.paths import RepoPaths
from pinfeather.init import as_written


def apply_definitions(paths: RepoPaths) -> dict[str, Any]:
    """Run Feast's apply on ``paths`` and keep what the registry says for later commands; counts and names.

    :raises PinfeatherError: with Feast's own last words, if it fails.
    """
    from materialize.definitions import load_definitions
    from materialize.places import place_of

    paths.data.mkdir(parents=True, exist_ok=True)
    _ = (paths.registry, place_of(paths))  # what is not supported is said before Feast applies anything
    done = subprocess.run(
        [sys.executable, "-m", "pinfeather.apply", str(paths.root)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        last = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-6:])
        raise PinfeatherError(
            f"Feast could not apply {paths.root}:\n{last}\n"
            "Correct definitions.py or feature_store.yaml and run it again."
        )
    definitions = load_definitions(paths)
    return {
        "project": definitions.project,
        "views": sorted(definitions.views),
        "services": sorted(definitions.services),
        "registry": str(paths.registry),
    }


def _main(root: Path) -> None:
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    if as_written(root):
        import_feast(torch=False)
    from feast.repo_config import load_repo_config
    from feast.repo_operations import apply_total

    from materialize.definitions import load_definitions

    sys.path.insert(0, str(root))
    # Sources are written by `aggregate` and `materialize`, which may run later: they are not looked for now.
    apply_total(load_repo_config(root, root / "feature_store.yaml"), root, skip_source_validation=True)
    load_definitions(RepoPaths(root))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
