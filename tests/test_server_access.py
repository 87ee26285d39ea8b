"""Where the server adapter goes and as whom: urls, keys, certificates. Against a FAKE (tests/fake_qdrant.py)."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_qdrant import FakeQdrant, Waits
from store_samples import fill

from materialize.stores.errors import BadInputError, StoreAccessError, StoreError, StoreUnavailableError
from materialize.stores.place import Place
from materialize.stores.server import ServerStore

KEY = "s3cret-key-of-the-tests"
pytest_plugins = ("server_fixtures",)


@pytest.mark.parametrize("url", ["localhost:6333", "ftp://h:1", "http://", "http://h:1?x=1", "https://h/#there"])
def test_urls_that_lead_nowhere(url: str) -> None:
    with pytest.raises(BadInputError, match=r"url is http\(s\)://host:port of a Qdrant server, not"):
        ServerStore.open(Place(url=url))


def test_a_password_in_the_url_is_refused_unsaid() -> None:
    with pytest.raises(BadInputError, match="give the key as api_key") as caught:
        ServerStore.open(Place(url=f"https://me:{KEY}@h:1"))
    assert KEY not in str(caught.value)
    with pytest.raises(BadInputError, match="seconds above 0, not 0"):
        ServerStore.open(Place(url="http://h:1", timeout=0))


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
class TestKeys:
    def test_the_right_key(self) -> None:
        fake = FakeQdrant(api_key=KEY)
        store = ServerStore.open(Place(url=fake.url, api_key=KEY))
        fill(store)
        assert store.count("pins") == 10
        store.close()
        fake.close()

    @pytest.mark.parametrize(("key", "words"), [(None, "wants an api_key"), (KEY[:-1], "refuses the api_key")])
    def test_no_key_or_a_wrong_one(self, key: str | None, words: str, waits: Waits) -> None:
        fake = FakeQdrant(api_key=KEY)
        store = ServerStore.open(Place(url=fake.url, api_key=key), waits.patience())
        with pytest.raises(StoreAccessError, match=rf"{words} \(401: Must provide .*Give api_key a key that may do"):
            store.collections()
        assert waits == []
        store.close()
        fake.close()

    def test_a_key_that_may_only_read(self, fake: FakeQdrant) -> None:
        store = ServerStore.open(Place(url=fake.url, api_key=KEY))
        fake.fail("PUT", 403, words="Forbidden: Global manage access is required")
        with pytest.raises(StoreAccessError, match=r"Making pins failed: .* refuses the api_key .403: Forbidden"):
            fill(store)
        store.close()

    def test_the_key_is_in_no_message_repr_or_log(self, fake: FakeQdrant, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(0)
        place = Place(url=fake.url, api_key=KEY)
        store = ServerStore.open(place, Waits().patience())
        fake.fail("GET /collections$", 400, words=f"the key {KEY} is not mine")
        fake.fail("GET /collections$", 503, words=f"cannot check {KEY}", times=5)
        said = [repr(place), repr(store), repr(store._connection), str(vars(store))]
        for kind in (BadInputError, StoreUnavailableError):
            with pytest.raises(kind, match="<api_key>") as caught:
                store.collections()
            said += [str(caught.value), repr(caught.value), repr(caught.getrepr(style="short"))]
        store.close()
        assert KEY not in "".join(said) + caplog.text

    @pytest.mark.parametrize("key", ["", "two words", "line\n", "schlüssel"])
    def test_keys_that_no_header_can_hold(self, key: str) -> None:
        with pytest.raises(BadInputError, match="api_key is empty or holds") as caught:
            ServerStore.open(Place(url="http://127.0.0.1:1", api_key=key))
        assert not key or key not in str(caught.value)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that its own key signed, and that key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl on the PATH to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    wanted = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=tests"
    files = "-addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem"
    command = [openssl, *wanted.split(), *files.split()]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "cert.pem", folder / "key.pem"


class TestTls:
    @pytest.fixture
    def secure(self, certificate: tuple[Path, Path]) -> Iterator[FakeQdrant]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        opened = FakeQdrant(tls=context)
        yield opened
        opened.close()

    def test_a_private_authority(self, secure: FakeQdrant, certificate: tuple[Path, Path]) -> None:
        store = ServerStore.open(Place(url=secure.url, tls_ca=str(certificate[0])))
        fill(store)
        assert store.count("pins") == 10
        store.close()

    def test_unknown_certificates_are_not_trusted(self, secure: FakeQdrant, waits: Waits) -> None:
        with pytest.raises(StoreError, match=r"a certificate that nobody known signed .*name its authority in tls_ca"):
            ServerStore.open(Place(url=secure.url), waits.patience())
        assert (waits, secure.requests) == ([], [])

    def test_https_where_there_is_none(self, fake: FakeQdrant, waits: Waits) -> None:
        with pytest.raises(StoreError, match="speaks no TLS that is understood here"):
            ServerStore.open(Place(url=fake.url.replace("http", "https")), waits.patience())
        assert waits == []

    def test_what_tls_ca_may_be(self, tmp_path: Path) -> None:
        (tmp_path / "odd.pem").write_text("no certificate")
        for name in ("none.pem", "odd.pem"):
            with pytest.raises(BadInputError, match=f"tls_ca names no readable certificates: .*{name}"):
                ServerStore.open(Place(url="https://127.0.0.1:1", tls_ca=str(tmp_path / name)))
        with pytest.raises(BadInputError, match="tls_ca goes with a url that begins with https"):
            ServerStore.open(Place(url="http://127.0.0.1:1", tls_ca=str(tmp_path / "odd.pem")))
