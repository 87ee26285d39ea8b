"""docs/consumers.md, run as it stands: every block of Python, every command."""

import json
import re
import shlex
from pathlib import Path

import pytest
from client_catalogue import WordEncoder

pytest_plugins = ("client_repo",)

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "consumers.md").read_text()
SECTIONS = {part.partition("\n")[0]: part for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)}
LONGEST = 12


def blocks(language: str) -> list:
    """The blocks of a language with the section they stand in."""
    return [
        pytest.param(code, id=f"{title.split(':')[0].lower()}-{number}".replace(" ", "-"))
        for title, text in SECTIONS.items()
        for number, code in enumerate(re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    ]


@pytest.fixture
def shop(client_shop, tmp_path, monkeypatch):
    """A folder with the repository ``my_repo``, its model at hand."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_repo").symlink_to(client_shop.root)
    monkeypatch.setattr("embedders.encoder.load_encoder", lambda *args, **kwargs: WordEncoder())
    return client_shop


@pytest.mark.parametrize("code", blocks("python"))
def test_every_block_of_python_runs(shop, code, capsys):
    assert len([line for line in code.splitlines() if line.strip()]) <= LONGEST
    names = {}
    exec(compile(code, "docs/consumers.md", "exec"), names)
    out = capsys.readouterr().out
    assert out.strip()
    for name, least in {"found": 1, "related": 1, "feed": 8, "fitting": 1}.items():
        if name in names:
            assert len(names[name].hits) >= least, name
    if "space" in names:
        assert out == "True\n"
    if "mine" in names and isinstance(names["mine"], dict):
        assert len(names["mine"]) == 19


@pytest.mark.parametrize("code", blocks("sh"))
def test_every_command_runs(shop, code, pinfeather):
    for line in code.strip().splitlines():
        program, *words = shlex.split(line)
        assert program == "pinfeather"
        status, out, err = pinfeather(*words)
        assert status == 0, err
        if "--json" in words:
            assert json.loads(out)


def test_the_page_shows_each_surface():
    assert {"Search", "Related pins", "Home feed", "Boards", "Look-ups", "Batch export"} <= SECTIONS.keys()
    assert len(blocks("python")) == 8
