/* The EL1 physical timer (PPI 30): the same checks, and that the two timers are independent. */
#include "gic.h"
#include "rt.h"
#include "timer_checks.h"

static volatile u32 order[2], taken;

static void on_timer(u32 intid)
{
    const struct timer *t = intid == INTID_PTIMER ? &physical_timer : &virtual_timer;

    t->set_ctl(0);
    if (taken < 2)
        order[taken] = intid;
    taken++;
}

static void check_independence(void)
{
    gic_enable(INTID_PTIMER, on_timer);
    gic_enable(INTID_VTIMER, on_timer);
    virtual_timer.set_cval(virtual_timer.count() + ticks_of_us(200));
    physical_timer.set_cval(physical_timer.count() + ticks_of_us(100));
    virtual_timer.set_ctl(CTL_ENABLE);
    physical_timer.set_ctl(CTL_ENABLE);
    irq_enable();
    check(wait_value(&taken, 2, 1000), "both timers fire");
    irq_disable();
    check(order[0] == INTID_PTIMER && order[1] == INTID_VTIMER, "each at its own deadline");
    physical_timer.set_cval(~0ul);
    virtual_timer.set_cval(5);
    check_equal(physical_timer.get_cval(), ~0ul, "writing one CVAL leaves the other alone");
}

int main(void)
{
    timer_checks(&physical_timer);
    check_independence();
    return 0;
}
