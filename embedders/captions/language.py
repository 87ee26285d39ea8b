"""The language that captions are expected in, as a person writes it."""

from __future__ import annotations

from feature_repo.errors import UsageError
from feature_repo.screening import language_code

ANY = "any"
"""Says that captions may be in any language."""

_LISTED = (
    "aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en eo "
    "es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka "
    "kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng "
    "nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su "
    "sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu"
)
CODES = frozenset(_LISTED.split())
"""ISO 639-1: a code that nothing has, such as "jp", would judge captions by a language that there is not."""


def expected_language(given: str | None) -> str | None:
    """The ISO 639-1 code in ``given``: "en" of "EN" and of "en-US"; None for None and for :data:`ANY`.

    :raises UsageError: if it names no language of ISO 639-1.
    """
    if given is None or given.strip().lower() == ANY:
        return None
    code = language_code(given)
    if code not in CODES:
        raise UsageError(
            f"language {given!r} is none that is known: give a code of two letters (ISO 639-1: en, de, fr, ...), or "
            f"{ANY} for captions in any language."
        )
    return code
