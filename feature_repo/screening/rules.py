"""All screening rules as one value: the packaged ones, changed by ``screening.yaml`` in the repository."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import regex

from feature_repo.errors import PinfeatherError
from feature_repo.screening.generic import GENERIC_WORDS
from feature_repo.screening.limits import Limits, Purpose
from feature_repo.screening.patterns import PATTERNS, TIMEOUT_S, Pattern
from feature_repo.screening.words import BOILERPLATE, ERROR_PAGES, PROFANITY
from feature_repo.text import words

RULES_FILE = "screening.yaml"
_LISTS = ("error_pages", "boilerplate", "generic_words")
_KEYS = ("limits", "patterns", "profanity", *_LISTS)
# What a careless pattern chokes on: long runs of one kind, and runs that nearly match.
_PROBES = ("a" * 20_000, "0 " * 10_000, "a.b-c@" * 3_000, "ab " * 6_000 + "!")


@dataclass(frozen=True)
class Rules:
    """Every list and number that screening goes by."""

    limits: Limits = field(default_factory=Limits)
    patterns: tuple[Pattern, ...] = PATTERNS
    profanity: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: dict(PROFANITY))
    error_pages: tuple[str, ...] = ERROR_PAGES
    boilerplate: tuple[str, ...] = BOILERPLATE
    generic_words: tuple[str, ...] = GENERIC_WORDS


def load_rules(root: Path) -> Rules:
    """The rules of the repository in ``root``: ``screening.yaml`` where there is one changes the packaged ones.

    :raises PinfeatherError: for a file that cannot be read, an unknown key, a value of the wrong kind, a bad pattern.
    """
    path = root / RULES_FILE
    given = _read(path)
    _known(path, "", given, _KEYS)
    rules = Rules()
    lists = {name: _changed(path, name, getattr(rules, name), given[name]) for name in _LISTS if name in given}
    return replace(
        rules,
        limits=_limits(path, given.get("limits", {})),
        patterns=_patterns(path, given.get("patterns", {})),
        profanity=_profanity(path, given.get("profanity", {})),
        **lists,
    )


def _read(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise PinfeatherError(f"{path} cannot be read as UTF-8 text ({error}). Correct it or take it away.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise PinfeatherError(f"{path}{line}: {getattr(error, 'problem', None) or 'no YAML'}. Correct it.") from error
    return _mapping(path, "the file", {} if found is None else found)


def _mapping(path: Path, name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise PinfeatherError(f"{path}: {name} is {value!r}; a mapping of names to values is wanted.")
    return value


def _known(path: Path, where: str, given: Iterable[Any], allowed: tuple[str, ...]) -> None:
    for key in given:
        if key not in allowed:
            raise PinfeatherError(f"{path}: unknown key {where}{key}. Allowed: {', '.join(allowed)}.")


def _limits(path: Path, given: Any) -> Limits:
    given = _mapping(path, "limits", given)
    names = tuple(one.name for one in fields(Limits))
    _known(path, "limits.", given, names)
    for name, value in given.items():
        least = 0 if name == "early_seconds" else 1
        if type(value) is not int or value < least:
            raise PinfeatherError(f"{path}: limits.{name} is {value!r}; a whole number of at least {least} is wanted.")
    return Limits(**given)


def _texts(path: Path, name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) and words(one) for one in value):
        raise PinfeatherError(f"{path}: {name} is {value!r}; a list of texts with a letter or digit in each is wanted.")
    return tuple(value)


def _changed(path: Path, name: str, packaged: tuple[str, ...], given: Any) -> tuple[str, ...]:
    """A list replaces the packaged one, null empties it, a mapping of ``add`` and ``remove`` changes it."""
    if given is None:
        return ()
    if not isinstance(given, dict):
        return _texts(path, name, given)
    _known(path, f"{name}.", given, ("add", "remove"))
    removed = _texts(path, f"{name}.remove", given.get("remove", []))
    for text in removed:
        if text not in packaged:
            raise PinfeatherError(f"{path}: {name}.remove names {text!r}, which is not in the packaged list.")
    kept = tuple(text for text in packaged if text not in removed)
    return (*kept, *_texts(path, f"{name}.add", given.get("add", [])))


def _profanity(path: Path, given: Any) -> dict[str, tuple[str, ...]]:
    if given is None:
        return {}
    lists = dict(PROFANITY)
    for lang, change in _mapping(path, "profanity", given).items():
        if not isinstance(lang, str) or not regex.fullmatch("[a-z]{2,3}", lang):  # YAML reads a bare no as false
            raise PinfeatherError(f'{path}: profanity has the language {lang!r}; write a code as "en" or "no".')
        lists[lang] = _changed(path, f"profanity.{lang}", lists.get(lang, ()), change)
    return lists


def _patterns(path: Path, given: Any) -> tuple[Pattern, ...]:
    if given is None:
        return ()
    given = _mapping(path, "patterns", given)
    packaged = tuple(dict.fromkeys(pattern.name for pattern in PATTERNS))
    for name, value in given.items():
        if value is None and name not in packaged:
            raise PinfeatherError(
                f"{path}: patterns.{name} is null, which switches off a packaged pattern; there are: "
                f"{', '.join(packaged)}."
            )
    kept = tuple(pattern for pattern in PATTERNS if pattern.name not in given)
    own = (_pattern(path, str(name), value) for name, value in given.items() if value is not None)
    return (*kept, *own)


def _pattern(path: Path, name: str, given: Any) -> Pattern:
    given = {"pattern": given} if isinstance(given, str) else _mapping(path, f"patterns.{name}", given)
    _known(path, f"patterns.{name}.", given, ("pattern", "purposes"))
    expression, purposes = given.get("pattern"), given.get("purposes", [str(one) for one in Purpose])
    allowed = [str(one) for one in Purpose]
    if not isinstance(purposes, list) or not purposes or any(one not in allowed for one in purposes):
        raise PinfeatherError(
            f"{path}: patterns.{name}.purposes is {purposes!r}; a list of {', '.join(allowed)} is wanted."
        )
    pattern = Pattern(name, str(expression), tuple(Purpose(one) for one in purposes))
    try:
        if not isinstance(expression, str) or pattern.compiled.fullmatch("", timeout=TIMEOUT_S):
            raise PinfeatherError(
                f"{path}: patterns.{name} is {expression!r}; a pattern that wants a character is wanted."
            )
    except regex.error as error:
        raise PinfeatherError(
            f"{path}: patterns.{name} ({expression!r}) is no regular expression: {error}. Correct it, or take it away."
        ) from error
    for probe in _PROBES:
        try:
            pattern.found(probe)
        except PinfeatherError as error:
            raise PinfeatherError(f"{path}: {error}") from error
    return pattern
