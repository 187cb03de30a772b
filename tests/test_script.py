"""Console scripts."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from armvirt import script
from armvirt.errors import UserError
from armvirt.script import Expect, Script, Send


def test_steps_in_order_with_comments_and_timeout() -> None:
    text = (
        '# log in\nexpect "login: "  # as it prints it\n\nsend "root\\n"\ntimeout 5s\nexpect "# "\n'
    )
    assert script.parse(text) == (Expect(b"login: "), Send(b"root\n"), Expect(b"# ", 5 * 10**9))


@pytest.mark.parametrize(
    ("quoted", "data"),
    [
        (r'"a\tb\r\n"', b"a\tb\r\n"),
        (r'"\x03\xff"', b"\x03\xff"),
        (r'"say \"hi\" # no comment"', b'say "hi" # no comment'),
        (r'"\\n"', b"\\n"),
        (r'"\e[A"', b"\x1b[A"),
        ('"grüße"', "grüße".encode()),
    ],
)
def test_escapes(quoted: str, data: bytes) -> None:
    assert script.parse(f"send {quoted}") == (Send(data),)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("type hello", "not a step"),
        ("expect hello", "double quotes"),
        ('expect ""', "empty"),
        ('expect "open', "not a step|double quotes"),
        (r'send "\q"', r"unknown escape \\q"),
        (r'send "\x1"', r"unknown escape"),
        ("timeout soon", "not a time"),
        ('expect "a" "b"', "not a step"),
    ],
)
def test_a_bad_line_is_named(line: str, problem: str) -> None:
    with pytest.raises(UserError, match=rf"^boot\.txt:2: .*({problem})"):
        script.parse(f"# one\n{line}\n", "boot.txt")


def test_pairs() -> None:
    assert Script.from_pairs([("$ ", "ls\n"), ("", "x"), ("y", "")]) == (
        Expect(b"$ "),
        Send(b"ls\n"),
        Send(b"x"),
        Expect(b"y"),
    )


def test_files_that_are_no_script(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        script.load(tmp_path / "none")
    with pytest.raises(UserError, match="directory"):
        script.load(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        script.load(tmp_path / "binary")
    (tmp_path / "huge").write_bytes(b"#" * (script.MAX_FILE + 1))
    with pytest.raises(UserError, match="more than 1 MiB; is it the console script"):
        script.load(tmp_path / "huge")


@pytest.mark.parametrize(
    "line",
    [
        "a" * script.MAX_FILE,
        "send" + " " * (script.MAX_FILE - 10) + "!",
        "send " + "b" * (script.MAX_FILE - 10),
        'send "' + "c" * (script.MAX_FILE - 10),
        'send "' + "\\n" * (script.MAX_FILE // 2 - 10),
        'send "x"' + " " * (script.MAX_FILE - 20) + "x",
    ],
    ids=lambda line: line[:8],
)
def test_a_line_as_long_as_the_file_is_parsed_in_linear_time(line: str) -> None:
    began = time.process_time()
    with pytest.raises(UserError):
        script.parse(line)
    assert time.process_time() - began < 10  # quadratic, it would be an hour


def test_any_character_can_be_sent() -> None:
    text = "".join(map(chr, (1, 0x85, 0x2028, 0xE000, 0x10F0FF, 0x10FFFF)))
    assert script.parse(f'send "{text}"') == (Send(text.encode()),)
