"""Which parts of a release can score, and the reasons why the others cannot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from feature_repo.errors import PinfeatherError
from feature_repo.lexical import LexicalStatistics, LexicalVersionError
from feature_repo.switchboard import lexical_off
from materialize.spaces import Space
from serving_client.degraded import UnavailableError, code_of, reason
from serving_client.publications.publications import Publication


def unfit_bundle(publication: Publication, space: Space) -> str | None:
    """The reason why the bundle of the release cannot score pins of ``space``, or None if it can."""
    release = publication.release
    try:
        bundle = publication.bundle
    except LexicalVersionError as error:
        return reason("no_student", f"bundle {release.bundle} is of another lexical version: {error}")
    except PinfeatherError as error:
        return reason("no_student", f"bundle {release.bundle} cannot be used: {told(publication, error)}")
    if bundle is None:
        return reason("no_student", f"release {release.number} names no student bundle")
    manifest = bundle.manifest
    if not manifest.reads(space.name, space.model_fingerprint, space.template):
        spaces = ", ".join(manifest.spaces) or "spaces of its own towers"
        return reason("no_student", f"bundle {manifest.name} reads {spaces}, not the space {space.name}")
    if manifest.query_tower not in space.query_towers:
        needs = f"needs the query tower {manifest.query_tower}, which {space.name} does not take"
        return reason("no_student", f"bundle {manifest.name} {needs}")
    return None


def word_statistics(publication: Publication) -> tuple[LexicalStatistics, tuple[str, ...], list[str]]:
    """Statistics for BM25, the sources to mask with them, and the reasons to tell.

    They are the snapshot of the release; where it names none, or one that cannot be read, the bundle's copy.

    :raises PinfeatherError: if there are none, or none that can be read.
    """
    release, reasons = publication.release, []
    if release.lexical:
        try:
            if publication.statistics is not None:
                return publication.statistics, (), []
        except PinfeatherError as error:
            if not release.bundle:
                raise
            reasons = [reason("no_lexical", f"{told(publication, error)}; the bundle's copy is used")]
    bundle = publication.bundle
    if bundle is None:
        raise PinfeatherError(f"release {release.number} names no lexical statistics")
    without = bundle.manifest.without
    if off := lexical_off(without):
        masked = f"bm25 by the statistics of the bundle, without {', '.join(off)}"
        reasons.append(reason("lexical_masked", masked))
    return bundle.statistics, without, reasons


def no_words(publication: Publication) -> str | None:
    """The reason why BM25 cannot score, or None if it can."""
    try:
        word_statistics(publication)
    except PinfeatherError as error:
        return reason("no_lexical", told(publication, error))
    return None


def nothing_scores(publication: Publication, missing: Sequence[str]) -> UnavailableError:
    """The error where every scorer lacks something; ``missing`` are the reasons, the first one decides the code."""
    return UnavailableError(
        f"Nothing can score in {publication.paths.root.name}: {'; '.join(dict.fromkeys(missing))}. Run `pinfeather "
        "lexical fit`, `pinfeather materialize` or `pinfeather train student`.",
        code_of(missing[0]) or "no_lexical",
    )


def told(publication: Publication, error: PinfeatherError) -> str:
    """The error for whoever asks: without the folder of this machine, and as a part of a sentence."""
    return without_root(str(error), publication.paths.root)


def without_root(text: str, root: Path) -> str:
    """``text`` without the folder ``root``, as it was given and as the links in it lead, and without its full stop."""
    for folder in (root, root.resolve()):
        text = text.replace(f"{folder}/", "")
    return text.rstrip(".")
