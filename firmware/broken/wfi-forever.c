/* Broken on purpose: sleeps with no timer armed and no interrupt enabled. The usual cause of "it hangs":
 * here the timer is programmed, but its interrupt was never enabled in the redistributor. */
#include "gic.h"
#include "rt.h"
#include "timer.h"

int main(void)
{
    gic_init();
    virtual_timer.set_cval(virtual_count() + ticks_of_us(100));
    virtual_timer.set_ctl(CTL_ENABLE);
    irq_enable();
    print("about to wait for an interrupt that cannot come\n");
    for (;;)
        wfi();
}
