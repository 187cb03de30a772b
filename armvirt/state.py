"""Saved state: plain data with a version, and the protocol of an object with such state.

An object with parts has one table of them, by name: `states_of` saves the table, `load_states`
loads it. An object with plain values has one table of the attributes: `fields_of` saves the values,
`load_fields` loads them. Every package may import this module.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from armvirt.errors import UserError

State = dict[str, Any]
"""Data for JSON, with a ``version``."""


class StateError(UserError):
    """A saved state that this object cannot load."""


class Stateful(Protocol):
    """An object with state that is visible to a guest."""

    def state(self) -> State:
        """The state as plain data."""

    def load(self, state: State) -> None:
        """Load what `state` returned. StateError for another version."""


def checked(state: State, what: str, version: int) -> State:
    """The saved state of ``what``, checked for this version; StateError for another version."""
    found = state.get("version")
    if found != version:
        raise StateError(
            f"the saved state of {what} has version {found}, and this armvirt loads version {version}; "
            "save it again with this armvirt"
        )
    return state


def fields_of(source: object, names: Iterable[str]) -> State:
    """The values of attributes, by name: numbers, booleans, texts, None; a list is copied."""
    values = {name: getattr(source, name) for name in names}
    return {name: list(v) if isinstance(v, list) else v for name, v in values.items()}


def load_fields(target: object, names: Iterable[str], state: State) -> None:
    """Set attributes to the values that `fields_of` returned. KeyError for a name that ``state``
    does not have."""
    for name in names:
        value = state[name]
        setattr(target, name, list(value) if isinstance(value, list) else value)


def check_versions(saved: object, present: object, what: str, path: str = "") -> None:
    """Compare each version in ``saved``, at every depth, with the version at the same path in
    ``present``, which is the present state of ``what``.

    A composite calls it before it loads its first part, so that a refused state changes nothing.
    StateError for the first version that differs or is missing. A path that only one of the states
    has is of no concern here: the composite compares the shapes.
    """
    if isinstance(present, dict):
        if not isinstance(saved, dict):
            return
        if "version" in present:
            checked(saved, f"{what}{path and ', part '}{path}", present["version"])
        for name, part in present.items():
            if isinstance(part, (dict, list)) and name in saved:
                check_versions(saved[name], part, what, f"{path}{path and '.'}{name}")
    elif isinstance(present, list) and isinstance(saved, list):
        for n, (theirs, ours) in enumerate(zip(saved, present, strict=False)):
            if not isinstance(ours, (dict, list)):
                break  # numbers or text: their elements have no versions
            check_versions(theirs, ours, what, f"{path}[{n}]")


def states_of(parts: Mapping[str, Stateful]) -> State:
    """The states of all parts, by name."""
    return {name: part.state() for name, part in parts.items()}


def load_states(parts: Mapping[str, Stateful], states: State, what: str) -> None:
    """Load the states of all parts of ``what``. StateError if the names of the parts differ."""
    if states.keys() != parts.keys():
        raise StateError(
            f"the saved state of {what} is of another machine: it has {', '.join(sorted(states))}, "
            f"and this machine has {', '.join(sorted(parts))}"
        )
    for name, part in parts.items():
        part.load(states[name])
