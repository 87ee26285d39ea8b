"""Whether results can be written: asked before the work that makes them, which may take an hour."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from feature_repo.errors import PinfeatherError


def check_writable(option: str, folder: str | Path) -> None:
    """Nothing, if files can be made in ``folder``, or it can be made itself.

    :param option: which names it, for the error.
    :raises PinfeatherError: if not.
    """
    there = Path(folder).expanduser().absolute()
    while not os.path.exists(there):  # Path.exists raises where it may not look
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise PinfeatherError(
            f"{option}: nothing can be written to {there} ({error.strerror or error}). Name another place, or make "
            "that one writable; nothing was computed."
        ) from error
