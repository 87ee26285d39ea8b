"""Feast imported in a fraction of the time, where no object of a user's own is made."""

from __future__ import annotations

import sys
from typing import Any


def import_feast(torch: bool = True) -> None:
    """Import Feast, if it is not yet, without the checks of argument types that decorate its classes.

    The decorator, typeguard's, compiles every method again from its source: half of the cost of importing Feast. It
    tells the author of a definition what is wrong with it, so this is not for definitions of a user's own.

    :param torch: without it Feast, which imports torch if there is any, finds none in this process.
    """
    import typeguard

    checked, hidden = typeguard.typechecked, not torch and "torch" not in sys.modules
    typeguard.typechecked = unchecked  # type: ignore[assignment]
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        import feast.repo_operations  # noqa: F401
    finally:
        typeguard.typechecked = checked
        if hidden:
            del sys.modules["torch"]


def unchecked(target: Any = None, **_: Any) -> Any:
    """In the place of ``typeguard.typechecked``, bare or called with options: nothing is checked."""
    return (lambda decorated: decorated) if target is None else target
