"""Saved state: plain data with a version, and the interface of objects that have such state.

An object can contain other objects with state. These are its parts. Such an object has a dictionary
of its parts by name. `states_of` saves the parts, and `load_states` loads the parts. An object with
plain values has a list of the names of its attributes. `fields_of` saves the values, and
`load_fields` loads the values. Every package may import this module.
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
        """Load a state that `state` returned. StateError if the state has another version than this
        code writes."""


def checked(state: State, what: str, version: int) -> State:
    """Return ``state`` unchanged. StateError if the version of ``state`` is not ``version``. The
    error message calls the saved object ``what``, for example "the board"."""
    found = state.get("version")
    if found != version:
        raise StateError(
            f"the saved state of {what} has version {found}, and this armvirt loads version {version}; "
            "save it again with this armvirt"
        )
    return state


def fields_of(source: object, names: Iterable[str]) -> State:
    """Return the values of some attributes of ``source``, by name. ``names`` are the names of these
    attributes. Each value is a number, a boolean, a text, None, or a list. A list is copied."""
    values = {name: getattr(source, name) for name in names}
    return {name: list(v) if isinstance(v, list) else v for name, v in values.items()}


def load_fields(target: object, names: Iterable[str], state: State) -> None:
    """Set some attributes of ``target``. ``names`` are the names of these attributes. ``state`` has
    their values, and was returned by `fields_of`. KeyError if a name is missing in ``state``."""
    for name in names:
        value = state[name]
        setattr(target, name, list(value) if isinstance(value, list) else value)


def check_versions(saved: object, present: object, what: str, path: str = "") -> None:
    """Compare the versions in the saved state ``saved`` with the versions in ``present``, the
    current state of the same object. The comparison includes all nested states. The error message
    calls the object ``what``. ``path`` is the position of ``saved`` in the outermost state, for
    example ``vm.vgic``. It is "" for the outermost state itself, and is used only in the error
    message.

    An object that contains other objects calls this function before it loads the first of them. So
    a refused state changes nothing. StateError for the first saved version that is missing or
    differs from the version in ``present``. This function ignores a nested state that only one of
    the two states has, because `load_states` compares the names.
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
    """Load the state of each object in ``parts`` from ``states``. Both dictionaries have the names
    of the objects as keys. StateError if the two sets of names differ. The error message calls the
    containing object ``what``, for example "the board"."""
    if states.keys() != parts.keys():
        raise StateError(
            f"the saved state of {what} is of another machine: it has {', '.join(sorted(states))}, "
            f"and this machine has {', '.join(sorted(parts))}"
        )
    for name, part in parts.items():
        part.load(states[name])
