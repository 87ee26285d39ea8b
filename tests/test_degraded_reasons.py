"""Why an answer is less than it could be, in words with a code, and parts that are tried again."""

import inspect
from typing import get_args, get_type_hints

import pytest
from degraded_shop import Clock
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.errors import PinfeatherError
from materialize.stores.errors import BadInputError, StoreError
from serving_client import PinClient
from serving_client.degraded import CODES, Code, UnavailableError, code_of, note, noted, reason
from serving_client.publications.guard import Guard
from serving_client.publications.parts import RETRY_SECONDS, Part

pytest_plugins = ("client_repo",)


# --- reasons -------------------------------------------------------------------------------------------------------


@given(st.sampled_from(list(CODES)), st.text())
def test_a_reason_gives_its_code_back(code, detail):
    assert code_of(reason(code, detail)) == code


@given(st.text().filter(lambda text: text.partition(":")[0] not in CODES))
def test_other_texts_have_no_code(text):
    assert code_of(text) is None
    with pytest.raises(ValueError, match="There is no reason"):
        reason(text, "x")


def test_every_code_is_documented(request):
    assert tuple(CODES) == get_args(Code)
    table = (request.config.rootpath / "docs" / "degraded.md").read_text()
    assert [code for code in CODES if f"`{code}`" not in table] == []


def test_every_method_that_answers_tells_what_was_noted():
    """A method without ``noted`` would hide that what it says is stale."""
    answering = [
        member
        for name, member in inspect.getmembers(PinClient, inspect.isfunction)
        if not name.startswith("_") and hasattr(get_type_hints(member)["return"], "degraded") and name != "status"
    ]
    assert len(answering) >= 6
    assert [member.__name__ for member in answering if not hasattr(member, "__wrapped__")] == []


def test_notes_go_to_the_outermost_answer_once():
    from serving_client.answers import RelatedPins

    @noted
    def inner():
        note("stale: a")
        note("stale: a")
        return RelatedPins("p", True, (), "s", degraded=("no_space: b",))

    @noted
    def outer():
        return inner()

    note("stale: of nobody")
    assert outer().degraded == inner().degraded == ("no_space: b", "stale: a")


# --- parts that are tried again ------------------------------------------------------------------------------------


def test_a_part_that_failed_is_tried_again_after_a_while_and_loaded_once():
    clock, calls, broken = Clock(), [], [OSError("disk"), UnavailableError("gone")]

    def load():
        calls.append(1)
        if broken:
            raise broken.pop(0)
        return "loaded"

    part = Part("The thing", load, clock)
    for _ in range(3):
        with pytest.raises(PinfeatherError, match=r"The thing cannot be loaded \(OSError: disk\)"):
            part.get()
    assert len(calls) == 1
    clock.now += RETRY_SECONDS
    for _ in range(3):
        with pytest.raises(UnavailableError, match="gone"):
            part.get()
    assert len(calls) == 2
    clock.now += RETRY_SECONDS
    assert [part.get(), part.get()] == ["loaded", "loaded"]
    assert len(calls) == 3


def test_one_request_tries_what_failed_and_the_others_do_not_wait_for_it():
    clock, working = Clock(), []
    guard = Guard(clock)

    def read():
        if not working:
            raise StoreError("gone")
        with pytest.raises(UnavailableError, match="gone"):  # another request, while this one tries
            guard.call("pins", pytest.fail, False)
        return "read"

    for _ in range(2):
        with pytest.raises(UnavailableError, match="gone"):
            guard.call("pins", read, False)
    working.append(True)
    clock.now += RETRY_SECONDS
    assert guard.call("pins", read, False) == "read"
    assert guard.failing() == {}


def test_a_wrong_call_is_no_failure_of_the_collection():
    guard = Guard(Clock())

    def read():
        raise BadInputError("no such filter")

    for _ in range(2):
        with pytest.raises(BadInputError, match="no such filter"):
            guard.call("pins", read, False)
    assert guard.failing() == {}


def test_a_collection_that_failed_is_forgotten_with_it():
    guard = Guard(Clock())

    def read():
        raise StoreError("gone")

    for name in ("there", "dropped"):
        with pytest.raises(UnavailableError) as caught:
            guard.call(name, read, False)
        assert guard._failed[name][1] is not caught.value  # whose traceback holds what it read from
    guard.keep_only(["there"])
    assert guard.failing() == {"there": "store_gone"}
