"""Counts of collections that nobody changed since they were counted, so that a run with nothing to do opens none.

To open a collection takes the engine tens of milliseconds, and longer the more is in it. An answer holds as long as the
files of its collection are those that the last writer left, by size, inode and times; a writer forgets it before it
changes anything.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

FILE, _VERSION = ".counts", 1


class KnownCounts:
    """Answers about the collections in a folder; not for several threads at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._answers: dict[str, dict[str, int]] = {}
        self._noted: dict[str, tuple[str, dict[str, int]]] = {}
        try:
            kept = json.loads((folder / FILE).read_text(encoding="utf-8"))
            if kept["version"] == _VERSION:
                self._noted = {name: (one["files"], dict(one["answers"])) for name, one in kept["collections"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass  # nothing is known then

    def get(self, name: str, question: str) -> int | None:
        """The answer to a question about a collection; None if it is not known."""
        if name not in self._answers:
            files, answers = self._noted.get(name, ("", {}))
            self._answers[name] = dict(answers) if files and files == _state(self._folder / name) else {}
        return self._answers[name].get(question)

    def note(self, name: str, question: str, answer: int) -> None:
        """Keep an answer; the collection was asked just now."""
        self._answers.setdefault(name, {})[question] = answer

    def forget(self, name: str) -> None:
        """Forget what is known of a collection, which is about to change."""
        self._answers[name] = {}

    def save(self) -> None:
        """Write down what is known; all collections are closed, so that their files stay as they are."""
        for name, answers in self._answers.items():
            self._noted[name] = _state(self._folder / name), answers
        kept = {name: {"files": files, "answers": known} for name, (files, known) in self._noted.items() if known}
        if not self._answers:
            return
        new = self._folder / f"{FILE}.{os.getpid()}"
        with suppress(OSError):  # a full disk, say: then the next writer counts again
            new.write_text(json.dumps({"version": _VERSION, "collections": kept}), encoding="utf-8")
            new.replace(self._folder / FILE)


def _state(collection: Path) -> str:
    """Equal where the files are the same; empty if there is none, or one goes meanwhile."""
    lines = []
    try:
        for folder, _, files in os.walk(collection):
            for file in files:
                found = os.stat(os.path.join(folder, file))
                numbers = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
                lines.append(f"{folder}/{file} {numbers}")
    except OSError:
        return ""
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest() if lines else ""
