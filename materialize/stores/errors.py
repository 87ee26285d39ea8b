"""Errors of the vector stores. Each message says what was given, what is allowed and what to do next."""

from collections.abc import Iterable


class StoreError(Exception):
    """A store could not do what was asked; the message is meant for the user. Base of all errors in this folder."""


class BadInputError(StoreError):
    """The call itself is wrong: a dimension, a NaN, a name, a filter. Nothing was written."""


class SpecMismatchError(StoreError):
    """The collection exists already with other vectors than those asked for."""


class CollectionMissingError(StoreError):
    """There is no collection of that name."""


class StoreBusyError(StoreError):
    """Another process holds the store, or its writer lease. Nothing was written."""


class StoreCorruptError(StoreError):
    """The files of a store cannot be read."""


class NoPublicationError(StoreError):
    """Nothing was published yet, so there is nothing to read."""


class StoreUnavailableError(StoreError):
    """A server did not answer, or only with errors that pass; the call may be repeated, half-done or not."""


class StoreSlowError(StoreUnavailableError):
    """A server took longer than its ``timeout``, or than the deadline of the request."""


class StoreAccessError(StoreError):
    """A server refuses the api_key, or wants one."""


def missing(name: str, known: Iterable[str]) -> CollectionMissingError:
    """The error for a collection that is not there."""
    return CollectionMissingError(f"There is no collection {name!r}; there are: {', '.join(known) or 'none'}.")
