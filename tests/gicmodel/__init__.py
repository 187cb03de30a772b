"""An independent, executable reading of the Arm GIC specifications: the oracle of the GIC tests.

IHI 0048 (GICv2) and IHI 0069 (GICv3, LPIs, ITS) as software at EL1 sees them: no list registers, no
hypervisor.
"""

from .memory import Memory
from .model import GicModel

__all__ = ["GicModel", "Memory"]
