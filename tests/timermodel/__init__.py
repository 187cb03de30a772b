"""An independent oracle of the Arm Generic Timer: one VM's EL1 timers and their PPIs, in closed
forms.

Derived from the architecture (DDI 0487 chapter D12 and its register descriptions, the GIC
specifications) without a look at armvirt, of which it imports nothing: what tests compare with
shares no code with what they test.
"""

from timermodel.model import TimerModel
from timermodel.ppi import CpuInterface, Ppi
from timermodel.timer import Readable, Register, Timer, Which

__all__ = ["CpuInterface", "Ppi", "Readable", "Register", "Timer", "TimerModel", "Which"]
