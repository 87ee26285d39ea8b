"""Shared fixtures: no model hub, the real data beside the checkout."""

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("FEAST_USAGE", "False")

# On a disk half of the tests' time goes into syncing small files.
_MEMORY = Path("/dev/shm")
if _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > 4 << 30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets; tests that need it skip visibly where it is not."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data at {SHARED_DATA}")
    return SHARED_DATA


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
    """An applied repository (Feast takes seconds, so once a session); other repositories copy its registry."""
    from pinfeather.apply import apply_definitions
    from pinfeather.init import init_repository

    paths = init_repository(tmp_path_factory.mktemp("applied") / "repo")
    apply_definitions(paths)
    return paths


@pytest.fixture
def repo(applied, tmp_path):
    """A repository of its own with the session's registry, its sources pointing into itself."""
    from feature_repo.paths import RepoPaths

    root = tmp_path / "repo"
    # Without the store: the engine's files are sparse, and a plain copy fills hundreds of megabytes.
    shutil.copytree(applied.root, root, symlinks=True, ignore=shutil.ignore_patterns("online"))
    cache = root / "data" / "definitions.json"
    cache.write_text(cache.read_text().replace(str(applied.root), str(root)))
    return RepoPaths(root)


@pytest.fixture
def catalogue(repo):
    """Writes pins into ``repo`` and brings its view sources up to date."""
    return Catalogue(repo)


class Catalogue:
    """A small pins table that a test edits; ``save`` validates and aggregates it for real."""

    NOW = datetime(2026, 10, 1, tzinfo=UTC)

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

        from feature_repo.aggregates import aggregate
        from feature_repo.validation import validate

        folder = self.paths.raw / "pins"
        folder.mkdir(parents=True, exist_ok=True)
        when = {"created_at": self.NOW, "event_timestamp": self.NOW}
        columns = sorted({name for pin in self.pins.values() for name in (*when, *pin)})
        rows = [{name: {**when, **pin}.get(name) for name in columns} for pin in self.pins.values()]
        pq.write_table(pa.Table.from_pylist(rows), folder / "part-0.parquet")
        report = validate(self.paths)
        aggregate(self.paths)
        return report


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
