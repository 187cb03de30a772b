"""Saved state: plain data with a version, and the interface of objects that have such state.

An object can contain other objects with state, its parts. Such an object has a table of its parts
by name: `states_of` saves the parts, and `load_states` loads the parts. An object with plain values
has a table of its attributes: `fields_of` saves the values, and `load_fields` loads the values.
Every package may import this module.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from armvirt.errors import UserError

State = dict[str, Any]
"""Plain data, which can be written as JSON. The key ``version`` has the version of the format."""


class StateError(UserError):
    """A saved state cannot be loaded into this object."""


class Stateful(Protocol):
    """An object that has state that a guest can observe. The state can be saved and loaded."""

    def state(self) -> State:
        """Return the state as plain data."""

    def load(self, state: State) -> None:
        """Load a state that `state` returned. StateError for a state of another version."""


def checked(state: State, what: str, version: int) -> State:
    """Return ``state`` unchanged. StateError if the version of ``state`` is not ``version``.
    ``what`` is the name of the saved object in the error message."""
    found = state.get("version")
    if found != version:
        raise StateError(
            f"the saved state of {what} has version {found}, and this armvirt loads version {version}; "
            "save it again with this armvirt"
        )
    return state


def fields_of(source: object, names: Iterable[str]) -> State:
    """Return the values of the attributes ``names`` of ``source``, by name. Each value is a number,
    a boolean, a text, None, or a list. A list is copied."""
    values = {name: getattr(source, name) for name in names}
    return {name: list(v) if isinstance(v, list) else v for name, v in values.items()}


def load_fields(target: object, names: Iterable[str], state: State) -> None:
    """Set the attributes ``names`` of ``target`` to the values in ``state``, which `fields_of`
    returned. KeyError if ``state`` does not have one of the names."""
    for name in names:
        value = state[name]
        setattr(target, name, list(value) if isinstance(value, list) else value)


def check_versions(saved: object, present: object, what: str, path: str = "") -> None:
    """Compare the versions in the saved state ``saved`` with the versions in ``present``, the
    current state of the same object. The comparison includes all nested states. For error messages,
    ``what`` is the name of the object, and ``path`` is the path of ``saved`` in the outermost
    state.

    An object with parts calls this function before it loads the first part, so that a refused state
    changes nothing. StateError for the first version that differs or is missing. This function
    ignores a nested state that only one of the two states has: `load_states` compares the names.
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
    """The state of each object in ``parts``, by its name."""
    return {name: part.state() for name, part in parts.items()}


def load_states(parts: Mapping[str, Stateful], states: State, what: str) -> None:
    """Load ``states`` into the objects in ``parts``. Both are by name. StateError if their names
    differ. ``what`` is the name of the object that contains the parts, for the error message."""
    if states.keys() != parts.keys():
        raise StateError(
            f"the saved state of {what} is of another machine: it has {', '.join(sorted(states))}, "
            f"and this machine has {', '.join(sorted(parts))}"
        )
    for name, part in parts.items():
        part.load(states[name])
