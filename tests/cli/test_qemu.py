"""What armvirt answers to QEMU's options."""

from __future__ import annotations

import shlex

import pytest

from armvirt.cli import qemu
from armvirt.cli.main import main
from armvirt.cli.options import COMMANDS, build_parser

NAMES = [command.name for command in COMMANDS]


def answer(line: str) -> str:
    said = qemu.answer(shlex.split(line), NAMES)
    assert said is not None
    return said


def written(line: str) -> list[str]:
    """The command that the answer says to write."""
    return shlex.split(answer(line).partition("write armvirt ")[2].rpartition(" (-")[0])


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("run -kernel Image", "run Image"),
        ("-kernel Image", "run Image"),
        ("qemu-system-aarch64 -kernel Image", "run Image"),
        ("run --kernel Image", "run Image"),
        ("run a.elf -smp 4", "run a.elf --cpus 4"),
        ("run a.elf -smp cpus=4,sockets=1", "run a.elf --cpus 4"),
        ("run a.elf -smp 2,cores=2", "run a.elf --cpus 2"),
        ("run a.elf -m 512", "run a.elf --mem 512"),
        ("run a.elf -m size=1G,slots=2", "run a.elf --mem 1G"),
        ("trace a.elf -nographic", "trace a.elf"),
        ("run a.elf -append 'console=ttyAMA0 quiet'", "run a.elf --append 'console=ttyAMA0 quiet'"),
        ("run a.elf -S -s", "run a.elf"),
        ("run a.elf -semihosting", "run a.elf --semihosting"),
        ("run a.elf -semihosting-config enable=on,target=native", "run a.elf --semihosting"),
        ("run a.elf -M virt", "run a.elf"),
        ("run a.elf -machine virt,gic-version=2", "run a.elf --gic 2"),
        ("run a.elf -M virt,its=off,gic-version=3", "run a.elf --gic 3 --no-its"),
        ("run -M virt,dumpdtb=x.dtb", "run --dump-dtb x.dtb"),
        ("run a.elf -cpu cortex-a53", "run a.elf --cpu cortex-a53"),
        ("run a.elf -cpu max", "run a.elf"),
        ("run -bios u-boot.bin", "run --bios u-boot.bin"),
        ("run a -initrd rd -serial mon:stdio", "run a --initrd rd"),
        ("run a -d int -D log.txt", "run a --trace log.txt"),
        ("run a -icount shift=0 -accel tcg", "run a"),
        ("run a -rtc base=2024-02-29 -no-reboot", "run a --rtc-base 2024-02-29 --no-reboot"),
        ("run a -device virtio-net -drive file=x --cpus 2", "run a --cpus 2"),
        ("run a -m", "run a"),
    ],
)
def test_what_to_write_instead(line: str, instead: str) -> None:
    assert written(line) == shlex.split(instead)


@pytest.mark.parametrize(
    "line", ["run -kernel Image -smp 2 -m 1G -append x -semihosting -M virt,gic-version=2"]
)
def test_what_to_write_can_be_parsed(line: str) -> None:
    arguments = build_parser("0").parse_args(written(line))
    assert (arguments.guest, arguments.cpus, arguments.mem, arguments.gic) == (
        "Image",
        2,
        1 << 30,
        2,
    )
    assert (arguments.append, arguments.semihosting) == ("x", True)


@pytest.mark.parametrize("name", qemu.WORDS)
def test_every_word_gets_an_answer_of_one_line(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    value = ["x"] if qemu.WORDS[name].takes_value else []
    assert main(["run", "hello", f"-{name}", *value]) == 2
    said = capsys.readouterr().err
    assert (
        said.startswith("armvirt: these are options of QEMU; write armvirt run ")
        and said.count("\n") == 1
    )
    assert f"-{name}" in said.partition(" (")[2], "what the word is here"
    assert [flag for flag in qemu.WORDS[name].here.split() if flag.startswith("--")][:1] == [
        flag for flag in said.partition(" (")[2].rstrip(")\n").split() if flag.startswith("--")
    ][:1]


def test_armvirts_own_mistakes_keep_their_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "hello", "--cpuz", "2"]) == 2
    assert "unrecognized arguments: --cpuz" in capsys.readouterr().err
    assert qemu.answer(["run", "hello", "--append", "x"], NAMES) is None
