"""The tools of tests/hyp and tests/hyp/vgic are here too."""

from __future__ import annotations

import sys
from pathlib import Path

HYP = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(HYP), str(HYP / "vgic")]
