"""What clients and the service make Python load, and with how many threads the service computes."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from client_catalogue import WordEncoder
from test_client_scores import live, student

from materialize.releases import publish_release
from materialize.warm import warm_space

pytest_plugins = ("client_repo",)
CHECKOUT = Path(__file__).resolve().parents[1]
MODELS = ("torch", "transformers", "sklearn", "scipy", "peft", "sentence_transformers")
HEAVY = (*MODELS, "feast", "pandas", "pyarrow", "fastapi", "httpx", "qdrant_client")
LOADED = f"print([name for name in {HEAVY!r} if name in sys.modules])\n"


def child(code, *arguments):
    """What a new process prints, line by line."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys\n" + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        check=True,
    )
    return done.stdout.splitlines()


def test_the_client_imports_nothing_heavy_and_reads_vectors_without_a_model(built):
    code = (
        f"from serving_client import PinClient\n{LOADED}"
        "client = PinClient(sys.argv[1]); assert client.pin_embeddings(['sofa0']).found.all()\n"
        f"client.related_pins('sofa0', 3)\n{LOADED}"
    )
    assert child(code, built) == ["[]", "[]"]


@pytest.fixture
def judged(client_shop):
    """A repository with a student in its release, and the vector of one head query made before."""
    student(live(client_shop)).save(client_shop.bundles / "made-up")
    publish_release(client_shop, bundle="made-up")
    head = {"query": pa.array(["velvet sofa"], pa.string()), "searches": pa.array([9], pa.int64())}
    pq.write_table(pa.table(head), client_shop.views / "query_stats.parquet")
    assert warm_space(client_shop, live(client_shop), 1, WordEncoder) == 1
    return client_shop


def test_real_queries_and_boards_are_embedded_and_scored_without_torch(judged):
    code = (
        "from serving_client import connect\n"
        "client = connect(sys.argv[1], device='cpu')\n"
        "assert client.embed_queries(['velvet sofa', 'garlic']).found.all()\n"
        "print(client.query_cache.warmed, client.query_cache.encoded)\n"
        "scores = client.score('pasta with garlic', ['pasta1', 'fern0'])\n"
        "print(scores.scorer, *scores.degraded)\n"
        "assert client.search('velvet sofa', limit=2).hits\n"
        "assert client.board_pins(['ferns', 'for shade']).hits\n"
        f"{LOADED}"
    )
    assert child(code, judged.root) == ["1 1", "student", "[]"]


def test_a_service_computes_products_in_one_thread_and_leaves_a_callers_process_alone():
    threads = "import os\nprint(os.environ.get('OPENBLAS_NUM_THREADS'), len(os.listdir('/proc/self/task')))\n"
    begin = "from pinfeather.commands.serve import _keep_products_in_one_thread as keep\n"
    start = "keep()\nimport numpy\nnumpy.ones((64, 512)) @ numpy.ones((512, 512))\n"
    environment = "import os\nos.environ.pop('OPENBLAS_NUM_THREADS', None)\n"
    assert child(f"{environment}{begin}assert 'numpy' not in sys.modules\n{start}{threads}") == ["1 1"]
    assert child(f"{environment}import numpy\n{begin}keep()\n{threads}")[0].startswith("None ")
    given = environment.replace("pop('OPENBLAS_NUM_THREADS', None)", "update(OPENBLAS_NUM_THREADS='2')")
    assert child(f"{given}{begin}keep()\n{threads}")[0].startswith("2 ")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc here that says what a process has mapped")
def test_a_service_that_is_ready_and_answers_has_no_torch(judged):
    command = [sys.executable, "-m", "pinfeather", "serve", "--repo", str(judged.root), "--port", "0", "--json"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PINFEATHER_")}
    process = subprocess.Popen(
        [*command, "--device", "cpu", "--drain-delay", "0"],
        cwd=CHECKOUT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        told = ""
        while not told.endswith("}\n"):
            told += process.stdout.readline()
        url = json.loads(told)["url"]
        while not answers(f"{url}/readyz"):
            assert process.poll() is None
        asked = json.dumps({"query": "fern for shade", "pin_ids": ["fern0"]}).encode()
        assert answers(f"{url}/v1/score", asked)["degraded"] == []
        mapped = Path(f"/proc/{process.pid}/maps").read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.stdout.close()
    assert "tokenizers" in mapped
    assert not [name for name in ("libtorch", "/scipy/", "/sklearn/", "/pyarrow/") if name in mapped]


def answers(url, data=None):
    """The answer of a service; None if it is no success."""
    try:
        headers = {"Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=30) as answer:
            return json.load(answer)
    except urllib.error.HTTPError:
        return None
