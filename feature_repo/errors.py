"""Errors that a user sees. The message says what was given, what is allowed and what to do next."""


class PinfeatherError(Exception):
    """Shown to the user as one message, without a traceback; the command line exits with 1."""


class UsageError(PinfeatherError):
    """The call itself is wrong (an option, an argument); the command line exits with 2."""


class ContractError(PinfeatherError):
    """A raw table cannot be read at all, or lacks what its contract asks for."""
