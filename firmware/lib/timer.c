#include "timer.h"

#include "rt.h"

u64 ticks_of_us(u64 us)
{
    u64 ticks = frequency() * us / 1000000;

    return ticks ? ticks : 1;
}

u64 ns_of_ticks(u64 ticks)
{
    u64 f = frequency();

    return ticks / f * 1000000000 + ticks % f * 1000000000 / f;
}

void delay_us(u64 us)
{
    u64 start = virtual_count(), ticks = ticks_of_us(us);

    while (virtual_count() - start < ticks)
        yield();
}

bool wait_value(const volatile u32 *value, u32 want, u64 us)
{
    u64 start = virtual_count(), ticks = ticks_of_us(us);

    while (*value < want) {
        if (virtual_count() - start > ticks)
            return false;
        yield();
    }
    return true;
}

/* Accessors of one timer; every write is followed by an ISB so that its effect is visible. */
#define TIMER(prefix, letter) \
    static u64 prefix##_get_ctl(void) { isb(); return read_sysreg(cnt##letter##_ctl_el0); } \
    static void prefix##_set_ctl(u64 value) { write_sysreg(cnt##letter##_ctl_el0, value); isb(); } \
    static u64 prefix##_get_cval(void) { isb(); return read_sysreg(cnt##letter##_cval_el0); } \
    static void prefix##_set_cval(u64 value) { write_sysreg(cnt##letter##_cval_el0, value); isb(); } \
    static u64 prefix##_get_tval(void) { isb(); return read_sysreg(cnt##letter##_tval_el0); } \
    static void prefix##_set_tval(u64 value) { write_sysreg(cnt##letter##_tval_el0, value); isb(); }

#define TIMER_ROW(prefix, counter, number) { \
    .name = #prefix, .intid = number, .count = counter, \
    .get_ctl = prefix##_get_ctl, .set_ctl = prefix##_set_ctl, \
    .get_cval = prefix##_get_cval, .set_cval = prefix##_set_cval, \
    .get_tval = prefix##_get_tval, .set_tval = prefix##_set_tval }

TIMER(virtual, v)
TIMER(physical, p)

const struct timer virtual_timer = TIMER_ROW(virtual, virtual_count, INTID_VTIMER);
const struct timer physical_timer = TIMER_ROW(physical, physical_count, INTID_PTIMER);
