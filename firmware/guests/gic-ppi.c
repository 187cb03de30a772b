/* Private interrupts are private: each CPU has its own timers, and its own enable, priority, pending and active
 * bits for INTIDs 0 to 31. IHI 0069, the SGI_base frame; IHI 0048, 4.1.4 on banked registers. */
#include "gictest.h"
#include "rt.h"
#include "smp.h"
#include "timer.h"

#define PPI     INTID_VTIMER
#define BY_HAND INTID_PTIMER /* its timer stays off */
#define ROUNDS  3u

static void timer_off_and_take(u32 intid)
{
    virtual_timer.set_ctl(0);
    take(intid);
}

static void timer_off_late(u32 intid)
{
    take(intid);
    if (taken[cpu_id()].count == ROUNDS)
        virtual_timer.set_ctl(0);
}

static u64 enable_here(u64 argument)
{
    gic_enable(PPI, timer_off_and_take);
    return argument;
}

static u64 disable_here(u64 argument)
{
    gic_disable(PPI);
    return argument;
}

static void start_timer(u64 us)
{
    virtual_timer.set_cval(virtual_count() + ticks_of_us(us));
    virtual_timer.set_ctl(CTL_ENABLE);
}

static u64 start_here(u64 us)
{
    start_timer(us);
    return us;
}

static u64 stop_here(u64 argument)
{
    virtual_timer.set_ctl(0);
    return argument;
}

/* All others took nothing. */
static bool only_here(u32 times)
{
    bool good = took_only(cpu_id(), PPI, times);

    for (u32 cpu = 0; cpu < cpus; cpu++)
        good &= cpu == cpu_id() || took_nothing(cpu);
    return good;
}

static u64 timer_comes_here(u64 argument)
{
    start_timer(20);
    wait_taken(cpu_id(), 1);
    return only_here(1) && argument == 0;
}

static u64 level_comes_again(u64 argument)
{
    gic_attach(PPI, timer_off_late);
    start_timer(20);
    wait_taken(cpu_id(), ROUNDS);
    gic_attach(PPI, timer_off_and_take);
    return only_here(ROUNDS) && argument == 0;
}

/* The timers of all CPUs at once; the one of ``without`` is enabled at its timer, but disabled at the GIC. */
static bool all_but(u32 without)
{
    bool good;

    forget();
    on_cpu(without, disable_here, 0);
    for (u32 cpu = 0; cpu < cpus; cpu++)
        on_cpu(cpu, start_here, 20);
    good = wait_total(cpus - 1);
    delay_us(50);
    for (u32 cpu = 0; cpu < cpus; cpu++)
        good &= took_only(cpu, PPI, cpu != without);
    on_cpu(without, enable_here, 0);
    good &= wait_total(cpus) && took_only(without, PPI, 1);
    return good;
}

static void check_banked_enable(void)
{
    u32 good = 0;

    for (u32 cpu = 0; cpu < cpus; cpu++)
        good += all_but(cpu);
    check_equal(good, cpus, "one CPU's disabled timer PPI leaves the others', and comes when enabled");
}

static void check_all_timers(void)
{
    bool good;

    forget();
    for (u32 cpu = 0; cpu < cpus; cpu++)
        on_cpu(cpu, start_here, 100 + 10 * cpu);
    good = wait_total(cpus);
    for (u32 cpu = 0; cpu < cpus; cpu++)
        good &= took_only(cpu, PPI, 1);
    check(good, "the timers of all CPUs at once: each CPU takes its own");
}

static u64 is_enabled(u64 intid) { return gic_bit_read((u32)intid, GIC_ISENABLER); }
static u64 is_pending(u64 intid) { return gic_bit_read((u32)intid, GIC_ISPENDR); }

static u64 enable_by_hand(u64 argument)
{
    gic_enable(BY_HAND, take);
    return argument;
}

static u64 disable_by_hand(u64 argument)
{
    gic_disable(BY_HAND);
    return argument;
}

