"""Planted bugs: changes to one function of armvirt that a comparison with an oracle has to find.

A bug names a function and a statement or an expression in that function. Names, layout, comments
and line breaks of the source file do not matter: the source of the function and the text of the bug
are compared as syntax trees.
"""

from __future__ import annotations
import __future__ as future

import ast
import importlib
import inspect
import textwrap
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import NamedTuple, TypeVar, cast

import pytest

Node = TypeVar("Node", bound=ast.AST)
_STATEMENT_LISTS = ("body", "orelse", "finalbody")


class Bug(NamedTuple):
    """In ``function`` ("module:qualified.name"), the code ``right`` becomes ``wrong``.

    ``right`` is an expression, a statement, or several statements that follow each other, and is in
    the function once. ``kind`` names the campaign that finds the bug, and ``seed`` the case with
    which the campaign begins.
    """

    name: str
    function: str
    right: str
    wrong: str
    kind: str = ""
    seed: int = 0

    def plant(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Give the function the code with the bug, until the test ends."""
        function = resolve(self.function)
        monkeypatch.setattr(
            function, "__code__", mutated(function, self.right, self.wrong, self.name)
        )


def by_name(bugs: tuple[Bug, ...]) -> dict[str, Bug]:
    """The bugs by their names. ValueError if two have the same name."""
    table = {bug.name: bug for bug in bugs}
    if len(table) != len(bugs):
        raise ValueError("two planted bugs have the same name")
    return table


def resolve(path: str) -> FunctionType:
    """The function that "module:qualified.name" names; of a property, the getter."""
    module, _, names = path.partition(":")
    found: object = importlib.import_module(module)
    for name in names.split("."):
        found = inspect.getattr_static(found, name)
    if isinstance(found, (classmethod, staticmethod)):
        found = found.__func__
    found = found.fget if isinstance(found, property) else found
    if not isinstance(found, FunctionType):
        raise ValueError(f"{path} is no function")
    return found


def mutated(function: FunctionType, right: str, wrong: str, name: str) -> CodeType:
    """The code of ``function`` with ``wrong`` in the place of ``right``. ValueError unless
    ``right`` is there once."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    definition = tree.body[0]
    assert isinstance(definition, ast.FunctionDef)
    count = _replace(definition, _parsed(right), _parsed(wrong))
    if count != 1:
        raise ValueError(f"{name}: its place is in {function.__qualname__} {count} times")
    definition.decorator_list = []
    flags = future.annotations.compiler_flag
    made: dict[str, FunctionType] = {}
    module = ast.fix_missing_locations(tree)
    exec(compile(module, f"<{name}>", "exec", flags, dont_inherit=True), function.__globals__, made)
    return made[function.__name__].__code__


def _parsed(text: str) -> list[ast.stmt]:
    return ast.parse(textwrap.dedent(text)).body


def _replace(definition: ast.FunctionDef, right: list[ast.stmt], wrong: list[ast.stmt]) -> int:
    """Put ``wrong`` in the place of ``right``; how often ``right`` was there."""
    if len(right) == 1 and isinstance(right[0], ast.Expr) and not _statements(definition, right):
        changed = wrong[0]
        assert len(wrong) == 1 and isinstance(changed, ast.Expr), (
            "an expression becomes an expression"
        )
        swap = _SwapExpression(right[0].value, changed.value)
        swap.generic_visit(definition)
        return swap.count
    places = list(_statements(definition, right))
    for statements, at in places:
        statements[at : at + len(right)] = wrong
    return len(places)


def _statements(definition: ast.AST, right: list[ast.stmt]) -> list[tuple[list[ast.stmt], int]]:
    """Where the statements ``right`` follow each other: the list that has them, and the index of
    the first."""
    wanted = [_key(each) for each in right]
    return [
        (statements, at)
        for statements in _lists(definition)
        for at in range(len(statements) - len(right) + 1)
        if [_key(each) for each in statements[at : at + len(right)]] == wanted
    ]


def _lists(definition: ast.AST) -> Iterator[list[ast.stmt]]:
    for node in ast.walk(definition):
        for name in _STATEMENT_LISTS:
            statements = getattr(node, name, None)
            if isinstance(statements, list):
                yield cast("list[ast.stmt]", statements)


class _SwapExpression(ast.NodeTransformer):
    def __init__(self, right: ast.expr, wrong: ast.expr) -> None:
        self._key, self._wrong, self.count = _key(right), wrong, 0

    def visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.expr) and _key(node) == self._key:
            self.count += 1
            return self._wrong
        self.generic_visit(node)
        return node


def _key(node: ast.AST) -> str:
    """What two equal pieces of code have in common: the tree without places in a file."""
    return ast.dump(node)
