"""What is read from a Feast registry, an adopter's own views among it, and what is said when it cannot be read."""

import shutil

import pytest

from feature_repo.errors import PinfeatherError
from feature_repo.paths import RepoPaths
from materialize import definitions as module
from materialize.definitions import load_definitions
from pinfeather.apply import apply_definitions
from pinfeather.init import as_written, init_repository

OWN_VIEWS = """
from feast import FeatureView, Field, FileSource
from feast.types import Float32, String
from feature_repo.entities import pin


def source(name, path):
    return FileSource(name=name, path=path, timestamp_field="event_timestamp")


def view(name, path, entities=(pin,)):
    keys = [Field(name=entity.join_key, dtype=String) for entity in entities]
    schema = [*keys, Field(name="quality", dtype=Float32)]
    return FeatureView(name=name, entities=list(entities), schema=schema, source=source(f"{name}_source", path))


relative = view("relative", "data/views/relative.parquet")
absolute = view("absolute", "/elsewhere/absolute.parquet")
remote = view("remote", "s3://bucket/remote.parquet")
everywhere = view("everywhere", "data/views/everywhere.parquet", entities=())
"""


@pytest.fixture(scope="module")
def adopter(tmp_path_factory):
    """A repository with views of its own, applied."""
    paths = init_repository(tmp_path_factory.mktemp("adopter") / "repo")
    with (paths.root / "definitions.py").open("a") as file:
        file.write(OWN_VIEWS)
    apply_definitions(paths)
    return paths


@pytest.fixture
def mine(adopter, tmp_path, monkeypatch):
    """A copy of it to break; that it was applied elsewhere is not what these tests are about."""
    shutil.copytree(adopter.root, tmp_path / "repo", ignore=shutil.ignore_patterns("online"))
    monkeypatch.setattr(module, "_check_place", lambda paths, definitions: None)
    return RepoPaths.open(tmp_path / "repo")


@pytest.fixture
def reads(monkeypatch):
    """How often the registry was read through Feast."""
    calls, read = [], module._read_registry
    monkeypatch.setattr(module, "_read_registry", lambda paths: calls.append(paths) or read(paths))
    return calls


def test_sources_lie_where_feast_looks_for_them(adopter):
    views = load_definitions(adopter).views
    assert views["relative"].source == str(adopter.root / "data/views/relative.parquet")
    assert views["absolute"].source == "/elsewhere/absolute.parquet"
    assert views["remote"].source == "s3://bucket/remote.parquet"
    assert views["pin_text"].source == str(adopter.views / "pin_text.parquet")


def test_views_without_join_keys_are_left_to_feast(adopter):
    definitions = load_definitions(adopter)
    assert definitions.views["everywhere"].join_keys == ()
    names = [view.name for view in definitions.feature_views()]
    assert "everywhere" not in names
    assert {"relative", "absolute", "remote", "pin_text"} <= set(names)


@pytest.mark.parametrize("kept", [b"", b"{", b"[]", b'"text"', b"\xff\xfe", b"truncated", b"other fields"])
def test_a_broken_cache_is_made_again(mine, reads, kept):
    cache = mine.data / "definitions.json"
    whole = cache.read_bytes()
    if kept == b"truncated":
        kept = whole[: len(whole) // 2]
    if kept == b"other fields":
        kept = whole.replace(b'"join_keys"', b'"keys"')
    cache.write_bytes(kept)
    # The copy's registry was applied elsewhere, so only the relative source moves with the folder.
    expected = str(mine.root / "data/views/relative.parquet")
    assert load_definitions(mine).views["relative"].source == expected
    assert load_definitions(mine).views["relative"].source == expected
    assert len(reads) == 1  # the second came from the new cache


@pytest.mark.parametrize("content", [b"garbage \xff\x00 and more", b"truncated"])
def test_an_unreadable_registry_is_one_message(mine, content):
    data = mine.registry.read_bytes()
    mine.registry.write_bytes(data[: len(data) // 2] if content == b"truncated" else content)
    with pytest.raises(PinfeatherError) as error:
        load_definitions(mine)
    for part in (str(mine.registry), "elete it", f"pinfeather apply --repo {mine.root}"):
        assert part in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_registry_without_the_project_says_what_it_has(mine):
    config = mine.root / "feature_store.yaml"
    config.write_text(config.read_text().replace("project: repo", "project: renamed"))
    (mine.data / "definitions.json").unlink()
    with pytest.raises(PinfeatherError, match=r"no project 'renamed' \(it has repo\): run `pinfeather apply"):
        load_definitions(mine)
    mine.registry.write_bytes(b"")  # Feast was killed while it wrote
    with pytest.raises(PinfeatherError, match=r"no project 'renamed' \(it has none\): run `pinfeather apply"):
        load_definitions(mine)


def test_nothing_applied_yet_says_so(tmp_path):
    with pytest.raises(PinfeatherError, match="pinfeather apply"):
        load_definitions(init_repository(tmp_path / "new"))


def test_only_definitions_as_init_wrote_them_are_applied_without_a_check_of_their_types(adopter, tmp_path):
    new = init_repository(tmp_path / "new").root
    assert as_written(new)
    (new / "mine.py").write_text("own = 1\n")  # Feast reads it too
    assert not as_written(new)
    assert not as_written(adopter.root)
    assert not as_written(tmp_path)


@pytest.mark.slow
def test_a_wrong_type_in_a_definition_of_ones_own_is_named(tmp_path):
    paths = init_repository(tmp_path / "repo")
    with (paths.root / "definitions.py").open("a") as file:
        file.write(f'{OWN_VIEWS}\nhasty = FeatureView(name="hasty", entities=[pin], ttl=30, source=relative.source)\n')
    with pytest.raises(PinfeatherError, match=r'argument "ttl" \(int\) did not match'):
        apply_definitions(paths)
