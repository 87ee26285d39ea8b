"""The options that filter pins, alike in every command that lists them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

_OPTIONS = (
    click.option("--lang", multiple=True, show_envvar=True, help="Only pins of this language; repeatable."),
    click.option("--country", multiple=True, show_envvar=True, help="Only of this country; repeatable."),
    click.option(
        "--created-after",
        metavar="TIME",
        show_envvar=True,
        help="Only pins created then or later (ISO 8601, UTC unless it says otherwise).",
    ),
    click.option(
        "--safe/--unsafe",
        default=None,
        show_envvar=True,
        help="Only pins that their column safe calls safe; or only those that it does not.",
    ),
)


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``--lang``, ``--country``, ``--created-after`` and ``--safe``; see :func:`filters_of`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def filters_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """What the client takes as filters; an option that was not given filters nothing."""
    return {name: None if value == () else value for name, value in given.items()}
