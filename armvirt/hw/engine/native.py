"""The engine with its hooks in C (native.c). The hooks call Python for an exit that needs the rest
of the SoC."""

from __future__ import annotations

import ctypes as C
import os
import weakref

from armvirt.errors import EngineError
from armvirt.hw.engine import abi
from armvirt.hw.engine.base import Engine
from armvirt.hw.engine.calibrate import Calibration
from armvirt.hw.engine.state import ABI_VERSION, CALLBACK, Action, Callback, EngineState, Leave

_UNDEF = int(Callback.UNDEF)  # the callbacks up to UNDEF are exits
_FOLDER = os.path.dirname(os.path.abspath(__file__))
LIBRARY = os.path.join(_FOLDER, "_native.so")
BUILD_LOG = os.path.join(_FOLDER, "native-build.log")


def build_log(path: str = BUILD_LOG) -> list[str]:
    """Return the lines of native-build.log, or an empty list if there is no such file. If the build
    of the native library fails, setup.py writes the reason to this file: a summary and the
    compiler's output."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []


class NativeLibrary:
    """The compiled native.c. The constructor raises EngineError if the file does not exist, or if
    it was built for another ABI version or another size of `EngineState`."""

    def __init__(self, path: str = LIBRARY) -> None:
        if not os.path.exists(path):
            raise EngineError(
                "the native engine is not built; install with a C compiler, or use --engine portable"
            )
        self.lib = C.CDLL(path)
        self.lib.av_abi.restype = C.c_uint32
        expected = ABI_VERSION << 16 | C.sizeof(EngineState) & 0xFFFF
        if self.lib.av_abi() != expected:
            raise EngineError(
                f"{os.path.basename(path)} was built for another version of armvirt; reinstall armvirt"
            )
        self.lib.av_hook.restype, self.lib.av_hook.argtypes = C.c_void_p, [C.c_int]
        self.lib.av_run.restype, self.lib.av_run.argtypes = C.c_int, [C.c_void_p]


class NativeEngine(Engine):
    """The `Engine` with its hooks in C (native.c). It gives exactly the same results as
    `PortableEngine`."""

    kind = "native"
    has_shadow = True

    def __init__(
        self, lib: abi.Library, calibration: Calibration, model: str, native: NativeLibrary
    ) -> None:
        self._native = native.lib
        super().__init__(lib, calibration, model)
        this = weakref.ref(self)  # otherwise the callback would keep the engine alive

        def call(what: int) -> int:
            """Call a callback of `PeCallbacks`. ``what`` is the number of the callback. The two
            most frequent callbacks are called directly. For the others `dispatch` looks up the
            method in a table."""
            engine = this()
            if engine is None:
                return Action.STOP
            callbacks = engine.callbacks
            if what > _UNDEF or callbacks is None:
                return engine.dispatch(what)
            try:
                return callbacks.undefined() if what else callbacks.el2_exit()
            except BaseException as error:
                return engine.keep(error)

        self._callback = CALLBACK(call)
        self.state.callback = self._callback
        self._address = C.addressof(self.state)

    def _add_hooks(self) -> None:
        block, intr, mrs, msr, system, _edge = (
            C.c_void_p(self._native.av_hook(n)) for n in range(6)
        )
        self.hook(abi.HOOK_BLOCK, block)
        self.hook(abi.HOOK_INTR, intr)
        for function, instruction in (
            (mrs, abi.INSN_MRS),
            (msr, abi.INSN_MSR),
            (system, abi.INSN_SYS),
        ):
            self.hook(abi.HOOK_INSN, function, instruction=instruction)
        self._add_dormant_hooks()

    def watch_wfe(self) -> None:
        """See `Engine.watch_wfe`."""
        if not self.state.wfe_watch:
            self.state.wfe_watch = 1
            self.invalidate_all_code()  # translated code has not been examined for marks
            self.hook(abi.HOOK_EDGE, C.c_void_p(self._native.av_hook(5)))

    def _run(self) -> Leave:
        _ = self.lib.uc_emu_start  # KvmError if the engine was closed
        return Leave(self._native.av_run(self._address))
