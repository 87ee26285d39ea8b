"""Which texts of a linked page are left out, and why.

Each text on its own: an error page, boilerplate or whatever else :mod:`feature_repo.screening` refuses; a text that is
surely in another language than the pin says it is in; one that names only the site ("Etsy", "example.com"); and one
that repeats the pin's own title or description, or a description its title.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from urllib.parse import urlsplit

from feature_repo.screening import Purpose, Screening, other_language
from feature_repo.screening.folding import folded_words
from feature_repo.text import normalise

LINK_GATE_VERSION = 2
"""Bumped when the same rules would judge a link text otherwise."""
LINK_FIELDS = ("link_title", "link_description")
_BLANK = ""
_COMPARED_CHARACTERS = 400


def refusals(
    screening: Screening,
    link_title: str | None,
    link_description: str | None,
    title: str | None = None,
    description: str | None = None,
    lang: str | None = None,
    url: str | None = None,
) -> Iterator[tuple[str, str]]:
    """The link texts that are left out, each with its reason; an empty reason for a text that is only blank.

    :param title: the pin's own title, as ``description`` and ``lang`` are the pin's.
    :param url: address of the page.
    """
    said = {_start(normalise(text)) for text in (title, description) if text}
    for name, text in zip(LINK_FIELDS, (link_title, link_description), strict=True):
        if text is None:
            continue
        plain = normalise(text)
        mine = _start(plain)
        if not plain:
            yield name, _BLANK
        elif reason := _reason(screening, plain, lang, url):
            yield name, reason
        elif mine in said:
            yield name, "repeats the pin"
        said.add(mine)


def _reason(screening: Screening, text: str, lang: str | None, url: str | None) -> str | None:
    rest = _without_site(screening, text, url) if url else text
    if not rest:
        return "site name"
    if reason := screening.reason(rest, Purpose.LINK, lang):
        return reason
    return "other language" if other_language(text, lang) else None


def _start(text: str) -> tuple[str, ...]:
    """The first words, by which two texts are taken for the same."""
    return tuple(folded_words(text[:_COMPARED_CHARACTERS]))


def _without_site(screening: Screening, text: str, url: str) -> str:
    """The segments of a short text but those that are the name of the site."""
    segments = screening.segments(text)
    names = _site_names(_host(url)) if segments else frozenset()
    rest = [segment for segment in segments if "".join(folded_words(segment)) not in names]
    return text if len(rest) == len(segments) else " | ".join(rest)


def _host(url: str) -> str:
    try:
        return urlsplit(url if "//" in url else f"//{url}").hostname or ""
    except ValueError:  # an address that is none names no site
        return ""


@lru_cache(maxsize=65_536)
def _site_names(host: str) -> frozenset[str]:
    """How a page may write its site: the host, without ``www``, its longer parts; letters and digits only."""
    host = host.removeprefix("www.")
    parts = host.split(".")
    joined = ("".join(parts), "www" + "".join(parts), "".join(parts[:-1]), *parts[:-1])
    return frozenset("".join(folded_words(part)) for part in joined if len(part) > 2)
