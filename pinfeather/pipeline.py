"""Steps that span rooms, called by commands and by the demo."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.lexical import LexicalStatistics
from feature_repo.paths import RepoPaths


def read_blobs(paths: RepoPaths, as_of: datetime | None = None) -> tuple[list[str], list[bytes]]:
    """Pin ids and lexical blobs of the catalogue, from the source of the view ``pin_relevance``.

    :raises UsageError: if there was no pin as of that time.
    :raises PinfeatherError: if it was not aggregated yet, or cannot be read.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    path = paths.views / "pin_relevance.parquet"
    if not path.is_file():
        raise PinfeatherError(f"{path} does not exist yet: run `pinfeather aggregate --repo {paths.root}` first.")
    try:
        rows = pq.read_table(path, columns=["pin_id", "tokens", "event_timestamp"])
    except (pa.ArrowException, OSError) as error:
        raise PinfeatherError(f"{path} cannot be read ({error}): `pinfeather aggregate` writes it again.") from error
    if as_of is not None:
        known = rows.filter(pc.less_equal(rows["event_timestamp"], as_of))
        if len(rows) and not len(known):
            first = pc.min(rows["event_timestamp"]).as_py()
            raise UsageError(
                f"No pin is as old as {as_of.isoformat()}, the first is of {first.isoformat()}: give a later --as-of, "
                "or none."
            )
        rows = known
    return rows["pin_id"].to_pylist(), rows["tokens"].to_pylist()


def fit_lexical(paths: RepoPaths, as_of: datetime | None = None) -> dict[str, Any]:
    """Fit a statistics snapshot, store it by its content and name it in the release."""
    from materialize.releases import publish_release

    _, blobs = read_blobs(paths, as_of)
    statistics = LexicalStatistics.fit(blobs)
    digest = statistics.save(paths.lexical)
    release = publish_release(paths, lexical=digest)
    return {
        "digest": digest,
        "documents": len(blobs),
        "terms": len(statistics.vocabulary),
        "lexical_version": statistics.lexical_version,
        "release": release.number,
    }
