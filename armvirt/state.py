"""Saved state: plain data with a version, and the protocol of objects that have such state.

An object with parts has a table of its parts, by name: `states_of` saves the parts, and
`load_states` loads the parts. An object with plain values has a table of its attributes:
`fields_of` saves the values, and `load_fields` loads the values. Every package may import this
module.
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
        """Load a state that `state` returned. StateError for a state of another version."""


def checked(state: State, what: str, version: int) -> State:
    """The saved state of ``what``, if it has this version. StateError for another version."""
    found = state.get("version")
    if found != version:
        raise StateError(
            f"the saved state of {what} has version {found}, and this armvirt loads version {version}; "
            "save it again with this armvirt"
        )
    return state


def fields_of(source: object, names: Iterable[str]) -> State:
    """The values of the attributes ``names``, by name. A value is a number, a boolean, a text,
    None, or a list; a list is copied."""
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
    ``present``. ``present`` is the present state of ``what``.

    An object with parts calls this function before it loads its first part, so that a refused state
    changes nothing. StateError for the first version that differs or is missing. A path that only
    one of the states has is not an error here: the object with parts checks the names of its parts.
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
    """The states of all parts, by name of the part."""
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
