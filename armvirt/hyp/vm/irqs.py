"""The interrupts of a VM as its VMM raises them: lines, messages, irqfds (virt/kvm/eventfd.c,
arch/arm64/kvm/arm.c)."""

from __future__ import annotations

# The packed word of KVM_IRQ_LINE (uapi/asm/kvm.h).
IRQ_TYPE_CPU, IRQ_TYPE_SPI, IRQ_TYPE_PPI = 0, 1, 2
CPU_LINES = (0, 1)  # KVM_ARM_IRQ_CPU_IRQ, KVM_ARM_IRQ_CPU_FIQ


def irq_line_word(kind: int, number: int, vcpu_id: int = 0) -> int:
    """vcpu2 [31:28], type [27:24], vcpu [23:16], number [15:0]."""
    return (vcpu_id >> 8 & 15) << 28 | kind << 24 | (vcpu_id & 0xFF) << 16 | number & 0xFFFF
