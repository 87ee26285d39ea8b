"""What may go wrong between a source, a store and the books about both: every case on 50 documents, run for real."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from benchmarks.materialize.peers_documents import (
    KILLED,
    Document,
    FakeEncoder,
    Row,
    documents,
    text,
    vectors,
    verdict,
)

_COUNT = 50
_SWAPPED, _SHARED, _GONE, _TAGGED, _LOST, _EDITED = (3, 4), (5, 6), 7, 8, 9, 10


class System(Protocol):
    """One indexer over one folder."""

    def reset(self) -> None:
        """Begin anew, with nothing stored."""

    def prepare(self, documents: list[Document]) -> None:
        """Write the source where the system reads one."""

    def sync(self, documents: list[Document], encoder: FakeEncoder, dies: str | None = None) -> dict[str, Any]:
        """Make the store equal to ``documents`` and give the indexer's own report.

        :param dies: kill the process once vectors are written (``"store"``) or deleted (``"delete"``) and the books
            about it are not.
        """

    def stored(self) -> list[Row]:
        """Every row of the store."""

    def lose(self, document: Document) -> None:
        """Take a document's vector away behind the indexer's back."""

    def alter(self, document: Document, vector: bytes) -> None:
        """Put another vector in its place behind the indexer's back."""


@dataclass(frozen=True)
class Case:
    """A first run on the base, perhaps a run over ``killed`` that dies at ``dies``, then a clean run on ``final``."""

    name: str
    final: list[Document]
    killed: list[Document] | None = None
    dies: str | None = None
    tamper: str | None = None


def base() -> list[Document]:
    """50 documents, two of which share a text."""
    made = list(documents(_COUNT))
    made[_SHARED[1]] = made[_SHARED[1]]._replace(text=made[_SHARED[0]].text)
    return made


def edited(**texts: str) -> list[Document]:
    """The base with other texts, by ``docN``, and a document more if ``new`` is given."""
    made = base()
    for name, words in texts.items():
        if name == "new":
            made.append(Document("new", words, "en"))
        else:
            made[int(name.removeprefix("doc"))] = made[int(name.removeprefix("doc"))]._replace(text=words)
    return made


def cases() -> list[Case]:
    """Every case, in the order of the table."""
    plain = base()
    one, two = _SWAPPED
    swapped = edited(**{f"doc{one}": plain[two].text, f"doc{two}": plain[one].text})
    without = [document for place, document in enumerate(plain) if place != _GONE]
    tagged = [document._replace(tag="de") if place == _TAGGED else document for place, document in enumerate(plain)]
    made = [
        Case("two documents swap their texts", swapped),
        Case("of two with one text, one changes", edited(**{f"doc{_SHARED[0]}": text("its own")})),
        Case("a document is deleted", without),
        Case("metadata alone changes", tagged),
        Case("a vector is lost from the store", plain, tamper="lose"),
        Case("a vector is altered in the store", plain, tamper="alter"),
    ]
    change = edited(**{f"doc{_EDITED}": text("B")}, new=text("new"))
    other = edited(**{f"doc{_EDITED}": text("C")}, new=text("newer"))
    for dies, words in (("encoder", "killed in the encoder"), ("store", "killed after the vector write")):
        made += [
            Case(f"{words}, then again", change, killed=change, dies=dies),
            Case(f"{words}, edit taken back", plain, killed=change, dies=dies),
            Case(f"{words}, edited once more", other, killed=change, dies=dies),
        ]
    return [
        *made,
        Case("killed after the vector's deletion, then again", without, killed=without, dies="delete"),
        Case("killed after the vector's deletion, taken back", plain, killed=without, dies="delete"),
    ]


def in_a_process(work: Callable[[], Any]) -> tuple[int, Any]:
    """Exit code and result of ``work`` in a process of its own, which nothing survives but what is on disk."""
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            with os.fdopen(writing, "w") as pipe:
                json.dump(work(), pipe, default=str)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code, json.loads(said) if code == 0 else None


def clean_run(make: Callable[[], System], source: list[Document]) -> dict[str, Any]:
    """A run in a process of its own: what the indexer says, and what it had encoded.

    :raises RuntimeError: if it fails.
    """

    def work() -> dict[str, Any]:
        system, encoder = make(), FakeEncoder()
        system.prepare(source)
        said = system.sync(source, encoder)
        return {"says": said, "encoded_texts": encoder.texts}

    code, done = in_a_process(work)
    if code:
        raise RuntimeError(f"The indexer ended with exit code {code}: its error is above.")
    result: dict[str, Any] = done
    return result


def checked(make: Callable[[], System], truth: list[Document]) -> dict[str, int]:
    """What is wrong in the store, read by a process of its own; see :func:`.peers_documents.verdict`."""
    code, found = in_a_process(lambda: verdict(make().stored(), truth))
    if code:
        raise RuntimeError(f"The store could not be read, exit code {code}: the error is above.")
    wrong: dict[str, int] = found
    return wrong


def run_case(make: Callable[[], System], case: Case) -> dict[str, Any]:
    """Reproduce ``case`` on the system that ``make`` opens in each process.

    ``wrong`` of the result is empty where every document is right afterwards.

    :raises RuntimeError: if a step does not do what the case is about: the cell would say nothing.
    """
    in_a_process(lambda: make().reset())
    clean_run(make, base())
    if wrong := checked(make, base()):
        raise RuntimeError(f"The first run of {case.name!r} left {wrong}: no case can begin from here.")
    if case.tamper:
        target = base()[_LOST]
        other = vectors([text("not its own")])[0].tobytes()
        in_a_process(lambda: make().lose(target) if case.tamper == "lose" else make().alter(target, other))
        if not checked(make, base()):
            raise RuntimeError(f"{case.name!r}: nothing was lost or altered.")
    if case.killed:
        _die(make, case, case.killed)
    done = clean_run(make, case.final)
    return {"wrong": checked(make, case.final), **done}


def _die(make: Callable[[], System], case: Case, source: list[Document]) -> None:
    def work() -> None:
        system = make()
        system.prepare(source)
        system.sync(source, FakeEncoder(dies=case.dies == "encoder"), case.dies)

    code, _ = in_a_process(work)
    if code != KILLED:
        raise RuntimeError(f"{case.name!r}: the run was not killed where it should be, exit code {code}.")
