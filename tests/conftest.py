"""Shared fixtures: no model hub, the real data beside the checkout."""

import gc
import hashlib
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
import typeguard
from hypothesis import HealthCheck, given, settings

from feature_repo.feast_import import unchecked

settings.register_profile("untimed", deadline=None)  # a first call may import something
settings.load_profile("untimed")

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("FEAST_USAGE", "False")

# Feast's own checks of types take half of the seconds of its import. Children of tests import it as its users do.
typeguard.typechecked = unchecked

gc.disable()  # until all is imported: next to nothing of it is garbage

# On a disk half of the tests' time goes into syncing small files.
_MEMORY = Path("/dev/shm")
if _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > 4 << 30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))

# Workers take whole files in the order of collection (--no-loadscope-reorder): none of these is to be the last alone.
LONG = (
    "test_demo",
    "test_student_training",
    "test_materialize_machine",
    "test_feast_repo",
    "test_examples",
    "test_online_store_config",
    "test_aggregates",
)

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items):
    """Files that take long come first, the longest at the front."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


def pytest_collection_finish():
    """From now on the garbage collector looks only at what tests make, not at a million objects of modules."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets; tests that need it skip visibly where it is not."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session", autouse=True)
def saved_tables(tmp_path_factory):
    """Tables that a :class:`Catalogue` saved once are not validated and aggregated again in this run."""
    from made_once import run_folder

    Catalogue.kept = run_folder(tmp_path_factory) / "saved_tables"


@pytest.fixture(autouse=True)
def closed_sessions(tmp_path):
    """No session of one test, with its thread, lives on in the next ones, nor after its folder is gone."""
    yield
    if "materialize.stores.session" in sys.modules:
        sys.modules["materialize.stores.session"].close_all()


@pytest.fixture(scope="session")
def qdrant_url(request, tmp_path_factory):
    """The url of a real, empty Qdrant server: QDRANT_URL's, or a `qdrant` from the PATH, started for this session."""
    import real_qdrant

    with real_qdrant.running(tmp_path_factory) as (url, tier):
        request.config.stash[SERVER_TIER] = tier
        if url is None and os.environ.get("REQUIRE_QDRANT_SERVER") == "1":
            pytest.fail(f"REQUIRE_QDRANT_SERVER=1, but {tier}")
        if url is None:
            pytest.skip(tier)
        yield url


@pytest.fixture
def qdrant_server(qdrant_url):
    """Makes the Place of a real Qdrant server, empty again after the test; skips visibly where there is none."""
    import real_qdrant

    yield partial(real_qdrant.place, qdrant_url)
    real_qdrant.empty(qdrant_url)


SERVER_TIER = pytest.StashKey[str]()


def pytest_sessionfinish(session):
    """In a worker process: say in the end whether a server was asked for."""
    if hasattr(session.config, "workeroutput") and SERVER_TIER in session.config.stash:
        session.config.workeroutput["server_tier"] = session.config.stash[SERVER_TIER]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """In the process that started the workers: hear it."""
    if "server_tier" in getattr(node, "workeroutput", {}):
        node.config.stash[SERVER_TIER] = node.workeroutput["server_tier"]


def pytest_terminal_summary(terminalreporter, config):
    """One line says whether anything ran against a real Qdrant server."""
    tier = config.stash.get(SERVER_TIER, "no test of this run asked for a real server")
    terminalreporter.write_line(f"Qdrant server tier: {tier}")


@pytest.fixture(scope="session")
def applied(tmp_path_factory):
    """An applied repository (Feast takes seconds, so once a run); other repositories copy its registry."""
    from made_once import made_once

    from feature_repo.paths import RepoPaths
    from pinfeather.apply import apply_definitions
    from pinfeather.init import init_repository

    return RepoPaths(made_once(tmp_path_factory, "applied", lambda folder: apply_definitions(init_repository(folder))))


@pytest.fixture
def repo(applied, tmp_path):
    """A repository of its own with the run's registry, its sources pointing into itself."""
    from made_once import copied

    return copied(applied.root, tmp_path / "repo")


@pytest.fixture
def catalogue(repo):
    """Writes pins into ``repo`` and brings its view sources up to date."""
    return Catalogue(repo)


@pytest.fixture
def prepared(applied, tmp_path_factory, tmp_path):
    """Gives a copy of the repository, with its store, that ``prepare(paths)`` filled once a test run under a name."""
    from client_catalogue import copy_repository
    from made_once import copied, made_once

    from feature_repo.paths import RepoPaths

    def give(name, prepare):
        source = made_once(tmp_path_factory, name, lambda folder: prepare(copied(applied.root, folder)))
        return RepoPaths(copy_repository(source, tmp_path / "repo"))

    return give


