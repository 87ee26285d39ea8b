"""Pins of a few words, given and at random, and their blobs."""

from types import SimpleNamespace

from hypothesis import strategies as st

from feature_repo.lexical import (
    encode_blob,
)

WORDS = ("oak", "table", "lamp", "rug", "green", "sofa")
documents = st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join)


def pin(title=None, description=None, caption=None, link_title=None, link_description=None, boards=(), queries=()):
    return SimpleNamespace(
        title=title,
        description=description,
        caption=caption,
        link_title=link_title,
        link_description=link_description,
        board_titles=tuple(boards),
        engaged_queries=tuple(queries),
    )


def blob(title=None, **fields):
    return encode_blob(pin(title, **fields))


def texts_of(fields):
    """The text of each lexical field, by the contract."""
    link = " ".join(text for text in (fields.link_title, fields.link_description) if text)
    return (
        fields.title or "",
        fields.description or "",
        fields.caption or "",
        link,
        " ".join(fields.board_titles),
        " ".join(fields.engaged_queries),
    )


texts = st.none() | st.text(max_size=40) | documents
pins = st.builds(
    pin,
    title=texts,
    description=texts,
    caption=texts,
    link_title=texts,
    link_description=texts,
    boards=st.lists(st.text(max_size=12) | documents, max_size=3),
    queries=st.lists(documents, max_size=3),
)
