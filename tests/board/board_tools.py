"""External tools as test oracles: missing ones skip a test, but not in CI."""

from __future__ import annotations

import os
import shutil

import pytest


def require_tool(name: str) -> str:
    """The path of a program. Without it the test is skipped; in CI (ARMVIRT_CI=1) it fails."""
    path = shutil.which(name)
    if path is None:
        (pytest.fail if os.environ.get("ARMVIRT_CI") == "1" else pytest.skip)(
            f"{name} is not installed"
        )
    return path
