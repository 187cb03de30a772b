"""The EL2 software: what Linux KVM does. Never touches the engine; sees only ``armvirt.hw``."""
