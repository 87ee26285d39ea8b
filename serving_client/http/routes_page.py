"""The web page: ``/`` and its files, each named in a list, so that no path leads anywhere else."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from starlette.routing import Route

from serving_client.http.errors import Refused
from serving_client.http.page import CONTENT_SECURITY_POLICY, FILES, INDEX, read_file


def add_page_routes(app: FastAPI) -> None:
    """``/`` and ``/page/<name>``. The files are read once."""
    files = {name: read_file(name) for name in FILES}

    def answer(name: str) -> Response:
        headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Cache-Control": "no-cache"}
        return Response(files[name], headers={**headers, "Content-Type": FILES[name]})

    async def index(_: Request) -> Response:
        return answer(INDEX)

    async def file(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in files:
            raise Refused(404, "The page has no such file.")
        return answer(name)

    app.router.routes.append(Route("/", index, methods=["GET"], name="page"))
    app.router.routes.append(Route("/page/{name:path}", file, methods=["GET"], name="page file"))
