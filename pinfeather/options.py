"""Options that several commands share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from feature_repo.errors import UsageError

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class FiniteRange(click.FloatRange):
    """A number within bounds; NaN, which no comparison with the bounds refuses, is none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number; click's usage error if it is out of bounds or not finite."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number: give one in the range {self._describe_range()}.", param, ctx)
        return number


repo_option: Decorator = click.option(
    "--repo",
    default="feature_repo",
    show_default=True,
    envvar="PINFEATHER_REPO",
    show_envvar=True,
    metavar="DIR",
    help="The repository: a folder with feature_store.yaml.",
)
json_option: Decorator = click.option(
    "--json", "as_json", is_flag=True, envvar="PINFEATHER_JSON", show_envvar=True, help="Print JSON on stdout."
)
device_option: Decorator = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    envvar="PINFEATHER_DEVICE",
    show_envvar=True,
    help="Where the model runs; auto takes a GPU where there is one.",
)
precision_option: Decorator = click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16"]),
    default="auto",
    show_default=True,
    envvar="PINFEATHER_PRECISION",
    show_envvar=True,
    help="auto takes bf16 where the processor has it, else fp32.",
)
max_gone_option: Decorator = click.option(
    "--max-gone",
    default=0.2,
    show_default=True,
    show_envvar=True,
    type=FiniteRange(0, 1),
    help="Stop if more than this share is gone: of the pins, of a view's rows, for captions of the images.",
)
allow_deletes_option: Decorator = click.option(
    "--allow-deletes", is_flag=True, show_envvar=True, help="Believe a source that lost more than --max-gone."
)
lock_timeout_option: Decorator = click.option(
    "--lock-timeout",
    default=10.0,
    type=FiniteRange(0, 86_400),
    show_default=True,
    show_envvar=True,
    help="Seconds to wait for another writer.",
)
limit_option: Decorator = click.option(
    "--limit", default=10, show_default=True, type=click.IntRange(1, 1000), show_envvar=True
)
space_option: Decorator = click.option(
    "--space", default="live", show_default=True, show_envvar=True, help="live, a public or a physical name."
)


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What every command takes that writes vectors: keyword arguments of ``materialize.run.RunOptions``."""
    for option in (lock_timeout_option, allow_deletes_option, max_gone_option, precision_option, device_option):
        command = option(command)
    return command


def without_option(sources: Iterable[str], text: str) -> Decorator:
    """``--without SOURCE``, repeatable.

    :param sources: the names that are allowed.
    """
    return click.option(
        "--without",
        multiple=True,
        metavar="SOURCE",
        show_envvar=True,
        help=f"{text} Repeatable (in the variable: by spaces): {', '.join(sources)}.",
    )


def as_of_option(text: str) -> Decorator:
    """``--as-of TIME``."""
    return click.option("--as-of", metavar="TIME", show_envvar=True, help=text)


def parse_time(text: str | None) -> datetime | None:
    """An ISO 8601 time; without a zone it is UTC.

    :raises UsageError: if ``text`` is no time.
    """
    if text is None:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"--as-of {text!r} is no time: write it as 2026-11-01 or 2026-11-01T12:00:00+00:00 (ISO 8601)."
        ) from error
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    if when > datetime.now(UTC) + timedelta(days=1):
        raise UsageError(f"--as-of {text} lies in the future: give a time up to now, or leave it out.")
    return when
