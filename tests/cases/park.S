// A timer parked at a time that does not come, the last one that CVAL can name, and WFI. -DCVAL=N names another, -DPTIMER the other timer.
#ifndef CVAL
#define CVAL 0xffffffffffffffff
#endif
#ifdef PTIMER
#define TIMER(what) cntp_##what##_el0
#else
#define TIMER(what) cntv_##what##_el0
#endif
        .globl  _start
_start: ldr     x0, =CVAL
        msr     TIMER(cval), x0
        mov     x1, #1
        msr     TIMER(ctl), x1
1:      wfi
        b       1b
