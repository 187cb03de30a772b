/* A 1 kHz tick from the virtual timer, as an operating system would program it: each deadline is the
 * last deadline plus a period, so that the latency of one tick never adds to the next. */
#include "gic.h"
#include "rt.h"
#include "timer.h"

#define TICKS 100u

static volatile u32 ticks;
static u64 period, first_deadline;
static u64 worst_latency, early, overruns;

static void tick(u32 intid)
{
    u64 now = virtual_count(), deadline = read_sysreg(cntv_cval_el0);

    (void)intid;
    if (now < deadline)
        early++;
    else if (now - deadline > worst_latency)
        worst_latency = now - deadline;
    if (now - deadline >= period)
        overruns++;
    write_sysreg(cntv_cval_el0, deadline + period);
    isb();
    ticks++;
}

static void start_ticking(void)
{
    period = frequency() / 1000;
    first_deadline = virtual_count() + period;
    virtual_timer.set_cval(first_deadline);
    virtual_timer.set_ctl(CTL_ENABLE);
}

/* Sleep with interrupts masked: WFI wakes on a pending one, which is then taken between the two. */
static void sleep_until_tick(u32 wanted)
{
    while (ticks < wanted) {
        irq_disable();
        if (ticks < wanted)
            wfi();
        irq_enable();
    }
}

static void check_drift(u64 end)
{
    u64 expected = first_deadline + (TICKS - 1) * period;

    check(end >= expected, "the last tick does not come early");
    check(end - expected < period, "100 ticks drift by less than one period");
    check_equal(virtual_timer.get_cval(), first_deadline + TICKS * period, "CVAL advanced by 100 periods exactly");
}

int main(void)
{
    u64 end;

    gic_init();
    gic_enable(INTID_VTIMER, tick);
    start_ticking();
    irq_enable();
    for (u32 n = 25; n <= TICKS; n += 25) {
        sleep_until_tick(n);
        print("tick %u\n", n);
    }
    end = virtual_count();
    virtual_timer.set_ctl(0);
    irq_disable();
    check_equal(ticks, TICKS, "100 ticks were delivered");
    check_equal(early, 0, "no tick came before its deadline");
    check_equal(overruns, 0, "no tick came a period late");
    check_drift(end);
    check_equal(gic_spurious, 0, "no spurious interrupt");
    note("period %lu ticks of the counter, worst latency %lu ns", period, ns_of_ticks(worst_latency));
    return 0;
}
