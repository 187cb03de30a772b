/* WFI: what wakes it, what does not have to, and that time passes meanwhile. A WFI may wake for no
 * reason (DDI 0487 D1.6.2), so every wait is a loop and only its result is judged. */
#include "gic.h"
#include "rt.h"
#include "timer.h"

static volatile u32 taken;

static void on_timer(u32 intid)
{
    (void)intid;
    virtual_timer.set_ctl(0);
    taken++;
}

static void on_sgi(u32 intid)
{
    (void)intid;
    taken++;
}

static u64 arm_us(u64 us)
{
    u64 deadline = virtual_count() + ticks_of_us(us);

    taken = 0;
    virtual_timer.set_cval(deadline);
    virtual_timer.set_ctl(CTL_ENABLE);
    return deadline;
}

static bool timer_pending(void)
{
    return gic_bit_read(INTID_VTIMER, GIC_ISPENDR);
}

static void check_masked(void)
{
    u64 deadline, woke;

    irq_disable();
    deadline = arm_us(2000);
    while (!timer_pending())
        wfi();
    woke = virtual_count();
    check(woke >= deadline, "WFI with IRQs masked sleeps to the deadline");
    check(woke - deadline < ticks_of_us(1000), "and wakes soon after it");
    check_equal(taken, 0, "the interrupt is not taken while masked");
    irq_enable();
    check(wait_value(&taken, 1, 100), "it is taken when unmasked");
}

static void check_unmasked(void)
{
    u64 deadline;

    irq_enable();
    deadline = arm_us(2000);
    while (!taken)
        wfi();
    check(virtual_count() >= deadline, "WFI with IRQs unmasked sleeps to the deadline");
    check_equal(taken, 1, "the handler ran once");
}

/* Ten WFIs with an interrupt pending take no time worth speaking of. */
static void check_falls_through(void)
{
    u64 start;

    irq_disable();
    taken = 0;
    gic_sgi(3, 1);
    check(gic_wait_pending(3, 100), "an SGI to this CPU is pending");
    start = virtual_count();
    for (u32 n = 0; n < 10; n++)
        wfi();
    check(virtual_count() - start < ticks_of_us(1000), "WFI falls through while an interrupt is pending");
    check_equal(taken, 0, "without taking it");
    irq_enable();
    check(wait_value(&taken, 1, 100), "the SGI is taken when unmasked");
}

/* Whether an interrupt masked by PMR wakes a WFI is left open; the timer, unmasked, must. */
static void check_not_for_masked_priority(void)
{
    u64 deadline;

    irq_disable();
    taken = 0;
    gic_set_priority(4, 0xf0);
    write_sysreg(ICC_PMR_EL1, 0xe0);
    isb();
    gic_sgi(4, 1);
    deadline = arm_us(500);
    while (!timer_pending())
        wfi();
    check(virtual_count() >= deadline, "an interrupt below PMR does not keep WFI from sleeping to the deadline");
    irq_enable();
    check(wait_value(&taken, 1, 100), "the timer interrupt is taken above PMR");
    delay_us(20);
    check_equal(taken, 1, "the SGI below PMR is not");
    write_sysreg(ICC_PMR_EL1, 0xff);
    isb();
    check(wait_value(&taken, 2, 100), "the SGI is taken when PMR opens");
    irq_disable();
}

static void check_series(void)
{
    u32 good = 0;

    irq_enable();
    for (u32 n = 1; n <= 20; n++) {
        u64 deadline = arm_us(10 * n);

        while (!taken)
            wfi();
        good += taken == 1 && virtual_count() >= deadline;
    }
    check_equal(good, 20, "twenty sleeps of growing length each end at their deadline");
    irq_disable();
}

int main(void)
{
    gic_init();
    gic_enable(INTID_VTIMER, on_timer);
    gic_enable(3, on_sgi);
    gic_enable(4, on_sgi);
    check_masked();
    check_unmasked();
    check_falls_through();
    check_not_for_masked_priority();
    check_series();
    return 0;
}
