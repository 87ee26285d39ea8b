"""Dockerfile and compose file as far as they can be read without a Docker engine."""

import re
import shlex

import pytest
import yaml

from feature_repo.paths import RepoPaths
from materialize.places import place_of


@pytest.fixture
def root(request):
    return request.config.rootpath


@pytest.fixture
def steps(root):
    """The instructions of the Dockerfile, continued lines joined."""
    text = re.sub(r"(?m)^#.*\n", "", (root / "Dockerfile").read_text()).replace("\\\n", " ")
    return [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]


def of(steps, name):
    return [rest for word, rest in steps if word == name]


def ignored(root, path):
    """Whether .dockerignore leaves ``path`` out: everything but what it names."""
    lines = (root / ".dockerignore").read_text().split()
    return lines[0] == "*" and f"!{path}" not in lines


def test_what_is_copied_is_there_and_not_ignored(root, steps):
    copies = [shlex.split(rest) for rest in of(steps, "COPY") if "--from" not in rest]
    sources = [source for words in copies for source in words[:-1]]
    assert {"pyproject.toml", "constraints.txt", "serving_client", "pinfeather"} <= set(sources)
    assert [source for source in sources if not (root / source).exists()] == []
    assert [source for source in sources if ignored(root, source)] == []


def test_the_image_runs_as_nobody_in_particular_and_says_whether_it_lives(steps):
    assert of(steps, "USER") == ["10001"]
    assert [name for name, _ in steps].index("USER") > [name for name, _ in steps].index("RUN")
    assert "/healthz" in of(steps, "HEALTHCHECK")[0]
    assert "constraints.txt" in of(steps, "RUN")[0]
    assert all("HF_HUB_OFFLINE=1" in rest for rest in of(steps, "ENV")[1:])


def test_the_command_has_the_options_that_are_given(steps):
    from pinfeather.cli import cli

    [entry], [command] = of(steps, "ENTRYPOINT"), of(steps, "CMD")
    assert yaml.safe_load(entry) == ["pinfeather"]
    name, *words = yaml.safe_load(command)
    context = cli.get_command(None, name).make_context(name, words, resilient_parsing=True)
    assert (context.params["host"], context.params["port"]) == ("0.0.0.0", 8080)
    known = {option for parameter in context.command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known
    assert of(steps, "EXPOSE") == ["8080"]


def test_the_composition_fits_the_image_and_the_store(root, steps, tmp_path, monkeypatch):
    services = yaml.safe_load((root / "compose.yaml").read_text())["services"]
    mine, qdrant = services["pinfeather"], services["qdrant"]
    assert mine["ports"] == ["127.0.0.1:8080:8080"]
    assert all(text.startswith("${") and ":?" in text for text in mine["environment"].values())
    sources = [volume.split(":")[0] for volume in mine["volumes"]]
    assert (root / sources[1]).is_file()
    assert mine["depends_on"] == ["qdrant"]
    assert re.fullmatch(r"qdrant/qdrant:v1\.(1[6-9]|[2-9]\d)\.\d+", qdrant["image"])

    monkeypatch.setenv("QDRANT_API_KEY", "secret")
    (tmp_path / "feature_store.yaml").write_text((root / sources[1]).read_text())
    place = place_of(RepoPaths.open(tmp_path))
    assert (place.url, place.api_key) == ("http://qdrant:6333", "secret")
    (theirs,) = (text for name, text in qdrant["environment"].items() if name.endswith("API_KEY"))
    assert theirs == mine["environment"]["QDRANT_API_KEY"]  # the host of the url is that service, with the same key


def test_it_says_that_nobody_ran_it(root):
    for name in ("Dockerfile", "compose.yaml", "docs/operations.md"):
        assert "no Docker engine" in (root / name).read_text()
