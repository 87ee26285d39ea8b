"""Where a repository's folders are: what feature_store.yaml says, so that Feast and the commands mean the same ones."""

from pathlib import Path

import pytest

from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.paths import RepoPaths
from pinfeather.init import init_repository

OURS = "materialize.online_store.PinfeatherOnlineStore"


def written(root: Path, registry: str = "registry: data/registry.db", online: str = f"{{type: {OURS}}}") -> RepoPaths:
    text = f"project: p\nprovider: local\n{registry}\nonline_store: {online}\n"
    (root / "feature_store.yaml").write_text(text)
    return RepoPaths.open(root)


def test_a_new_repository_and_a_bare_folder_have_the_default_places(tmp_path):
    for paths in (RepoPaths(tmp_path), init_repository(tmp_path / "new")):
        assert paths.online == paths.root / "data/online"
        assert paths.registry == paths.root / "data/registry.db"
    assert RepoPaths(tmp_path) == RepoPaths(tmp_path)
    assert hash(RepoPaths(tmp_path)) == hash(RepoPaths(tmp_path))


def test_a_folder_that_is_no_repository_is_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match=r"is no Feast repository.*pinfeather init"):
        RepoPaths.open(tmp_path)


@pytest.mark.parametrize("given", ["elsewhere/store", "/somewhere/store", "~/store", "$PLACE/store"])
def test_the_online_store_lies_where_feast_puts_it(tmp_path, monkeypatch, given):
    from feast.repo_config import load_repo_config

    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("PLACE", "/mnt")
    paths = written(tmp_path, online=f"{{type: {OURS}, path: {given}}}")
    config = load_repo_config(tmp_path, tmp_path / "feature_store.yaml")
    assert paths.online == Path(config.online_store.place(config).path)
    assert paths.online.parts[-1] == "store"
    assert paths.online == RepoPaths(tmp_path).online  # however it was made


@pytest.mark.parametrize("given", ["shared/r.db", "/somewhere/r.db", "$PLACE/r.db"])
@pytest.mark.parametrize(
    "form", ["registry: {}", "registry: {{path: {}}}", "registry: {{registry_type: file, path: {}}}"]
)
def test_the_registry_lies_where_feast_puts_it(tmp_path, monkeypatch, given, form):
    from feast.infra.registry.file import FileRegistryStore
    from feast.repo_config import load_repo_config

    monkeypatch.setenv("PLACE", "/mnt")
    paths = written(tmp_path, registry=form.format(given))
    config = load_repo_config(tmp_path, tmp_path / "feature_store.yaml")
    assert paths.registry == FileRegistryStore(config.registry, config.repo_path)._filepath
    assert paths.registry.name == "r.db"


@pytest.mark.parametrize(
    "online", ["{type: redis}", "{path: data/online}", "null", "sqlite", f"[{OURS}]", f"{{type: {OURS}, path: 7}}"]
)
def test_another_online_store_is_refused_when_it_is_needed(tmp_path, online):
    paths = written(tmp_path, online=online)
    assert paths.views == tmp_path / "data/views"  # validate and aggregate go on
    assert paths.registry == tmp_path / "data/registry.db"
    with pytest.raises(PinfeatherError) as error:
        _ = paths.online
    for part in (str(tmp_path / "feature_store.yaml"), f"type: {OURS}", "path: data/online", "url: https://"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    "registry",
    [
        "registry: {registry_type: sql, path: 'postgresql://me:secret@host/db'}",
        "registry: {registry_store_type: S3RegistryStore, path: data/registry.db}",
        "registry: s3://bucket/registry.db",
        "registry: {path: gs://bucket/registry.db}",
        "registry: {path: ~/registry.db}",  # Feast would make a folder called ~
        "registry: {registry_type: file}",
        "registry: [data/registry.db]",
        "registry:",
        "registry: ''",
    ],
)
def test_a_registry_that_is_no_local_file_is_refused_when_it_is_needed(tmp_path, registry):
    paths = written(tmp_path, registry=registry)
    assert paths.online == tmp_path / "data/online"
    with pytest.raises(PinfeatherError) as error:
        _ = paths.registry
    for part in (str(tmp_path / "feature_store.yaml"), "registry", "path: data/registry.db"):
        assert part in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "text", [b"project: [p\n", b"key: secret: x\n", b"- a\n- list\n", b"just words", b"", b"\xff\xfe\x00"]
)
def test_a_broken_feature_store_yaml_is_named(tmp_path, text):
    (tmp_path / "feature_store.yaml").write_bytes(text)
    paths = RepoPaths.open(tmp_path)
    for place in ("online", "registry"):
        with pytest.raises(PinfeatherError) as error:
            getattr(paths, place)
        assert str(tmp_path / "feature_store.yaml") in str(error.value)
        assert "pinfeather init" in str(error.value)
        assert "secret" not in str(error.value)


def test_commands_that_need_neither_place_work_with_any_configuration(pinfeather, tmp_path):
    root = init_repository(tmp_path / "mine").root
    (root / "feature_store.yaml").write_text("project: p\nregistry: s3://b/r.db\nonline_store: {type: redis}\n")
    assert pinfeather("generate", "--pins", "100", "--repo", root)[0] == 0
    assert pinfeather("validate", "--repo", root)[0] in (0, 3)
    assert pinfeather("aggregate", "--repo", root)[0] == 0
    code, _, err = pinfeather("plan", "--repo", root)
    assert (code, "come later" in err) == (1, True)
