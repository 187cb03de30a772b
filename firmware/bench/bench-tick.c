/* Benchmark: six minutes of guest time, asleep in WFI but for 360,000 interrupts of the virtual timer at 1 kHz. */
#include "gic.h"
#include "rt.h"
#include "timer.h"

#ifndef TICKS
#define TICKS 360000u
#endif
#define RATE_HZ 1000u

static volatile u32 ticks;
static u64 period;
static u32 early, late;

static void on_tick(u32 intid)
{
    u64 now = virtual_count(), deadline = read_sysreg(cntv_cval_el0);

    (void)intid;
    early += now < deadline;
    late += now >= deadline + period;
    write_sysreg(cntv_cval_el0, deadline + period);
    isb();
    ticks++;
}

int main(void)
{
    u64 start;

    gic_init();
    gic_enable(INTID_VTIMER, on_tick);
    period = frequency() / RATE_HZ;
    start = virtual_count();
    virtual_timer.set_cval(start + period);
    virtual_timer.set_ctl(CTL_ENABLE);
    irq_enable();
    while (ticks < TICKS)
        wfi();
    irq_disable();
    virtual_timer.set_ctl(0);
    check_equal(ticks, TICKS, "every tick was taken");
    check_equal(early + late, 0, "each within its own period");
    check_equal(virtual_timer.get_cval(), start + (TICKS + 1ul) * period, "and the last at the end of the six minutes");
    return 0;
}