static u32 count_of(u64 (*bit)(u64 intid))
{
    u32 count = 0;

    for (u32 cpu = 0; cpu < cpus; cpu++)
        count += on_cpu(cpu, bit, BY_HAND) != 0;
    return count;
}

static void check_enable_bits(void)
{
    u32 good = 0;

    for (u32 cpu = 0; cpu < cpus; cpu++)
        on_cpu(cpu, disable_by_hand, 0);
    for (u32 cpu = 0; cpu < cpus; cpu++) {
        on_cpu(cpu, enable_by_hand, 0);
        good += count_of(is_enabled) == 1 && on_cpu(cpu, is_enabled, BY_HAND);
        on_cpu(cpu, disable_by_hand, 0);
    }
    check_equal(good, cpus, "a PPI enabled on a CPU reads as enabled there only");
}

static u64 set_own_priority(u64 argument)
{
    gic_set_priority(PPI, (u8)(0x10 * cpu_id() + 0x40));
    gic_set_priority(5, (u8)(0xc0 - 0x10 * cpu_id()));
    return argument;
}

static u64 has_own_priority(u64 argument)
{
    return gic_priority(PPI) == 0x10 * cpu_id() + 0x40 && gic_priority(5) == 0xc0 - 0x10 * cpu_id() && argument == 0;
}

/* The running priority tells that it is also what counts. */
static u64 runs_at_own_priority(u64 argument)
{
    start_timer(20);
    wait_taken(cpu_id(), 1);
    return only_here(1) && taken[cpu_id()].priority[0] == 0x10 * cpu_id() + 0x40 && argument == 0;
}

/* Made pending by register: taken here, once, and pending nowhere else. On a GICv2 it is not judged: QEMU's
 * ignores GICD_ISPENDR0 for PPIs where there are several CPUs. */
static u64 pend_and_hold(u64 argument)
{
    irq_disable();
    gic_enable(BY_HAND, take);
    gic_bit_write(BY_HAND, GIC_ISPENDR);
    return is_pending(BY_HAND) && argument == 0;
}

static u64 release(u64 argument)
{
    irq_enable();
    delay_us(20);
    return took_only(cpu_id(), BY_HAND, 1) && argument == 0;
}

static u64 take_back(u64 argument)
{
    gic_bit_write(BY_HAND, GIC_ICPENDR);
    argument = !is_pending(BY_HAND);
    irq_enable();
    delay_us(20);
    return argument && took_nothing(cpu_id());
}

static void check_by_hand(void)
{
    u32 held = 0, came = 0, back = 0;

    for (u32 cpu = 0; cpu < cpus; cpu++) {
        forget();
        held += on_cpu(cpu, pend_and_hold, 0) && count_of(is_pending) == 1;
        came += on_cpu(cpu, release, 0) != 0;
        forget();
        back += on_cpu(cpu, pend_and_hold, 0) && on_cpu(cpu, take_back, 0);
    }
    judge_on_v3(held, "a PPI made pending by ISPENDR is pending on that CPU only");
    judge_on_v3(came, "and taken there, once");
    judge_on_v3(back, "ICPENDR takes it back");
}

int main(void)
{
    gictest_start();
    open_all();
    for (u32 cpu = 0; cpu < cpus; cpu++)
        on_cpu(cpu, enable_here, 0);
    each("the CPU's own timer interrupts it, and no other CPU", timer_comes_here, 0);
    each("its level comes again until the timer is off, 3 times", level_comes_again, 0);
    check_all_timers();
    check_banked_enable();
    check_enable_bits();
    count_cpus(set_own_priority, 0);
    each("each CPU has its own priorities of a PPI and an SGI", has_own_priority, 0);
    each("and its PPI runs at the CPU's own", runs_at_own_priority, 0);
    check_by_hand();
    count_cpus(stop_here, 0);
    gictest_stop();
    return 0;
}
