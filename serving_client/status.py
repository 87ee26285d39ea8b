"""What a client serves from, and what is amiss: for people who look after it, and for the page."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from feature_repo.errors import PinfeatherError
from serving_client.degraded import UnavailableError, reason
from serving_client.publications.publications import Publication, Publications
from serving_client.queries.query_cache import CacheStats
from serving_client.relevance.fallbacks import no_words, told, unfit_bundle, without_root


@dataclass(frozen=True)
class Status:
    """What serves now."""

    release: int
    """Number of the release; 0 where there is none yet."""
    publication: int | None
    """Number of the publication (on a server: of the release); None where nothing can be served."""
    published_at: datetime | None
    """When it was made, UTC."""
    age: timedelta | None
    """How long ago that was."""
    live_space: str | None
    bundle: str | None
    """The student bundle that the release names, usable or not."""
    scorers: tuple[str, ...]
    """Who can score now, in the order of falling back; whether a query can be embedded shows when one is."""
    lexical: str | None
    """Digest of the statistics snapshot."""
    spaces: tuple[str, ...]
    """Physical names of the spaces that can be read."""
    query_cache: CacheStats = field(default_factory=CacheStats)
    degraded: tuple[str, ...] = ()
    """What an answer of now would say, and the collections that cannot be read."""


def status_of(publications: Publications, cache: CacheStats) -> Status:
    """The status of what ``publications`` gives; never an error about the store."""
    try:
        with publications.current() as publication:
            return _serving(publication, publications, cache)
    except PinfeatherError as error:
        code = error.code if isinstance(error, UnavailableError) else "store_gone"
        text = without_root(str(error), publications.paths.root)
        return Status(0, None, None, None, None, None, (), None, (), cache, (reason(code, text),))


def _serving(publication: Publication, publications: Publications, cache: CacheStats) -> Status:
    release, made = publication.release, publication.created_at
    degraded = [text for text in (publications.stale(publication),) if text is not None]
    scorers = []
    try:
        space = publication.space()
    except PinfeatherError as error:
        degraded.append(reason("no_space", told(publication, error)))
    else:
        scorers.append("zero-shot")
        unfit = unfit_bundle(publication, space)
        if unfit is None:
            scorers.insert(0, "student")
        else:
            degraded.append(unfit)
    wordless = no_words(publication)
    if wordless is None:
        scorers.append("bm25")
    else:
        degraded.append(wordless)
    degraded += [reason(code, f"{name} cannot be read") for name, code in publications.unreadable(publication).items()]
    return Status(
        release.number,
        publication.number,
        made,
        None if made is None else datetime.now(UTC) - made,
        release.live_space,
        release.bundle,
        tuple(scorers),
        release.lexical,
        tuple(publication.spaces()),
        cache,
        tuple(degraded),
    )
