/* CPU_ON starts every other CPU at an address that is not aligned: each faults at once, and in its vectors, which are not
 * mapped, for ever. CPU 0 has work to do, by its clock and by its timer, and ends in order. */
#include "case.h"
#include "psci.h"

static volatile u32 fired;

static void on_timer(u32 intid)
{
    (void)intid;
    fired++;
    virtual_timer.set_ctl(0);
}

int main(void)
{
    u32 started = 0, others = fdt_cpus() - 1;

    gic_init();
    for (u32 cpu = 1; cpu <= others; cpu++)
        started += psci_call(PSCI_CPU_ON, cpu, 0x40000002, 0) == PSCI_SUCCESS;
    check_equal(started, others, "CPU_ON at an unaligned address succeeds");
    delay_us(20000);
    check(true, "CPU 0 is alive after 20 ms");
    gic_enable(INTID_VTIMER, on_timer);
    irq_enable();
    virtual_timer.set_tval(ticks_of_us(1000));
    virtual_timer.set_ctl(CTL_ENABLE);
    while (!fired)
        wfi();
    irq_disable();
    check_equal(fired, 1, "CPU 0's timer wakes it");
    return 0;
}
