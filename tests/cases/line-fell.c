/* A timer fires while PSTATE.I masks its interrupt, and its line falls before the guest unmasks. A level-sensitive interrupt whose
 * line is low is not pending (IHI 0069 4.1.2): HPPIR gives 1023, ISR_EL1.I is 0, the handler does not run. On a GICv3 nothing in between
 * leaves the guest. The command line may say `ptimer`, and how the line falls: `imask`, `cval` or `tval` (otherwise ENABLE = 0). */
#include "case.h"

#define LATER 1000000u /* ticks */
#define ISR_I (1ul << 7)

static volatile u32 handler_runs;
static const struct timer *timer;

static void on_timer(u32 intid)
{
    (void)intid;
    handler_runs++;
    timer->set_ctl(0);
}

static void lower(void)
{
    if (word("imask"))
        timer->set_ctl(CTL_ENABLE | CTL_IMASK);
    else if (word("cval"))
        timer->set_cval(timer->count() + LATER);
    else if (word("tval"))
        timer->set_tval(LATER);
    else
        timer->set_ctl(0);
}

int main(void)
{
    u32 before, after, isr, runs;

    gictest_start();
    timer = word("ptimer") ? &physical_timer : &virtual_timer;
    gic_enable(timer->intid, on_timer);
    irq_disable();
    timer->set_cval(0);
    timer->set_ctl(CTL_ENABLE);
    spin(1000);
    before = gic_highest();
    lower();
    spin(1000);
    after = gic_highest();
    isr = (u32)(read_sysreg(isr_el1) & ISR_I);
    irq_enable();
    spin(1000);
    irq_disable();
    runs = handler_runs; /* looked at only now: what prints leaves the guest */
    timer->set_ctl(0);
    check_equal(before, timer->intid, "it is pending while its line is high");
    check_equal(after, INTID_SPURIOUS, "the line is low: HPPIR gives 1023");
    check_equal(isr, 0, "the line is low: ISR_EL1.I is 0");
    check_equal(runs, 0, "the line is low: the handler does not run");
    gictest_stop();
    return 0;
}
