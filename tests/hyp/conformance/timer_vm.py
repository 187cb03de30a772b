"""A guest with one timer under test: the Puppet of the GIC's tests, with the handler and the waits
of KVM's timer selftests. What is said once here holds for the virtual and the physical timer, on
nVHE and VHE hosts."""

from __future__ import annotations

from collections.abc import Callable

from gic_vm import ISENABLER, Puppet, make_gic, make_vm
from hyp_tools import DATA, DEVICE, NE, Asm

from armvirt.arch import timer as t
from armvirt.arch.gic import ICC_REGISTERS
from armvirt.arch.timer import CTL_ENABLE, CTL_IMASK, CTL_ISTATUS
from armvirt.hyp.kvm import MmioExit

ONE_REG = 0x6030_0000_0013_0000
TIMERS = ("vtimer", "ptimer")
WAITS = ("wfi", "poll", "yield", "migrate")
HOSTS = {
    "nvhe": {}, "vhe": {"vhe": True}, "vhe-cntpoff": {"vhe": True, "cntpoff": True},
}  # fmt: skip
NO_WAITS = ("poll", "yield", "migrate")
"""The methods by which a guest finds that no interrupt comes; WFI would never end."""
PES = 2
YIELD = DEVICE + 8
IRQS = DATA + 0x100  # how often, then what each handler saw: count, CVAL, CTL, INTID
FREQUENCY = 62_500_000


def ticks_of_us(us: int) -> int:
    return us * FREQUENCY // 1_000_000


