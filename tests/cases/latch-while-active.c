/* The handler of a timer's interrupt switches the timer off and writes ISPENDR: the interrupt is active and pending, by the latch alone,
 * and comes once more at its deactivation (IHI 0069 4.1.2), at once. On a GICv3 nothing else makes the CPU leave the guest.
 * The command line may say `ptimer`, and how the line falls: `imask` (otherwise ENABLE = 0). */
#include "case.h"

static volatile u32 taken_times;
static const struct timer *timer;

static void on_timer(u32 intid)
{
    taken_times++;
    timer->set_ctl(word("imask") ? CTL_ENABLE | CTL_IMASK : 0);
    if (taken_times == 1)
        gic_bit_write(intid, GIC_ISPENDR);
}

int main(void)
{
    u32 at_once, later, much_later;

    gictest_start();
    timer = word("ptimer") ? &physical_timer : &virtual_timer;
    gic_enable(timer->intid, on_timer);
    irq_enable();
    timer->set_tval(1000);
    timer->set_ctl(CTL_ENABLE);
    while (!taken_times)
        spin(10);
    at_once = taken_times;
    spin(100);
    later = taken_times;
    spin(50000);
    much_later = taken_times;
    check_equal(at_once, 2, "the latch brings it again at once");
    check_equal(later, 2, "not a third time 200 instructions later");
    check_equal(much_later, 2, "nor 100,000 instructions later");
    check_equal(taken_times, 2, "nor after what leaves the guest");
    irq_disable();
    gictest_stop();
    return 0;
}
