"""The engines that execute guest code. No other package uses Unicorn's raw API.

The native and the portable engine have the same interface.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from armvirt.errors import UserError
from armvirt.hw.config import HostConfig
from armvirt.hw.engine import abi
from armvirt.hw.engine.abi import CLOSED, OTHER_THREAD
from armvirt.hw.engine.base import Engine
from armvirt.hw.engine.calibrate import Calibration, calibrate
from armvirt.hw.engine.state import Action, Leave, What

if TYPE_CHECKING:
    from armvirt.hw.engine.native import NativeLibrary

__all__ = [
    "CLOSED",
    "OTHER_THREAD",
    "Action",
    "Engine",
    "EngineFactory",
    "Leave",
    "What",
    "describe",
]

_DEFAULTS = HostConfig._field_defaults


class EngineFactory:
    """Creates the engines of one emulated host. The factory once loads libunicorn, and once finds
    the offsets that the CPU model needs (`calibrate`).

    ``kind`` is auto, native or portable. If ``kind`` is auto, the factory selects the native engine
    if the native library is built, and the portable engine if not. If ``skip`` is True, the engines
    skip polled waits, which are loops that only poll a counter, a timer or RAM
    (`armvirt.hw.engine.waits`).
    """

    def __init__(
        self,
        kind: str = _DEFAULTS["engine"],
        model: str = _DEFAULTS["cpu"],
        skip: bool = False,
    ) -> None:
        if model not in abi.CPU_MODELS:
            raise UserError(
                f"unknown CPU model {model!r}; choose one of {', '.join(sorted(abi.CPU_MODELS))}"
            )
        if kind not in ("auto", "native", "portable"):
            raise UserError(f"unknown engine {kind!r}; choose native or portable")
        self.model, self.skip = model, skip
        self.lib = abi.Library()
        self.calibration: Calibration = calibrate(self.lib, abi.CPU_MODELS[model])
        self.native = None if kind == "portable" else _native(required=kind == "native")
        self.kind = "native" if self.native is not None else "portable"

    def __repr__(self) -> str:
        return f"<EngineFactory: {self.kind}, {self.model}>"

    def create(self) -> Engine:
        """Create a new engine without mapped memory."""
        engine = self._create()
        engine.state.skip = int(self.skip)
        return engine

    def _create(self) -> Engine:
        if self.native is not None:
            from armvirt.hw.engine.native import NativeEngine

            return NativeEngine(self.lib, self.calibration, self.model, self.native)
        from armvirt.hw.engine.portable.engine import PortableEngine

        return PortableEngine(self.lib, self.calibration, self.model)


def _native(*, required: bool) -> NativeLibrary | None:
    from armvirt.hw.engine.native import LIBRARY, NativeLibrary

    if not required and not os.path.exists(LIBRARY):
        return None
    return NativeLibrary()


def describe() -> dict[str, str]:
    """Return three things as text for ``armvirt doctor``: the kind of engine in use, the version
    and path of libunicorn, and the offsets that `calibrate` found."""
    factory = EngineFactory()
    return {
        "engine": factory.kind,
        "unicorn": ".".join(map(str, factory.lib.version)),
        "library": str(factory.lib.path),
        "calibration": f"syndrome at {factory.calibration.syndrome}, monitor at {factory.calibration.exclusive}",
    }
