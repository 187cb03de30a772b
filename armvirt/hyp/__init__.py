"""The software at EL2, which does the work of Linux KVM. This package imports ``armvirt.hw`` and
never imports ``armvirt.hw.engine``."""
