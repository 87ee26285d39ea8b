"""What an erasure that was begun still has to look after; gone when it is done."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from feature_repo.erasures import write_private
from feature_repo.errors import PinfeatherError
from feature_repo.paths import RepoPaths


@dataclass(frozen=True)
class Pending:
    """The pins whose rows, vectors and past vectors are not settled yet. Names of users and queries are not in it."""

    pins: frozenset[str] = frozenset()
    """Pins that leave."""
    touched: frozenset[str] = frozenset()
    """Pins that stay and may have had words from a row that left."""
    keyed: bool = False
    """Whether online rows may have the name in their key: a pin or a query was erased."""
    former: bool = False
    """Whether vectors of older texts leave of all pins, not only of these."""

    @property
    def all_pins(self) -> frozenset[str]:
        """Both."""
        return self.pins | self.touched

    def __or__(self, other: Pending) -> Pending:
        return Pending(
            self.pins | other.pins,
            self.touched | other.touched,
            self.keyed or other.keyed,
            self.former or other.former,
        )


def _path(paths: RepoPaths) -> Path:
    return paths.erasures / "pending.json"


def is_pending(paths: RepoPaths) -> bool:
    """Whether an erasure was begun and has not ended."""
    return _path(paths).is_file()


def load_pending(paths: RepoPaths) -> Pending | None:
    """What was begun, None for nothing.

    :raises PinfeatherError: if the file cannot be read.
    """
    path = _path(paths)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        former = bool(data.get("former", False))
        return Pending(frozenset(data["pins"]), frozenset(data["touched"]), bool(data["keyed"]), former)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PinfeatherError(
            f"{path} cannot be read ({error}), so it is not known what an erasure had begun. Remove the file and give "
            "`pinfeather erase` the same names again."
        ) from error


def save_pending(paths: RepoPaths, pending: Pending) -> None:
    """Write what was begun; on return it is on disk."""
    data = {
        "pins": sorted(pending.pins),
        "touched": sorted(pending.touched),
        "keyed": pending.keyed,
        "former": pending.former,
    }
    write_private(_path(paths), json.dumps(data).encode())


def end_pending(paths: RepoPaths) -> None:
    """Note that everything is done."""
    _path(paths).unlink(missing_ok=True)
