"""Writes armvirt/hw/engine/layout.h; with --check, tells whether the file is up to date."""

from __future__ import annotations

import sys
from pathlib import Path

from armvirt.hw.engine.layout import header

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "armvirt" / "hw" / "engine" / "layout.h"


def main() -> int:
    text = header()
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(text, encoding="ascii")
        return 0
    current = TARGET.exists() and TARGET.read_text(encoding="ascii") == text
    print(
        "layout.h is up to date"
        if current
        else "layout.h is out of date; run python tools/layout_header.py"
    )
    return 0 if current else 1


if __name__ == "__main__":
    sys.exit(main())
