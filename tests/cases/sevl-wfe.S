// The lock of xv6, sevl; wfe; ldaxrb; stxrb, taken again and again by the CPU that has freed it. At each WFE the registers are what they
// were at the one before: only the event register, which SEVL sets, says that it completes (DDI 0487 C6.2 SEVL, D1.6.1).
// -DBY_SEV and -DBY_ERET set it by other ways.
        .globl  _start
_start: mov     x19, #0x09000000        // UART
        adr     x5, lock
        adr     x6, rounds
        mov     w1, #1
again:  mov     w0, #0
#if defined BY_SEV
        sev
#elif defined BY_ERET
        adr     x2, 1f
        msr     elr_el1, x2
        mov     x2, #0x3c5
        msr     spsr_el1, x2
        eret
#else
        sevl
#endif
1:      wfe
2:      ldaxrb  w0, [x5]
        cbnz    w0, 1b
        stxrb   w0, w1, [x5]
        cbnz    w0, 2b
        ldr     w0, [x6]                // what the lock guards: a counter in memory
        sub     w0, w0, #1
        str     w0, [x6]
        stlrb   wzr, [x5]
        ldr     w0, [x6]
        cbnz    w0, again
        adr     x4, pass
1:      ldrb    w0, [x4], #1
        cbz     w0, 2f
        strb    w0, [x19]
        b       1b
2:      movz    w0, #0x8400, lsl #16    // SYSTEM_OFF
        movk    w0, #0x0008
        hvc     #0
        b       .
        .align  3
lock:   .quad   0
rounds: .quad   5
pass:   .asciz  "VERDICT: PASS\n"
