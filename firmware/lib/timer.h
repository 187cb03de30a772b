/* The Generic Timer at EL1: one body of code for both timers. */
#ifndef TIMER_H
#define TIMER_H

#include "cpu.h"

#define CTL_ENABLE  (1ul << 0)
#define CTL_IMASK   (1ul << 1)
#define CTL_ISTATUS (1ul << 2)

/* Counter reads are ordered by an ISB: the architecture lets them be speculated (D12.1). */
static inline u64 virtual_count(void)
{
    isb();
    return read_sysreg(cntvct_el0);
}

static inline u64 physical_count(void)
{
    isb();
    return read_sysreg(cntpct_el0);
}

/* Ticks per second, from CNTFRQ_EL0. */
static inline u64 frequency(void) { return read_sysreg(cntfrq_el0); }

/* Ticks of ``us`` microseconds, at least 1. */
u64 ticks_of_us(u64 us);

/* Nanoseconds of ``ticks``. */
u64 ns_of_ticks(u64 ticks);

/* Burn at least ``us`` microseconds. */
void delay_us(u64 us);

/* Wait until *value >= want, at most ``us`` microseconds. Interrupts must be enabled by the caller. */
bool wait_value(const volatile u32 *value, u32 want, u64 us);

struct timer {
    const char *name;
    u32 intid;
    u64 (*count)(void);
    u64 (*get_ctl)(void);
    void (*set_ctl)(u64 value);
    u64 (*get_cval)(void);
    void (*set_cval)(u64 value);
    u64 (*get_tval)(void);
    void (*set_tval)(u64 value);
};

extern const struct timer virtual_timer, physical_timer;

#endif
