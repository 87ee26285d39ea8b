"""Packaged patterns: personal data, addresses, broken text. Linear in the text: bounded runs, fixed anchors."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import regex

from feature_repo.errors import PinfeatherError
from feature_repo.screening.limits import Purpose

TIMEOUT_S = 1.0
"""A pattern that takes longer on one text is an error: an answer must not depend on how fast the machine is."""

_ALL = tuple(Purpose)
_WRITTEN = (Purpose.BOARD_TITLE, Purpose.QUERY, Purpose.CAPTION)
_OURS = (Purpose.BOARD_TITLE, Purpose.CAPTION)
_MAIL_HOSTS = (
    "gmail|googlemail|yahoo|hotmail|outlook|live|msn|icloud|aol|mail|email|gmx|web|t-online|freenet|proton|protonmail"
    "|qq|163|126|sina|sohu|yandex|naver|libero|free|orange|laposte|wanadoo"
)
_TELEPHONE = (
    "tel|tél|tlf|phone|fon|cell|mobile|whatsapp|viber|telephone|telefon|telefono|teléfono|téléphone|telefone|handy"
    "|call|call me|call me at|call me on|text me|ring me|тел|телефон|هاتف|تلفون|جوال"
)


@dataclass(frozen=True)
class Pattern:
    """A named pattern that refuses texts of some purposes; the name is the reason that is counted.

    ``holds`` looks at what was found (a check sum). For speed: ``usual`` patterns find nothing in a text without one of
    :data:`TRIGGERS`, nor without one of their ``signs`` if they have any.
    """

    name: str
    expression: str
    purposes: tuple[Purpose, ...] = _ALL
    holds: Callable[[str], bool] | None = None
    usual: bool = False
    signs: tuple[str, ...] = ()

    @cached_property
    def compiled(self) -> Any:
        """The compiled expression, without regard to case."""
        return regex.compile(self.expression, regex.IGNORECASE)

    def found(self, text: str) -> bool:
        """Whether the text is refused.

        :raises PinfeatherError: if the pattern takes longer than :data:`TIMEOUT_S`.
        """
        if self.signs and not any(sign in text for sign in self.signs):
            return False
        try:
            if self.holds is None:
                return self.compiled.search(text, timeout=TIMEOUT_S) is not None
            return any(self.holds(match.group()) for match in self.compiled.finditer(text, timeout=TIMEOUT_S))
        except TimeoutError as error:
            raise PinfeatherError(
                f"The screening pattern {self.name!r} ({self.expression!r}) took longer than {TIMEOUT_S:g} s on a text "
                f"of {len(text)} characters. Give its repeats an upper bound, for example {{1,64}} instead of +."
            ) from error


def _luhn(text: str) -> bool:
    """ISO/IEC 7812-1, annex B: from the right, every second digit doubled, digit sums add up to a multiple of 10."""
    digits = [int(sign) for sign in reversed(text) if sign.isdecimal()]
    if not 13 <= len(digits) <= 19 or digits[-1] not in (2, 3, 4, 5, 6) or len(set(digits)) == 1:
        return False
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[1::2])
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0


def _iban(text: str) -> bool:
    """ISO 13616: the first four signs go to the end, letters count from 10, the rest modulo 97 is 1."""
    signs = "".join(text.split()).upper()
    if not 15 <= len(signs) <= 34 or not signs.isascii():
        return False
    return int("".join(str(int(sign, 36)) for sign in signs[4:] + signs[:4])) % 97 == 1


def _phone(text: str, least: int = 8) -> bool:
    """E.164: at most 15 digits; fewer than 8 are a price or a size. Dates and book numbers are no telephones.

    Nor are numbers that count up ("12 13 14 15") and round ones ("200 300 1000", "1080 1920"), but after a 0, + or (.
    """
    groups = re.findall(r"\d+", text)
    digits = "".join(groups)
    if not least <= len(digits) <= 15 or len(set(digits)) == 1:
        return False
    numbers = [int(group) for group in groups] if text[0] not in "0+(" else []
    counts_up = len(numbers) > 2 and all(after - before == 1 for before, after in pairwise(numbers))
    if counts_up or (len(numbers) > 1 and not any(number % 10 for number in numbers)):
        return False
    dates = r"\d{4}[-./ ]\d\d?[-./ ]\d\d?|\d\d?[-./ ]\d\d?[-./ ]\d{4}"
    return regex.fullmatch(rf"{dates}|97[89][-\d ]{{10,14}}", text) is None


def _local_phone(text: str) -> bool:
    """A number after the word telephone may lack its area code; years are no telephones all the same."""
    return _phone(text, least=7) and not regex.fullmatch(r"(?:(?:18|19|20)\d\d[ \-./]*)+", text)


PATTERNS: tuple[Pattern, ...] = (
    Pattern(
        "mail address",
        r"(?<=[\w.+%-])@[\w-]{1,63}(?:\.[\w-]{1,63})+"
        r"|(?<=[\w.+%-]) ?[\[(] ?at ?[\])] ?[\w-]{1,63}(?: ?(?:\.|[\[(] ?dot ?[\])]) ?[a-z]{2,10}\b)"
        rf"|(?: @ ?|@ )(?<=[\w.+%-](?: @ ?|@ ))(?:{_MAIL_HOSTS})\.[a-z]{{2,3}}\b"
        r"|(?: @ ?|@ )(?<=\w[._+-]\w{1,30}(?: @ ?|@ ))[\w-]{1,63}(?:\.[\w-]{1,63}){0,2}\.[a-z]{2,10}\b"
        r"|(?<=[\w.+%-]) at (?:gmail|googlemail|yahoo|hotmail|outlook|icloud|gmx|proton(?:mail)?) dot [a-z]{2,3}\b",
        _WRITTEN,
        usual=True,
        signs=("@", "(", "[", "dot", "Dot", "DOT"),
    ),
    Pattern("payment card", r"(?<![\d.,])\d(?:[ -]?\d){12,18}(?![\d.,]\d|\d)", _WRITTEN, _luhn, usual=True),
    Pattern("bank account", r"\b[A-Z]{2}\d\d(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b", _WRITTEN, _iban, usual=True),
    Pattern("identity number", r"(?<![\d-])(?!000|666|9)\d{3}-(?!00)\d\d-(?!0000)\d{4}(?![\d-])", _WRITTEN, usual=True),
    Pattern(
        "phone number",
        r"(?<![\w.,+-])(?:\+|00)[ .]?[1-9](?:[ ().\-/]{0,3}\d){7,14}(?!\d)"  # international
        r"|(?<![\w.,+-])\(?0[1-9]\d{0,4}\)?(?:[ .\-/]{1,3}\d{2,8}){1,4}(?!\d|-\w)"  # trunk 0, written in groups
        r"|(?<![\w.,+-])0[1-9]\d{8,9}(?!\d)"
        r"|(?<![\w.,+-])(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[.-]\d{4}(?!\d)"  # North America
        r"|(?<![\w.,+-])\([2-9]\d{2}\) ?[2-9]\d{2} \d{4}(?!\d)"  # with spaces; a year at the end is none
        r"|(?<![\w.,+-])(?<!\d )(?:1 )?[2-9]\d{2} [2-9]\d{2} (?!(?:19|20)\d\d)\d{4}(?![a-z\d]| \d)"
        r"|(?<![\w.,+-])1[3-9]\d[ -]?\d{4}[ -]?\d{4}(?![\d])",  # China, mobile
        _WRITTEN,
        holds=_phone,
        usual=True,
    ),
    Pattern(
        "phone number",
        rf"\d(?<=(?:\b(?:{_TELEPHONE})\b(?: ?(?:number|no|nr|nummer)\b)?|电话|電話|手机|微信|전화|[☎📞📱])\W{{0,3}}\d)"
        r"(?:[ ().\-/]{0,2}\d){6,14}(?![a-z\d]| ?(?:[gmt]b|mah|[cm]m|px|in|x)\b)",
        _WRITTEN,
        holds=_local_phone,
        usual=True,
    ),
    Pattern(
        "handle",
        r"(?<![\w.+%@-])@(?!(?:home|work|school|office|night)\b)[a-z_][\w.]{1,29}",
        _WRITTEN,
        usual=True,
        signs=("@",),
    ),
    Pattern(
        "web address",
        r"\bhttps?:/{1,2}[^\s]{2}"
        r"|(?<=[\w-])\.(?:com|net|org|info|io|de|fr|es|it|nl|pl|ru|cn|uk|br|jp|shop|xyz|ly|me|be)/[\w?#]",
        _WRITTEN,
        usual=True,
        signs=("/",),
    ),
    Pattern(  # as a query it is a way to a shop, as a title it is an advertisement
        "web address",
        r"\bwww\.[\w-]{1,63}\.[a-z]{2}|(?<=[\w-]{2})\.(?:com|net|org|info|shop|xyz|co\.uk|de|fr|ru|cn|io)\b",
        _OURS,
        usual=True,
        signs=(".",),
    ),
    Pattern(
        "domain for sale",
        r"\b[\w-]{1,63}\.[a-z]{2,12} (?:is|may be) for sale\b",
        (Purpose.LINK,),
        usual=True,
        signs=("for sale",),
    ),
    Pattern(
        "broken text",
        r"\ufffd[^\ufffd]{0,40}\ufffd|\[object [a-z]{1,20}\]|\{\{[^{}]{0,80}\}\}|<%[^<>%]{0,80}%>"
        r"|\A(?:null|undefined|n/a)\Z",
        usual=True,
        signs=("\ufffd", "[obj", "{{", "<%", "null", "undefined", "n/a", "NULL", "N/A"),
    ),
    Pattern("broken text", r"[\ue000-\uf8ff]{2}", _WRITTEN, usual=True),
    Pattern("markup", r"</?(?:br|div|span|p|a|script|img)\b[^<>]{0,200}>", _WRITTEN, usual=True, signs=("<",)),
)
"""In the order in which they are tried; two of one name are one rule."""

TRIGGERS = re.compile(
    r"[@\d:/<{\[(\ufffd\ue000-\uf8ff]|\.[^\W\d_]|\b[Dd][Oo][Tt]\b|\A(?i:null|undefined)\Z|\bfor sale\b"
)
"""Without one of these in it no packaged pattern can be found: most titles have none, and the search for it is fast."""
