// A driver of a timer that acknowledges and ends its interrupt and never moves CVAL: the line stays high, and the interrupt comes again at
// once, for ever. -DGICV2 is for that GIC, -DPTIMER for the physical timer.
#ifdef PTIMER
#define INTID_BIT 0x4000
#define CTL cntp_ctl_el0
#else
#define INTID_BIT 0x0800
#define CTL cntv_ctl_el0
#endif
        .globl  _start
_start: adr     x0, vectors
        msr     vbar_el1, x0
        mov     x0, #0x08000000         // GICD
#ifdef GICV2
        mov     w1, #1
        str     w1, [x0]                // GICD_CTLR
        movz    w2, #INTID_BIT, lsl #16
        str     w2, [x0, #0x100]        // GICD_ISENABLER0
        mov     x20, #0x08010000        // GICC
        mov     w2, #0xf0
        str     w2, [x20, #4]           // GICC_PMR
        str     w1, [x20]               // GICC_CTLR
#else
        mov     w1, #0x12
        str     w1, [x0]                // GICD_CTLR
        movz    x0, #0x080b, lsl #16    // the SGI frame of CPU 0's redistributor
        movz    w1, #INTID_BIT, lsl #16
        str     w1, [x0, #0x100]        // GICR_ISENABLER0
        mov     x1, #0xf0
        msr     S3_0_C4_C6_0, x1        // ICC_PMR_EL1
        mov     x1, #1
        msr     S3_0_C12_C12_7, x1      // ICC_IGRPEN1_EL1
#endif
        msr     CTL, x1
        msr     daifclr, #2
1:      wfi
        b       1b
#ifdef GICV2
irq:    ldr     w2, [x20, #12]          // GICC_IAR
        str     w2, [x20, #16]          // GICC_EOIR
#else
irq:    mrs     x2, S3_0_C12_C12_0      // ICC_IAR1_EL1
        msr     S3_0_C12_C12_1, x2      // ICC_EOIR1_EL1
#endif
        eret
        .balign 2048
vectors:
        .rept   5
        .balign 128
        b       .
        .endr
        .balign 128
        b       irq
        .balign 2048
