/* A timer that falls due while its CPU may not be running, as all others spin and hardly ever yield: it must not come before
 * its deadline, it must come once, and the counter tells how late it was (a note: that is the scheduler's to choose).
 * Every CPU has its turn with both timers, asleep in WFI and awake. */
#include "gictest.h"
#include "mmu.h"
#include "rt.h"
#include "smp.h"
#include "timer.h"

#define ROUNDS   4u
#define AHEAD_US 150u
#define STRETCH  5000u /* 20 us or so */

static volatile u32 stop;

static const struct timer *victim_timer;
static bool asleep;

static volatile struct {
    u32 count, cpu;
    u64 when;
} tick;

static struct lateness {
    u64 least, most, sum, count;
} lateness;

static void on_timer(u32 intid)
{
    const struct timer *t = intid == INTID_PTIMER ? &physical_timer : &virtual_timer;

    tick.when = t->count();
    t->set_ctl(0);
    tick.cpu = cpu_id();
    tick.count++;
}

/* Two registers in opposite directions until told to stop; says whether they are still in step. One YIELD in STRETCH
 * steps is for QEMU, which otherwise lets a CPU run until the next timer of the machine, be it seconds away. */
static u64 spin(u64 argument)
{
    u64 up = 0, down = 1000, start = virtual_count(), ticks = ticks_of_us(10 * PATIENCE_US);

    while (!stop && virtual_count() - start < ticks) {
        for (u32 n = 0; n < STRETCH; n++)
            __asm__ volatile("add %0, %0, #1\n\tsub %1, %1, #1" : "+r"(up), "+r"(down));
        yield();
    }
    return argument + (up + down == 1000);
}

/* On the victim: arm, then sleep or spin until the interrupt has come. Good if it came once, here, and not early. */
static u64 one_tick(u64 argument)
{
    u64 deadline = victim_timer->count() + ticks_of_us(AHEAD_US + 7 * argument);
    bool good;

    tick.count = 0;
    victim_timer->set_cval(deadline);
    victim_timer->set_ctl(CTL_ENABLE);
    irq_enable();
    if (asleep)
        while (!tick.count)
            wfi();
    else
        wait_value(&tick.count, 1, PATIENCE_US);
    good = tick.count == 1 && tick.cpu == cpu_id() && tick.when >= deadline;
    delay_us(5);
    irq_disable();
    lateness.least = tick.when - deadline < lateness.least ? tick.when - deadline : lateness.least;
    lateness.most = tick.when - deadline > lateness.most ? tick.when - deadline : lateness.most;
    lateness.sum += tick.when - deadline;
    lateness.count++;
    return good && tick.count == 1;
}

/* All spin until the victim has had its ticks. */
static u64 some_ticks(u64 argument)
{
    u32 good = 0;

    for (u32 n = 0; n < ROUNDS; n++)
        good += (u32)one_tick(argument + n);
    stop = 1;
    return good == ROUNDS;
}

/* ``victim`` waits for its timer, all others spin. The number of CPUs on which all went well. */
static u32 steal_from(u32 victim)
{
    u32 good;

    stop = 0;
    for (u32 cpu = 1; cpu < cpus; cpu++)
        smp_send(cpu, cpu == victim ? some_ticks : spin, 0);
    good = (u32)(victim == 0 ? some_ticks(0) : spin(0));
    for (u32 cpu = 1; cpu < cpus; cpu++)
        good += (u32)smp_wait(cpu);
    return good;
}

static void check_stolen(const struct timer *timer, bool sleeping, const char *how)
{
    u32 good = 0;

    victim_timer = timer;
    asleep = sleeping;
    lateness = (struct lateness){.least = ~0ul};
    for (u32 cpu = 0; cpu < cpus; cpu++)
        good += steal_from(cpu) == cpus;
    check_equal(good, cpus, "%s timer, %s: on every CPU each tick comes once and not before its deadline", timer->name,
                how);
    note("late by %lu ns at least, %lu ns on average, %lu ns at most", ns_of_ticks(lateness.least),
         ns_of_ticks(lateness.sum / lateness.count), ns_of_ticks(lateness.most));
}

static u64 enable_timers(u64 argument)
{
    gic_enable(INTID_VTIMER, on_timer);
    gic_enable(INTID_PTIMER, on_timer);
    return argument;
}

int main(void)
{
    gictest_start();
    for (u32 cpu = 0; cpu < cpus; cpu++)
        on_cpu(cpu, enable_timers, 0);
    check_stolen(&virtual_timer, true, "asleep");
    check_stolen(&virtual_timer, false, "awake");
    check_stolen(&physical_timer, true, "asleep");
    check_stolen(&physical_timer, false, "awake");
    gictest_stop();
    check_equal(gic_spurious, 0, "no spurious interrupt");
    return 0;
}
