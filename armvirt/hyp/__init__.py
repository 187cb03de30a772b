"""The EL2 software: what Linux KVM does. It uses ``armvirt.hw`` and never ``armvirt.hw.engine``."""
