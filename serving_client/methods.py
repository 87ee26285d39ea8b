"""The methods of the client that the service and the other clients carry on: what each takes and answers.

They are read off :class:`~serving_client.client.PinClient`, so that nothing of it is forgotten elsewhere; those about
the client itself, such as ``close``, are in the class below it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, get_type_hints

from serving_client.client import PinClient

EMBEDDED_ONLY: Mapping[str, frozenset[str]] = MappingProxyType({"pin_features": frozenset({"slow_path"})})
"""Method to parameters that no service takes: the slow path through Feast is for comparison, in the own process."""


@dataclass(frozen=True)
class Method:
    """A method of the client as the service knows it."""

    name: str
    parameters: Mapping[str, inspect.Parameter]
    """Without ``self`` and those of :data:`EMBEDDED_ONLY`."""
    hints: Mapping[str, Any]
    """Parameter to its type."""
    answer: Any
    """Type of what it gives."""
    summary: str
    """First line of its documentation."""

    @property
    def path(self) -> str:
        """Where the service has it."""
        return "/v1/" + self.name.replace("_", "-")

    @property
    def verb(self) -> str:
        """GET where nothing is asked in particular, else POST."""
        return "POST" if self.parameters else "GET"


@cache
def served_methods() -> Mapping[str, Method]:
    """Name to method, in the order of the client."""
    members = {name: member for name, member in vars(PinClient).items() if inspect.isfunction(member)}
    served = {name: _method(name, member) for name, member in members.items() if name[0] != "_"}
    return MappingProxyType(served)


def _method(name: str, function: Any) -> Method:
    hints = get_type_hints(function)
    left_out = {"self", *EMBEDDED_ONLY.get(name, ())}
    parameters = {key: each for key, each in inspect.signature(function).parameters.items() if key not in left_out}
    summary = (inspect.getdoc(function) or "").partition("\n")[0].replace("``", "`")
    return Method(name, parameters, {key: hints[key] for key in parameters}, hints["return"], summary)
