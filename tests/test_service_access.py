"""Who may ask the HTTP service: keys, hosts, and the page's files that everybody may have."""

import json

import pytest
from served import KEY, KEYS, OTHER_KEY, error_of, in_process

from feature_repo.errors import UsageError
from serving_client.http.auth import Keys
from serving_client.http.page import FILES
from serving_client.http.settings import Settings, check_host, is_loopback

pytest_plugins = ("client_repo", "service_fixtures")


# --- keys and hosts -------------------------------------------------------------------------------------------------


def test_with_keys_every_path_of_pins_needs_one(pins):
    http = in_process(pins, Settings(KEYS))
    for headers in ({}, {"X-Api-Key": "wrong"}, {"X-Api-Key": KEY + " "}, {"Authorization": f"Basic {KEY}"}):
        for verb, path in (("POST", "/v1/score"), ("GET", "/v1/status"), ("GET", "/metrics"), ("GET", "/nowhere")):
            refused = http.request(verb, path, headers=headers)
            assert "X-Api-Key" in error_of(refused, 401)
            assert refused.headers["www-authenticate"] == "Bearer"
    for headers in ({"X-Api-Key": KEY}, {"Authorization": f"Bearer {OTHER_KEY}"}, {"authorization": f"bearer {KEY}"}):
        assert http.get("/v1/status", headers=headers).status_code == 200
    for path in ("/", "/healthz", "/page/index.html"):
        assert http.get(path).status_code == 200
    assert http.get("/healthz", headers={"Host": "pins.example.org"}).status_code == 200


def test_without_keys_only_this_machine_is_answered(http):
    for host in ("localhost", "LOCALHOST:80", "127.0.0.1:8080", "127.9.9.9", "[::1]:8080"):
        assert http.get("/healthz", headers={"Host": host}).status_code == 200, host
    for host in ("evil.example.org", "127.0.0.1.evil.org", "10.0.0.1", "localhost.evil.org:80", ""):
        error_of(http.get("/healthz", headers={"Host": host}), 400)
    for host in ("0.0.0.0", "10.0.0.1", "::", "pins.example.org"):
        assert not is_loopback(host)
        with pytest.raises(UsageError, match="loopback"):
            check_host(host, Keys())
        check_host(host, KEYS)
    for host in ("127.0.0.1", "localhost", "::1"):
        check_host(host, Keys())


def test_keys_come_from_a_file_and_the_environment(tmp_path):
    file = tmp_path / "keys.txt"
    digest = "d74ff0ee8da3b9806b18c877dbf29bbde50b5bd8e4dad7a3a725000feb82e8f1"  # SHA-256 of "pass"
    file.write_text(f"# ours\n\npage:{KEY}\nold:sha256:{digest}\n")
    keys = Keys.read(file, {"PINFEATHER_API_KEYS": f" batch:{OTHER_KEY} ,"})
    assert keys.names == ("batch", "page", "old")
    assert [keys.name_of(key) for key in (KEY, OTHER_KEY, "pass", "", "x", "é\ud800")] == ["page", "batch", "old"] + [
        None
    ] * 3
    assert KEY not in json.dumps(vars(keys), default=repr)
    assert not Keys.read(None, {})


@pytest.mark.parametrize(
    "entries",
    [
        ["short:abc"],
        [KEY],
        [":" + KEY],
        ["a b:" + KEY],
        ["a:" + KEY, "a:" + OTHER_KEY],
        ["a:" + KEY, "b:" + KEY],
        ["a:" + "é" * 20],
    ],
)
def test_keys_of_another_form_are_refused_and_not_repeated(entries):
    with pytest.raises(UsageError) as caught:
        Keys(entries)
    assert KEY not in str(caught.value)


def test_a_file_without_keys_does_not_open_the_service(tmp_path):
    for name, content in (("none", None), ("empty", "# nothing\n"), ("binary", b"\xff\xfe\x00")):
        file = tmp_path / name
        if content is not None:
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(UsageError, match=name):
            Keys.read(file, {})


# --- the page -------------------------------------------------------------------------------------------------------


def test_the_page_is_served_and_nothing_beside_it(http):
    index = http.get("/")
    assert index.status_code == 200
    assert index.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in index.headers["content-security-policy"]
    for name, kind in FILES.items():
        file = http.get(f"/page/{name}")
        assert (file.status_code, file.headers["content-type"]) == (200, kind)
    assert http.head("/").status_code == 200
    for path in (
        "/page/",
        "/page/__init__.py",
        "/page/../app.py",
        "/page/%2e%2e/app.py",
        "/page/..%2fapp.py",
        "/page//etc/passwd",
        "/page/..\\app.py",
        "/page/index.html%00",
        "/page/index.html/",
        "/page/INDEX.HTML",
    ):
        error_of(http.get(path), 404)