class TimerGuest(Puppet):
    """vCPU 0 of a fresh VM on a host of the given form. Its handler masks the timer, as the
    selftest's does."""

    def __init__(self, which: str, host: str = "nvhe", **more: object) -> None:
        self.which = which
        letter = "V" if which == "vtimer" else "P"
        self.intid = 27 if which == "vtimer" else 30
        self.CNT, self.CTL, self.CVAL, self.TVAL = (
            f"CNT{letter}{name}_EL0" for name in ("CT", "_CTL", "_CVAL", "_TVAL")
        )
        vm = make_vm(**{"pcpus": PES, **HOSTS[host], **more})  # type: ignore[arg-type]
        make_gic(vm)
        self.visited: set[int] = set()
        super().__init__(vm)
        self.start_gic(True, 0, (self.intid,))
        self.set_bit(ISENABLER, self.intid)

    def _write(self, a: Asm) -> None:
        super()._write(a)
        a.align(64)
        for name in (self.CNT, self.CTL, self.CVAL, self.TVAL, "CNTKCTL_EL1"):
            self._snippet(f"read {name}", lambda name=name: a.mrs(4, name))
        for name in (self.CTL, self.CVAL, self.TVAL, "CNTKCTL_EL1"):
            if f"write {name}" not in a.labels:
                self._snippet(f"write {name}", lambda name=name: a.msr(name, 3))
        self._snippet("poll n", lambda: self._poll(a, "n", lambda: a.subs_imm(3, 3, 1)))
        self._snippet(
            "yield n", lambda: self._poll(a, "y", lambda: (a.ldr(3, 20, 8), a.cmp_imm(3, 0)))
        )
        for name, body in (
            ("wfi", lambda: a.wfi()),
            ("poll", lambda: a.nop()),
            ("yield", lambda: a.ldr(5, 20, 8)),
        ):
            self._snippet(f"wait {name}", lambda name=name, body=body: self._wait(a, name, body))

    @staticmethod
    def _poll(a: Asm, name: str, step: Callable[[], object]) -> None:
        a.daifclr(2)
        a.label(f"loop {name}")
        step()
        a.b_cond(NE, f"loop {name}")
        a.daifset(2)
        a.movr(4, 3)

    @staticmethod
    def _wait(a: Asm, name: str, body: Callable[[], object]) -> None:
        """Until the number of interrupts is not X3 any more; X21 + 0x100 has it."""
        a.label(f"loop {name}")
        a.ldr(4, 21, 0x100)
        a.eor(5, 4, 3)
        a.cbnz(5, f"done {name}")
        body()
        a.daifclr(2)
        a.isb()
        a.daifset(2)
        a.b(f"loop {name}")
        a.label(f"done {name}")

    def _vector(self, a: Asm, offset: int) -> None:  # type: ignore[override]
        if offset != 0x280:
            a.udf()
            return
        a.b("handler")

    def _write_handler(self, a: Asm) -> None:
        a.label("handler")
        a.mrs(10, ICC_REGISTERS["ICC_IAR1_EL1"])
        a.mrs(11, self.CNT)
        a.mrs(12, self.CVAL)
        a.mrs(13, self.CTL)
        a.mov(14, CTL_IMASK)
        a.msr(self.CTL, 14)
        a.ldr(15, 21, 0x100)
        a.add_imm(15, 15, 1)
        a.str_(15, 21, 0x100)
        for n in range(4):
            a.str_((11, 12, 13, 10)[n], 21, 0x108 + 8 * n)
        a.msr(ICC_REGISTERS["ICC_EOIR1_EL1"], 10)
        a.mrs(16, "SPSR_EL1")
        a.mov(17, 0)
        a.eret()

    def _snippet(self, label: str, write: Callable[[], object]) -> None:
        if "handler" not in self._code.labels:
            self._write_handler(self._code)
        super()._snippet(label, write)

    # -- what the guest does --

    def _resume(self) -> None:
        while True:
            exit = self.vcpu.run(self.vm.timers.now + 20_000_000_000)
            assert isinstance(exit, MmioExit), exit
            if exit.phys_addr != YIELD:
                self._exit = exit
                return
            exit.data = self._turns_left
            self._turns_left = max(0, self._turns_left - 1)
            if self.migrating:
                self.migrate()
            if self.yield_ns:
                self.vm.host.clock.advance_to(self.vm.timers.now + self.yield_ns)

    migrating = False
    yield_ns = 20_000  # how long the VMM's thread takes before it calls KVM_RUN again
    _turns_left = 0

    def migrate(self) -> None:
        """To another physical CPU of the host, as a test that calls sched_setaffinity between two
        KVM_RUNs."""
        here = self.vcpu.sched.home
        assert here is not None
        self.visited |= {here, (here + 1) % PES}
        self.vcpu.pin((here + 1) % PES)
        assert self.vcpu.pe is None and self.vcpu.sched.home != here

    def get(self, name: str) -> int:
        return self.do(f"read {name}")

    def set(self, name: str, value: int) -> None:
        self.do(f"write {name}", value=value & (1 << 64) - 1)

    @property
    def irqs(self) -> int:
        return int.from_bytes(self.vm.read_memory(IRQS, 8), "little")

    def seen(self) -> tuple[int, int, int, int]:
        """What the last handler saw: count, CVAL, CTL, INTID."""
        data = self.vm.read_memory(IRQS + 8, 32)
        a, b, c, d = (int.from_bytes(data[n : n + 8], "little") for n in range(0, 32, 8))
        return a, b, c, d

    def wait(self, method: str) -> None:
        """Until the next interrupt, and check what the selftest's handler checks."""
        before = self.irqs
        self.migrating = method == "migrate"
        self.do(f"wait {'yield' if method == 'migrate' else method}", value=before)
        self.migrating = False
        assert self.irqs == before + 1
        self.check_handler()

    def check_handler(self) -> None:
        count, cval, ctl, intid = self.seen()
        assert intid == self.intid
        assert ctl & (CTL_ENABLE | CTL_ISTATUS) == CTL_ENABLE | CTL_ISTATUS
        assert count >= cval

    def poll(self, iterations: int = 200, method: str = "poll") -> int:
        """Run with interrupts open for a while, by one of `NO_WAITS`: how many there were."""
        before = self.irqs
        self.migrating = method == "migrate"
        if method == "poll":
            self.do("poll n", value=iterations)
        else:
            self._turns_left = iterations // 10
            self.do("yield n", value=1)
        self.migrating = False
        return self.irqs - before

    def set_count(self, count: int) -> None:
        """KVM_SET_ONE_REG of the timer's CNT, by its own id."""
        encoding = t.CNTV_CVAL_EL0 if self.which == "vtimer" else t.CNTPCT_EL0
        self.vcpu.set_one_reg(ONE_REG | encoding, count & (1 << 64) - 1)

    def let_a_tick_pass(self) -> None:
        """As on a real CPU, on which a write takes some time to follow another."""
        start = self.get(self.CNT)
        while self.get(self.CNT) == start:
            pass

    def arm(self, name: str, value: int, ctl: int = CTL_ENABLE) -> None:
        """Program CVAL or TVAL ("cval", "tval"), then CTL."""
        self.set(self.CVAL if name == "cval" else self.TVAL, value)
        self.set(self.CTL, ctl)
