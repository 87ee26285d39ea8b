"""What the sources of the feature views say of pins, joined."""

from __future__ import annotations

from collections.abc import Mapping

from feature_repo.aggregates.session import parquet
from feature_repo.errors import PinfeatherError
from feature_repo.paths import RepoPaths
from materialize.scan import PIN_VIEW, quote


def pins_sql(paths: RepoPaths, columns: Mapping[str, tuple[str, str]]) -> str:
    """SQL of ``pin_id`` and these columns of every pin of the catalogue; more joins may follow it.

    :param columns: name in the result to (view, feature).
    :raises PinfeatherError: before the first `aggregate`.
    """
    views = [PIN_VIEW, *sorted({view for view, _ in columns.values()} - {PIN_VIEW})]
    files = {view: paths.views / f"{view}.parquet" for view in views}
    if missing := [file for file in files.values() if not file.is_file()]:
        raise PinfeatherError(f"{missing[0]} does not exist yet: run `pinfeather aggregate --repo {paths.root}` first.")
    parts = (f"{quote(view)}.{quote(feature)} AS {quote(name)}" for name, (view, feature) in columns.items())
    first, *others = (f"{parquet([file])} AS {quote(view)}" for view, file in files.items())
    joins = " ".join(f"LEFT JOIN {other} USING (pin_id)" for other in others)
    return f"SELECT pin_id, {', '.join(parts)} FROM {first} {joins}"
