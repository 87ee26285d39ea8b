"""Kill -9 at 200 moments of a run with edits and a promotion; after each, what the next run makes of it.

Run from the checkout's root (twenty minutes on 2 cores):

    .venv/bin/python -m benchmarks.materialize.kills

The repository has 300 pins in two full spaces on Qdrant Edge (``kills_repo.py``); its source was edited: texts swapped,
changed, shared, pins deleted and added. A process that runs `materialize` and promotes the second space is killed, each
time from the same state. Moments are spread evenly over the calls of Python and C functions in each stage, with a
seeded offset (``kills_stages.py``), and the process kills itself there; every tenth kill comes from outside, after a
random part of the usual duration, and is counted where it hits. Batches have 16 texts, ledger shards 128 entries, and
logs are merged beyond 8 parts, so that every step comes many times. The encoder is a FAKE that records each text in a
file before it makes a vector. A kill loses nothing that was given to the kernel, so a folder in memory proves as much
and is faster: ``--folder /dev/shm``.

After each kill: a reader that was opened before still gives its answers; the newest publication is whole; a clean run
follows; then the audit must be clean, every space, row, ledger and log must hold exactly what the source says (0 stale,
0 lost, 0 double), and over both runs at most one batch of texts was encoded twice, none oftener. Exit code 1 if not.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # a forked child has none of its parent's threads
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from benchmarks.machine import RESULTS, ROOT, machine, save
from benchmarks.materialize.kills_repo import (
    BATCH,
    PINS,
    Answers,
    LoggingEncoder,
    judge_end,
    judge_publication,
    make,
    recorded,
    run_and_promote,
    shrink,
    to_encode,
    warm,
)
from benchmarks.materialize.kills_stages import NAMES, Stages, counts, follow
from feature_repo.paths import RepoPaths
from materialize.stores.publication import open_reader

LEAST = 20
"""Kills in each stage of the issue, that of a promotion taken as one."""
WANTED = {
    "scan": 24,
    "encode": 24,
    "upsert": 24,
    "between upsert and commit": 24,
    "shard rename": 24,
    "log merge": 8,
    "publication": 24,
    "promote: gate": 8,
    "promote: switch": 20,
}
CLOCK = 20
SEED = 4


@dataclass
class Kill:
    """One kill and what came of it."""

    stage: str
    """Where the process died; ``over`` if it had ended before."""
    by: str
    """``call 17 of 300`` or ``clock``."""
    wrong: list[str] = field(default_factory=list)
    tally: dict[str, int] = field(default_factory=dict)
    encoded_before: int = 0
    """Texts on record at the kill."""
    twice: int = 0
    """Texts that were encoded a second time by the clean run."""
    cpu_seconds: float = 0.0

    def words(self) -> str:
        """In one line."""
        texts = f"{self.encoded_before:3} texts encoded, then {self.twice:2} again"
        return f"{self.stage:26}{self.by:23}{texts}, {self.cpu_seconds:4.1f} CPU s: {'; '.join(self.wrong) or 'right'}"


class Bench:
    """The repository as it was before the kill, restored for each, and the processes that are forked on it.

    This process opens no engine, ever: an engine does not outlive a fork.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.root, self.kept = folder, folder / "repo", folder / "kept"
        self.record = folder / "texts"
        self.board = mmap.mmap(-1, 4096)
        subprocess.run(
            [sys.executable, "-m", "benchmarks.materialize.kills", "--make", self.root], cwd=ROOT, check=True
        )
        self.root.rename(self.kept)
        shrink()
        warm()

    def restore(self) -> None:
        """The repository as :func:`make` left it; the engine's files are sparse and stay so."""
        shutil.rmtree(self.root, ignore_errors=True)
        subprocess.run(["cp", "-a", "--sparse=always", "--reflink=auto", self.kept, self.root], check=True)
        self.record.unlink(missing_ok=True)

    @property
    def encoder(self) -> LoggingEncoder:
        """A new one that records into the benchmark's file."""
        return LoggingEncoder(self.record)

    def victim(self, stage: str = "", call: int = 0, *, counting: bool = False) -> Callable[[], None]:
        """The work of the process that is killed."""

        def work() -> None:
            stages = Stages(self.board, stage, call, counting=counting)
            follow(stages)
            run_and_promote(RepoPaths(self.root), self.encoder)
            stages.close()

        return work

    def reader(self, ready: int, go: int, answer: Path) -> Callable[[], None]:
        """The work of the process that reads before the kill and judges after it."""

        def work() -> None:
            paths = RepoPaths(self.root)
            with open_reader(paths.online) as old, open_reader(paths.online) as new:
                first = Answers(paths, old)
                os.write(ready, b"r")
                os.read(go, 1)
                again = Answers(paths, old)
                wrong = []
                if (again.spaces, again.rows) != (first.spaces, first.rows):
                    wrong.append("a reader from before the kill answers otherwise")
                new.refresh()
                release = new.release or {}
                wrong += judge_publication(Answers(paths, new), *release["names"].values())
                more, tally = judge_end(paths, self.encoder)
                again = Answers(paths, old)
                if (again.spaces, again.rows) != (first.spaces, first.rows):
                    wrong.append("a reader from before the kill answers otherwise after the clean run")
            answer.write_text(json.dumps({"wrong": wrong + more, "tally": tally}))

        return work

    def kill(self, stage: str, call: int, after: float | None = None) -> Kill:
        """Restore, read, run, kill, run again, judge.

        :param after: kill from outside so many seconds after the start.
        """
        self.restore()
        spent = os.times()
        answer = self.folder / "answer.json"
        answer.unlink(missing_ok=True)
        (hears, ready), (go, tells) = os.pipe(), os.pipe()
        reader = fork(self.reader(ready, go, answer))
        os.read(hears, 1)
        self.board[0] = 0
        victim = fork(self.victim(stage, call))
        if after is not None:
            time.sleep(after)
            os.kill(victim, signal.SIGKILL)
        _, status = os.waitpid(victim, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        done = Kill(NAMES[self.board[0]] if killed else "over", f"call {call}" if after is None else "clock")
        if not killed and status:
            done.wrong.append(f"the process that was to be killed failed by itself: status {status}")
        before = recorded(self.record)
        done.encoded_before = before.total()
        os.write(tells, b"g")
        os.waitpid(reader, 0)
        for handle in (hears, ready, go, tells):
            os.close(handle)
        if not answer.is_file():
            done.wrong.append("the clean run failed: see its traceback above")
            return done
        said = json.loads(answer.read_text())
        done.wrong += said["wrong"]
        done.tally = said["tally"]
        texts, needed = recorded(self.record), to_encode()
        done.twice = (texts - needed).total()
        if not texts.keys() <= needed.keys() or max(texts.values()) > 2 or done.twice > BATCH:
            done.wrong.append(f"{done.twice} texts were encoded without need, the oftenest {max(texts.values())} times")
        now = os.times()
        done.cpu_seconds = round(
            now.children_user + now.children_system - spent.children_user - spent.children_system, 2
        )
        return done

    def count(self) -> tuple[dict[str, int], float]:
        """Calls by stage of a run that nobody kills, and the seconds that one takes that counts nothing."""
        self.restore()
        _, status = os.waitpid(fork(self.victim(counting=True)), 0)
        if status:
            raise SystemExit(f"The run without a kill failed (status {status}).")
        if recorded(self.record) != to_encode():
            raise SystemExit("The run without a kill did not encode every new text once.")
        calls = counts(self.board)
        self.restore()
        start = time.perf_counter()
        os.waitpid(fork(self.victim()), 0)
        return calls, time.perf_counter() - start


def fork(work: Callable[[], None]) -> int:
    """The id of a child that does ``work`` and ends."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    try:
        work()
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        os._exit(1)
    os._exit(0)


def moments(calls: dict[str, int], scale: float, rng: random.Random) -> list[tuple[str, int]]:
    """Stage and call of each kill, spread evenly over the calls of its stage."""
    planned = []
    for stage, wanted in WANTED.items():
        number = max(1, round(wanted * scale))
        for place in range(number):
            planned.append((stage, 1 + int((place + rng.random()) / number * calls[stage])))
    return planned


def measure(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    """All kills; the report without the machine."""
    rng = random.Random(options.seed)
    calls, seconds = bench.count()
    clock = round(options.kills * CLOCK / (sum(WANTED.values()) + CLOCK))
    scale = (options.kills - clock) / sum(WANTED.values())
    print(f"{sum(calls.values())} calls by stage: {calls}; a run takes {seconds:.1f} s", flush=True)
    kills = []
    todo: list[tuple[str, int, float | None]] = [(stage, call, None) for stage, call in moments(calls, scale, rng)]
    todo += [("", 0, rng.uniform(0.02, 1.0)) for _ in range(clock)]
    while todo:
        stage, call, share = todo.pop(0)
        kill = bench.kill(stage, call, None if share is None else share * seconds)
        if kill.stage == "over" and not kill.wrong:  # runs differ by a few calls, and by seconds where others work
            seconds = seconds if share is None else share * seconds
            todo.append((stage, int(call * 0.9), share))
            continue
        kill.by += f" of {calls[stage]}" if stage else ""
        kills.append(kill)
        print(f"{len(kills):4} {kill.words()}", flush=True)
    return {
        "pins": PINS,
        "batch_texts": BATCH,
        "texts_to_encode": to_encode().total(),
        "seed": options.seed,
        "calls_by_stage": calls,
        "kills": len(kills),
        "wrong": sum(bool(kill.wrong) for kill in kills),
        "stale": sum(kill.tally.get("stale", 0) for kill in kills),
        "lost": sum(kill.tally.get("lost", 0) for kill in kills),
        "double": sum(kill.tally.get("double", 0) for kill in kills),
        "most_texts_twice": max(kill.twice for kill in kills),
        "stages": [stage_row(stage, kills) for stage in NAMES if any(kill.stage == stage for kill in kills)],
        "each": [kill.words() for kill in kills],
    }


def stage_row(stage: str, kills: list[Kill]) -> dict[str, Any]:
    """The kills of one stage."""
    those = [kill for kill in kills if kill.stage == stage]
    wrong, twice = sum(bool(kill.wrong) for kill in those), max(kill.twice for kill in those)
    return {"stage": stage, "kills": len(those), "wrong": wrong, "most_texts_twice": twice}


def print_table(report: dict[str, Any]) -> None:
    """The report for a reader."""
    print(f"\n{'killed in':28}{'kills':>6}{'wrong':>6}{'texts twice at most':>21}")
    for row in report["stages"]:
        print(f"{row['stage']:28}{row['kills']:>6}{row['wrong']:>6}{row['most_texts_twice']:>21}")
    print(f"{report['kills']} kills: {report['stale']} stale, {report['lost']} lost, {report['double']} double")


def enough(report: dict[str, Any]) -> bool:
    """Whether every stage of the issue was hit often enough."""
    by_stage = Counter({row["stage"]: row["kills"] for row in report["stages"]})
    by_stage["promote"] = sum(number for stage, number in by_stage.items() if stage.startswith("promote"))
    stages = [stage for stage, wanted in WANTED.items() if wanted > LEAST]
    return all(by_stage[stage] >= LEAST for stage in [*stages, "promote"])


def main() -> int:
    """Kill, judge, write the JSON report; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=sum(WANTED.values()) + CLOCK, help="how many (default 200)")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--out", type=Path, help="the JSON report; default results/materialize_kills.json")
    parser.add_argument("--folder", type=Path, help="where to put the repository; default a temporary folder")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make(options.make)
        return 0
    about = machine("materialize.kills", ("qdrant-edge-py", "duckdb", "pyarrow", "numpy"))
    folder = Path(tempfile.mkdtemp(prefix="kills-", dir=options.folder))
    try:
        report = about | measure(Bench(folder), options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print_table(report)
    whole = options.kills < sum(WANTED.values()) + CLOCK or enough(report)
    if not whole:
        print(f"Not every stage was hit {LEAST} times.")
    save("materialize_kills", report, options.out or RESULTS / "materialize_kills.json")
    return 1 if report["wrong"] or not whole else 0


if __name__ == "__main__":
    sys.exit(main())
