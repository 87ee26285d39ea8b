"""Texts that a command embeds: from its arguments, or one a line from a file."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from feature_repo.errors import UsageError

_EXAMPLE = '["Living room", "green velvet sofa"]'


def texts_to_embed(texts: Sequence[str], file: str | None, boards: bool = False) -> list[str | list[str]]:
    """What was asked for, in order.

    :param file: read instead of ``texts``, blank lines left out; ``-`` is stdin.
    :param boards: a line that begins with ``[`` is a JSON list of texts: a board's title, then titles of its pins.
    :raises UsageError: for no text, an empty one, both ``texts`` and ``file``, or a file that cannot be read.
    """
    if texts and file is not None:
        raise UsageError("Give TEXT arguments or --file, not both.")
    if file is None:
        asked: list[str | list[str]] = list(texts)
    else:
        lines = enumerate(_read(file).splitlines(), 1)
        asked = [_board(line, number, file) if boards else line for number, line in lines if line.strip()]
    if not asked and file is not None:
        raise UsageError(f"--file {file} holds no text: write one a line.")
    if not asked:
        raise UsageError("There is nothing to embed: give TEXT arguments, or --file with one text a line.")
    if any(isinstance(text, str) and not text.strip() for text in asked):
        raise UsageError("A TEXT is empty: give the words of a query or board, or the id of a pin.")
    return asked


def _read(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"--file {file} cannot be read ({error}): name a file of UTF-8 text, or - for stdin."
        ) from error


def _board(line: str, number: int, file: str) -> str | list[str]:
    """A line as a title, or as a list of a board's title and the titles of its pins."""
    if not line.lstrip().startswith("["):
        return line
    try:
        board = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"--file {file}, line {number}, begins with [ and is no JSON list ({error}): write {_EXAMPLE}."
        ) from error
    if not board or not all(isinstance(text, str) for text in board):
        raise UsageError(
            f"--file {file}, line {number}: a board is a list of its title and titles of its pins, texts all, such as "
            f"{_EXAMPLE}."
        )
    return list(board)
