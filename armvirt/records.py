"""A replacement for `typing.NamedTuple`. It makes a class in a third of the time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import NamedTuple as NamedTuple
else:
    from collections import namedtuple

    class _NamedTupleMeta(type):
        """Makes the class of ``class X(NamedTuple)`` with `collections.namedtuple`.

        `typing.NamedTuple` compiles each annotation, which takes 200 us per class. `armvirt run`
        makes about 90 such classes, and does not use the compiled annotations. Here the annotations
        remain strings.
        """

        def __new__(cls, name, bases, namespace):
            if not bases:
                return super().__new__(cls, name, bases, namespace)
            fields = namespace.get("__annotations__", {})
            defaults = [namespace.pop(field) for field in fields if field in namespace]
            made = namedtuple(name, fields, defaults=defaults, module=namespace["__module__"])
            for key, value in namespace.items():
                setattr(made, key, value)
            return made

    class NamedTuple(metaclass=_NamedTupleMeta):
        """The base class for classes of tuples with named fields, like `typing.NamedTuple`."""
