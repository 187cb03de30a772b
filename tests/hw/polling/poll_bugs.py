"""Bugs to plant in the proof that a polled wait may be skipped: in Python, and in its copy in C."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

from planting import Bug, by_name

import armvirt.hw.engine as package

LOOP, ROUND, FLAGS, IV, WAITS = (
    "armvirt.hw.polling.loop",
    "armvirt.hw.polling.round",
    "armvirt.hw.polling.flags",
    "armvirt.hw.polling.interval",
    "armvirt.hw.engine.waits",
)
ENGINE = Path(package.__file__).parent

BUGS = (
    Bug("carried-register-ignored", f"{LOOP}:Path.check", "end.x[n] != (value, value)", "False"),
    Bug("carried-flags-ignored", f"{LOOP}:Path.check", "fl.number(end.flags) != start.nzcv", "False", "rules"),
    Bug("store-not-compared", f"{ROUND}:Round.check_memory", "value != (before, before)", "False"),
    Bug("store-compared-by-its-first-value", f"{ROUND}:Round.check_memory", "value != (before, before)",
        "value[0] != before", "rules"),
    Bug("overlap-not-seen", f"{ROUND}:Cell.overlaps", "self.address < other.address + other.size", "False", "rules"),
    Bug("one-round-too-many", f"{WAITS}:PolledWaits._skip", "rounds_alike(path, start, around, most) - 1",
        "rounds_alike(path, start, around, most)"),
    Bug("deadline-ignored", f"{WAITS}:PolledWaits._most", "min(state.deadline, count + longest)",
        "count + longest"),
    Bug("deadline-one-round-late", f"{WAITS}:PolledWaits._most", "(limit - count) // path.length",
        "(limit - count) // path.length + 1"),
    Bug("yield-at-ignored", f"{WAITS}:PolledWaits._most", "path.yields", "False"),
    Bug("interval-that-wraps", f"{IV}:wrap", "low >> width == high >> width", "True"),
    Bug("unknown-bits-forgotten", f"{IV}:bitwise", "low | (1 << unknown) - 1", "low", "rules"),
    Bug("sign-of-the-first-value", f"{IV}:sign_extend", "a[1] < sign", "a[0] < sign", "rules"),
    Bug("quotient-of-the-first-value", f"{IV}:divide", "(a[0] // b[1], a[1] // b[0])",
        "(a[0] // b[1], a[0] // b[1])", "rules"),
    Bug("decided-by-the-last-value", f"{FLAGS}:_at_least", "a[0] >= b[1]", "a[1] >= b[1]"),
    Bug("decided-by-the-first-value", f"{FLAGS}:_at_least", "a[1] < b[0]", "a[0] < b[0]"),
    Bug("equality-by-the-first-value", f"{FLAGS}:_equal", "a[1] < b[0]", "a[0] < b[0]", "rules"),
    Bug("signed-as-unsigned", f"{FLAGS}:_biased", "1 << width - 1", "0"),
    Bug("istatus-by-the-first-count", f"{LOOP}:_control", "count[1] < cval", "count[0] < cval", "rules"),
)  # fmt: skip
BY_NAME = by_name(BUGS)


class NativeBug(NamedTuple):
    """In ``file`` of the native engine the text ``right``, which is there once, becomes
    ``wrong``."""

    name: str
    file: str
    right: str
    wrong: str

    def build(self, folder: Path, compiler: str) -> Path:
        """The native library with the bug."""
        for path in (*ENGINE.glob("*.h"), ENGINE / "native.c"):
            text = path.read_text(encoding="utf-8")
            if path.name == self.file:
                if text.count(self.right) != 1:
                    raise ValueError(
                        f"{self.name}: its place is there {text.count(self.right)} times"
                    )
                text = text.replace(self.right, self.wrong)
            (folder / path.name).write_text(text, encoding="utf-8")
        library = folder / "native.so"
        command = [
            compiler,
            "-std=gnu11",
            "-O1",
            "-fPIC",
            "-shared",
            str(folder / "native.c"),
            "-o",
            str(library),
        ]
        subprocess.run(command, check=True, capture_output=True)
        return library


NATIVE_BUGS = {
    bug.name: bug
    for bug in (
        NativeBug("carried-register-ignored", "rounds.h", "if (p->carried >> n & 1 && !(", "if (0 && !("),
        NativeBug("store-not-compared", "rounds.h", "if (c->loaded && !(", "if (0 && !("),
        NativeBug("one-round-too-many", "rounds.h", "*added = (rounds - 1) * p->length",
                  "*added = rounds * p->length"),
        NativeBug("deadline-ignored", "rounds.h", "limit = e->deadline < count + longest ? e->deadline :",
                  "limit ="),
        NativeBug("yield-at-ignored", "rounds.h", "if (p->yields &&", "if (0 &&"),
        NativeBug("interval-that-wraps", "rounds.h", "if (low >> width != high >> width) return any(width);", ""),
        NativeBug("unknown-bits-forgotten", "rounds.h", "is_one(b) ? b.low & unknown : unknown", "is_one(b) ? 0 : 0"),
        NativeBug("sign-of-the-first-value", "rounds.h", "if (v.high < sign) return v;",
                  "if (v.low < sign) return v;"),
        NativeBug("decided-by-the-last-value", "rounds.h", "*holds = a.low >= b.high;", "*holds = a.high >= b.high;"),
        NativeBug("decided-by-the-first-value", "rounds.h",
                  "*holds || a.high < b.low ? ALIKE : undecided_pair(r, a, b);\n}\nstatic verdict equal",
                  "*holds || a.low < b.low ? ALIKE : undecided_pair(r, a, b);\n}\nstatic verdict equal"),
        NativeBug("signed-as-unsigned", "rounds.h", "if (which >= 5) {", "if (0) {"),
        NativeBug("code-not-compared", "rounds.h", "|| word != p->word[i]) return 0;", ") return 0;"),
    )
}  # fmt: skip
