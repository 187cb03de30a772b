/* Entry, secondary entry, vectors, and the switch to EL0 and back. */

#define CTX_SP_EL0  248
#define CTX_ELR     256
#define CTX_VECTOR  288
#define CTX_SP_EL1  296
#define CTX_SIZE    304

    .section .text.start, "ax"
    .global _start
    .type _start, %function
_start:
    mov     x19, x0
    msr     daifset, #15
    bl      cpu_setup
    adrp    x0, stack_top
    add     x0, x0, :lo12:stack_top
    mov     sp, x0
    adrp    x0, bss_start
    add     x0, x0, :lo12:bss_start
    adrp    x1, bss_end
    add     x1, x1, :lo12:bss_end
1:  cmp     x0, x1
    b.hs    2f
    stp     xzr, xzr, [x0], #16
    b       1b
2:  adrp    x0, boot_x0
    str     x19, [x0, :lo12:boot_x0]
    bl      uart_init
    bl      main
    b       finish
    .size _start, . - _start

/* PSCI CPU_ON enters here; x0 is a struct smp_boot { stack, function, argument }. */
    .global secondary_entry
    .type secondary_entry, %function
secondary_entry:
    mov     x19, x0
    msr     daifset, #15
    bl      cpu_setup
    ldr     x1, [x19]
    mov     sp, x1
    ldp     x1, x0, [x19, #8]
    blr     x1
    b       cpu_park
    .size secondary_entry, . - secondary_entry

/* Vectors, FP/SIMD on, EL1 with SP_EL1. Leaves x19 alone. */
    .type cpu_setup, %function
cpu_setup:
    msr     spsel, #1
    adrp    x1, vectors
    add     x1, x1, :lo12:vectors
    msr     vbar_el1, x1
    mov     x1, #(3 << 20)
    msr     cpacr_el1, x1
    isb
    ret
    .size cpu_setup, . - cpu_setup

    .macro vector number
    .balign 0x80
    sub     sp, sp, #CTX_SIZE
    stp     x0, x1, [sp]
    mov     x0, #\number
    b       exception_entry
    .endm

    .section .text.vectors, "ax"
    .balign 0x800
    .global vectors
    .type vectors, %object
vectors:
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    vector  \n
    .endr
    .size vectors, . - vectors

    .global exception_entry
    .type exception_entry, %function
exception_entry:
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x19, [sp, #144]
    stp     x20, x21, [sp, #160]
    stp     x22, x23, [sp, #176]
    stp     x24, x25, [sp, #192]
    stp     x26, x27, [sp, #208]
    stp     x28, x29, [sp, #224]
    mrs     x1, sp_el0
    stp     x30, x1, [sp, #240]
    mrs     x1, elr_el1
    mrs     x2, spsr_el1
    stp     x1, x2, [sp, #CTX_ELR]
    mrs     x1, esr_el1
    mrs     x2, far_el1
    stp     x1, x2, [sp, #CTX_ELR + 16]
    add     x1, sp, #CTX_SIZE
    stp     x0, x1, [sp, #CTX_VECTOR]
    mov     x0, sp
    bl      exception_dispatch
    mov     x0, sp
    /* Falls through: SP is already the context. */

/* Return to the context at x0. SP_EL1 becomes the end of the frame when the frame is the stack's. */
    .type context_restore, %function
context_restore:
    msr     daifset, #3
    ldp     x1, x2, [x0, #CTX_ELR]
    msr     elr_el1, x1
    msr     spsr_el1, x2
    ldr     x1, [x0, #CTX_SP_EL0]
    msr     sp_el0, x1
    ldr     x1, [x0, #CTX_SP_EL1]
    ldp     x2, x3, [x0, #16]
    ldp     x4, x5, [x0, #32]
    ldp     x6, x7, [x0, #48]
    ldp     x8, x9, [x0, #64]
    ldp     x10, x11, [x0, #80]
    ldp     x12, x13, [x0, #96]
    ldp     x14, x15, [x0, #112]
    ldp     x16, x17, [x0, #128]
    ldp     x18, x19, [x0, #144]
    ldp     x20, x21, [x0, #160]
    ldp     x22, x23, [x0, #176]
    ldp     x24, x25, [x0, #192]
    ldp     x26, x27, [x0, #208]
    ldp     x28, x29, [x0, #224]
    ldr     x30, [x0, #240]
    mov     sp, x1
    ldp     x0, x1, [x0]
    eret
    .size context_restore, . - context_restore

/* void el0_enter(struct context *user, u64 *anchor): save what the C ABI preserves, remember SP in
 * *anchor, set the context's SP_EL1 to here and go. el0_leave(anchor value) returns to its caller. */
    .text
    .global el0_enter
    .type el0_enter, %function
el0_enter:
    stp     x29, x30, [sp, #-96]!
    stp     x19, x20, [sp, #16]
    stp     x21, x22, [sp, #32]
    stp     x23, x24, [sp, #48]
    stp     x25, x26, [sp, #64]
    stp     x27, x28, [sp, #80]
    mov     x2, sp
    str     x2, [x1]
    str     x2, [x0, #CTX_SP_EL1]
    b       context_restore
    .size el0_enter, . - el0_enter

    .global el0_leave
    .type el0_leave, %function
el0_leave:
    mov     sp, x0
    ldp     x19, x20, [sp, #16]
    ldp     x21, x22, [sp, #32]
    ldp     x23, x24, [sp, #48]
    ldp     x25, x26, [sp, #64]
    ldp     x27, x28, [sp, #80]
    ldp     x29, x30, [sp], #96
    ret
    .size el0_leave, . - el0_leave