@pytest.fixture
def written_pins(prepared):
    """Gives the catalogue of pins (pin id to fields) that a first run has written, with an encoder of this type.

    What ``then(catalogue)`` does to it is also done only once.
    """

    def give(pins, encoder=CountingEncoder, then=None):
        def fill(catalogue):
            for pin, fields in pins.items():
                catalogue.put(pin, **fields)
            return catalogue

        def write(paths):
            from materialize.run import RunOptions, materialize

            catalogue = fill(Catalogue(paths))
            catalogue.save()
            materialize(paths, RunOptions(encoder=encoder()))
            if then:
                then(catalogue)

        what = (encoder.__name__, then and f"{then.__module__}.{then.__name__}", sorted(pins.items()))
        return fill(Catalogue(prepared(f"written-{hashlib.sha256(repr(what).encode()).hexdigest()[:16]}", write)))

    return give


class Catalogue:
    """A small pins table that a test edits; ``save`` validates and aggregates it for real."""

    NOW = datetime(2026, 10, 1, tzinfo=UTC)
    kept = None
    """The run's folder of saved tables."""

    def __init__(self, paths) -> None:
        self.paths = paths
        self.pins = {}

    def put(self, pin_id, title=None, **more):
        """Add or replace a pin."""
        self.pins[pin_id] = {
            "pin_id": pin_id,
            "title": title,
            "description": None,
            "lang": "en",
            "country": "US",
            **more,
        }
        return self

    def save(self):
        """Write the raw table, validate, aggregate."""
        import pyarrow as pa
        import pyarrow.parquet as pq
        from saved_tables import saved

        from feature_repo.aggregates import aggregate
        from feature_repo.validation import validate

        def save():
            report = validate(self.paths)
            aggregate(self.paths)
            return report

        folder = self.paths.raw / "pins"
        folder.mkdir(parents=True, exist_ok=True)
        when = {"created_at": self.NOW, "event_timestamp": self.NOW}
        columns = sorted({name for pin in self.pins.values() for name in (*when, *pin)})
        rows = [{name: {**when, **pin}.get(name) for name in columns} for pin in self.pins.values()]
        pq.write_table(pa.Table.from_pylist(rows), folder / "part-0.parquet")
        return saved(self.paths, self.kept, save)


class CountingEncoder:
    """A fake at the edge: deterministic unit vectors, and the count of every call."""

    def __init__(self) -> None:
        from embedders.model_folder import ModelFolder
        from embedders.recipe import EncodingRecipe

        folder = ModelFolder.open("packaged")
        self.dimension, self.fingerprint = folder.dimension, folder.fingerprint()
        self.recipe = EncodingRecipe("cpu", "fp32", 1, 1024, reason="a fake that counts")
        self.calls: list[list[str]] = []

    @property
    def texts(self) -> list[str]:
        """Every text that was encoded, in order."""
        return [text for call in self.calls for text in call]

    def encode(self, texts, progress=None):
        """One unit vector a text, a function of the text alone."""
        import numpy as np
        import xxhash

        self.calls.append(list(texts))
        rows = [np.random.default_rng(xxhash.xxh3_64_intdigest(t.encode())).normal(size=self.dimension) for t in texts]
        matrix = np.array(rows, np.float32).reshape(len(texts), self.dimension)
        return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


@pytest.fixture
def encoder():
    """A counting encoder with the packaged model's fingerprint."""
    return CountingEncoder()


def examples(few, many):
    """A test of random examples: ``few`` in the fast run, ``many`` in the whole one, as the argument ``examples``."""
    of_many = pytest.param(many, id="many", marks=pytest.mark.slow)
    return pytest.mark.parametrize("examples", [pytest.param(few, id="few"), of_many])


def random_examples(examples, *strategies, **named):
    """Hypothesis' decorators for a check within a test, whose fixtures all examples share."""
    how = settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    return lambda check: how(given(*strategies, **named)(check))


@contextmanager
def held_store(paths):
    """The pid of another process that holds the store's writer lease."""
    script = (
        "import sys; from materialize.stores.publication import open_writer\n"
        f"writer = open_writer({str(paths.online)!r}, purpose='a long run')\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
    )
    try:
        assert holder.stdout.readline().strip() == "held"
        yield holder.pid
    finally:
        holder.communicate("")


@pytest.fixture
def pinfeather(monkeypatch, capsys):
    """Runs a command as the entry point does; (exit code, stdout, stderr)."""
    from pinfeather import cli

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["pinfeather", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        return stop.value.code, out, err

    return run
