"""The command that serves a repository over HTTP."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from feature_repo.errors import PinfeatherError
from pinfeather.options import FiniteRange, device_option, json_option, repo_option
from pinfeather.output import emit_json, say


@click.command("serve")
@repo_option
@click.option("--host", default="127.0.0.1", show_default=True, show_envvar=True, help="Address to listen on.")
@click.option(
    "--port",
    default=8080,
    show_default=True,
    show_envvar=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--api-key-file",
    type=click.Path(dir_okay=False, path_type=Path),
    show_envvar=True,
    help="API keys, one name:key a line (or name:sha256:HEX); beside those of PINFEATHER_API_KEYS, by commas.",
)
@click.option(
    "--max-body", default=1 << 20, show_default=True, show_envvar=True, type=click.IntRange(1), help="Bytes of a body."
)
@click.option(
    "--max-candidates",
    default=2000,
    show_default=True,
    show_envvar=True,
    type=click.IntRange(1),
    help="Pins that a request may name or have scored.",
)
@click.option(
    "--max-queries",
    default=256,
    show_default=True,
    show_envvar=True,
    type=click.IntRange(1),
    help="Queries or boards of a request.",
)
@click.option(
    "--deadline",
    default=10.0,
    show_default=True,
    show_envvar=True,
    type=FiniteRange(0.001, 3600),
    help="Seconds that a request may take; X-Deadline-Ms may ask for fewer.",
)
@click.option(
    "--read-ahead-mb",
    default=192,
    show_default=True,
    show_envvar=True,
    type=click.IntRange(0),
    help="Megabytes of rows to read before anybody asks for them, so that a new pin is as fast as any; 0 for none.",
)
@click.option(
    "--drain-delay",
    default=1.0,
    show_default=True,
    show_envvar=True,
    type=FiniteRange(0, 3600),
    help="Seconds after SIGTERM in which /readyz says no but requests are still taken.",
)
@click.option(
    "--drain",
    "drain_seconds",
    default=15.0,
    show_default=True,
    show_envvar=True,
    type=FiniteRange(1, 3600),
    help="Seconds after that for requests under way.",
)
@click.option(
    "--log-level",
    default="info",
    show_default=True,
    show_envvar=True,
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="Logs are lines of JSON on stderr; info has one for each request.",
)
@device_option
@json_option
def serve_command(
    repo: str,
    host: str,
    port: int,
    api_key_file: Path | None,
    max_body: int,
    max_candidates: int,
    max_queries: int,
    deadline: float,
    read_ahead_mb: int,
    drain_delay: float,
    drain_seconds: float,
    log_level: str,
    device: str,
    as_json: bool,
) -> None:
    """Serve the client's methods over HTTP, with a web page at /, until SIGTERM.

    Without API keys it listens on loopback addresses only. It serves while other processes materialize and promote, and
    follows them. docs/service.md says more.

    \b
    Examples:
      pinfeather serve --repo my_repo
      pinfeather serve --repo my_repo --host 0.0.0.0 --api-key-file keys.txt
      curl -H 'Content-Type: application/json' -d '{"query": "sofa"}' http://127.0.0.1:8080/v1/search
    """
    _keep_products_in_one_thread()
    _require_extra()
    from serving_client import PinClient
    from serving_client.http.app import create_app
    from serving_client.http.auth import Keys
    from serving_client.http.logs import log_as_json
    from serving_client.http.server import Server, address_of, listen
    from serving_client.http.settings import Settings, check_host

    keys = Keys.read(api_key_file, os.environ)
    check_host(host, keys)
    settings = Settings(
        keys,
        max_body=max_body,
        max_candidates=max_candidates,
        max_queries=max_queries,
        deadline=deadline,
        read_ahead=read_ahead_mb << 20,
    )
    with PinClient(repo, device=device) as client:
        app = create_app(client, settings)
        server = Server(app, drain_delay=drain_delay, drain_seconds=drain_seconds)
        opened = listen(host, port)
        address = address_of(opened)
        _announce(address, client.paths.root, keys.names, as_json)
        log_as_json(log_level, sys.stderr)
        server.run(sockets=[opened])
        if app.state.service.workers.pending:  # out of time; the interpreter would wait for their threads
            sys.stderr.flush()
            os._exit(0)


def _keep_products_in_one_thread() -> None:
    """By itself numpy computes the few rows of a query with a thread a core, which spin and starve other requests."""
    if "numpy" not in sys.modules:  # it reads this when it is imported; in somebody else's process it may be there
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _require_extra() -> None:
    """Name what of the extra `serve` is not installed."""
    try:
        import serving_client.http.app
        import serving_client.http.logs
        import serving_client.http.server  # noqa: F401
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("serving_client"):
            raise
        raise PinfeatherError(f"The service needs {error.name}: run `pip install 'pinfeather[serve]'`.") from error


def _announce(address: str, repo: Path, keys: Sequence[str], as_json: bool) -> None:
    """Where it serves, at once, for a program that waits for it."""
    if as_json:
        emit_json({"url": address, "repo": str(repo), "keys": list(keys)})
        sys.stdout.flush()
        return
    who = f"keys: {', '.join(keys)}" if keys else "no API key, so for this machine only"
    say(f"Serving {repo} at {address} ({who}). The page is at {address}/.")
