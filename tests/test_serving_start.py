"""What a client that only reads vectors makes Python load."""

import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
HEAVY = ("feast", "torch", "transformers", "sklearn", "scipy", "pandas", "pyarrow", "fastapi", "httpx", "qdrant_client")


def test_the_client_imports_nothing_heavy_and_reads_vectors_without_a_model(built):
    code = (
        "import sys; from serving_client import PinClient\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
        f"client = PinClient({str(built)!r}); assert client.pin_embeddings(['sofa0']).found.all()\n"
        "client.related_pins('sofa0', 3)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=CHECKOUT, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "[]"]


pytest_plugins = ("client_repo",)
