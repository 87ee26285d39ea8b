"""Plain text out of the markup that shops write."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from typing import Any

from feature_repo.text import normalise

_TAG = re.compile(r"<[^>]*>")
_SKIPPED_TAGS = frozenset({"script", "style"})


def plain_text(markup: Any) -> str:
    """``markup`` without tags, scripts, styles and comments, entities resolved, whitespace folded; "" for None."""
    text = markup if isinstance(markup, str) else "" if markup is None else str(markup)
    if "<" not in text and "&" not in text:
        return normalise(text)
    reader = _TextOnly()
    try:
        reader.feed(text)
        reader.close()
    except AssertionError:  # the parser's answer to a broken declaration such as "<![x"
        return normalise(html.unescape(_TAG.sub(" ", text)))
    return normalise("".join(reader.parts))


class _TextOnly(HTMLParser):
    """Collects the text between tags."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._skipping = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A tag separates words; scripts and styles are left out up to their end."""
        self.parts.append(" ")
        if tag in _SKIPPED_TAGS:
            self._skipping = tag

    def handle_endtag(self, tag: str) -> None:
        """As :meth:`handle_starttag`."""
        self.parts.append(" ")
        if tag == self._skipping:
            self._skipping = ""

    def handle_data(self, data: str) -> None:
        """Text outside scripts and styles."""
        if not self._skipping:
            self.parts.append(data)
