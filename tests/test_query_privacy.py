"""No query text ends up in a log, nor in an error that a service would log."""

import logging
import traceback
from dataclasses import replace

import numpy as np
import pytest
from client_catalogue import WordEncoder

from embedders.encoder import EncodingError
from materialize.releases import current_release
from materialize.spaces import load_space, save_space
from materialize.warm import warm_space
from materialize.warm_files import warm_path
from serving_client import PinClient
from serving_client.degraded import UnavailableError

pytest_plugins = ("client_repo",)

SECRET = "zanzibar"


@pytest.fixture
def logs(caplog):
    """Everything that any logger says."""
    caplog.set_level(logging.DEBUG)
    return caplog


class Refusing(WordEncoder):
    """Has no finite vector for one text, and quotes it as the transformer does."""

    def encode(self, texts, progress=None):
        for index, text in enumerate(texts):
            if SECRET in text:
                raise EncodingError(f"The model gave no finite vector for text {index} ({text!r}).")
        return super().encode(texts)


def test_a_query_without_a_vector_is_named_neither_in_the_error_nor_in_the_log(built, logs):
    with PinClient(built, encoder=Refusing()) as client:
        for queries in ([f"green {SECRET}"], ["fern", f"green {SECRET}"]):
            with pytest.raises(EncodingError, match="a query of 14 characters") as failed:
                client.embed_queries(queries)
            assert SECRET not in "".join(traceback.format_exception(failed.value))
        assert client.query_cache.entries == 1  # that of fern
    assert SECRET not in logs.text


def test_requests_log_no_text_whether_they_work_or_fail(client_shop, logs):
    class Dead(WordEncoder):
        def encode(self, texts, progress=None):
            raise OSError("the device is gone")

    space = load_space(client_shop, current_release(client_shop).live_space)
    warm_space(client_shop, space, 10, WordEncoder)
    with PinClient(client_shop.root, encoder=WordEncoder()) as client:
        client.search(f"{SECRET} sofa", scorer="zero-shot")
        client.score(f"{SECRET} sofa", ["sofa0"], scorer="bm25")
        client.embed_boards([SECRET])
        assert client.evict_queries([f"{SECRET} sofa"]) == 1
    path = warm_path(client_shop, space.name)
    path.write_bytes(path.read_bytes()[:-100])
    with PinClient(client_shop.root, encoder=Dead()) as client:
        with pytest.raises(UnavailableError, match=r"failed \(OSError\)") as failed:
            client.embed_queries([SECRET])
        assert failed.value.code == "no_embedding"
        assert SECRET not in "".join(traceback.format_exception(failed.value))
    assert "begins without its head queries" in logs.text  # the log was heard
    assert SECRET not in logs.text
    assert "green velvet" not in logs.text


def test_a_tower_that_cannot_be_loaded_says_so_without_the_query(client_shop, logs, tmp_path):
    space = load_space(client_shop, current_release(client_shop).live_space)
    save_space(client_shop, replace(space, model=str(tmp_path / "gone")))
    with PinClient(client_shop.root) as client:
        for _ in range(2):
            with pytest.raises(UnavailableError, match="cannot be embedded") as failed:
                client.embed_queries([SECRET])
            assert failed.value.code == "no_embedding"
            assert SECRET not in "".join(traceback.format_exception(failed.value))
        assert np.isfinite(client.pin_embeddings(["sofa0"]).vectors).all()
    assert SECRET not in logs.text
