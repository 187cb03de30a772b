/* SGIs from every CPU to itself, to each other one, to lists and to all but itself: each CPU receives exactly
 * what it should. IHI 0069, ICC_SGI1R_EL1; IHI 0048, GICD_SGIR. */
#include "gictest.h"
#include "rt.h"
#include "smp.h"
#include "timer.h"

#define BURST 25u

static u32 all(void)
{
    return (1u << cpus) - 1;
}

static u32 bits(u32 mask)
{
    u32 n = 0;

    for (; mask; mask &= mask - 1)
        n++;
    return n;
}

/* Everybody in ``mask`` took ``intid`` once, and nobody anything else. */
static bool arrived(u32 intid, u32 mask)
{
    bool good = wait_total(bits(mask));

    for (u32 cpu = 0; cpu < cpus; cpu++)
        good &= took_only(cpu, intid, mask >> cpu & 1);
    forget();
    return good;
}

static u64 to_self(u64 argument)
{
    bool good = true;

    (void)argument;
    for (u32 intid = 0; intid < SGI_COUNT; intid++) {
        gic_sgi_self(intid);
        good &= arrived(intid, 1u << cpu_id());
    }
    return good;
}

static u64 to_each(u64 argument)
{
    bool good = true;

    (void)argument;
    for (u32 cpu = 0; cpu < cpus; cpu++) {
        gic_sgi(cpu, 1u << cpu);
        good &= arrived(cpu, 1u << cpu);
    }
    return good;
}

static u64 to_list(u64 mask)
{
    gic_sgi(9, (u32)mask);
    return arrived(9, (u32)mask);
}

static u64 to_others(u64 argument)
{
    (void)argument;
    gic_sgi_others(10);
    return arrived(10, all() & ~(1u << cpu_id()));
}

/* One at a time: the next when the last was taken. */
static u64 to_next_often(u64 argument)
{
    u32 next = next_cpu(cpu_id());
    bool good = true;

    (void)argument;
    irq_enable();
    for (u32 n = 1; n <= BURST; n++) {
        gic_sgi(11, 1u << next);
        good &= wait_value(&taken[next].count, n, PATIENCE_US);
    }
    return good && wait_taken(next, BURST);
}

static u64 stays_pending(u64 argument)
{
    (void)argument;
    irq_disable();
    for (u32 n = 0; n < 3; n++)
        gic_sgi_self(12);
    irq_enable();
    return arrived(12, 1u << cpu_id());
}

static u64 send_own_number(u64 argument)
{
    (void)argument;
    gic_sgi(cpu_id(), all());
    return 0;
}

/* Every CPU sends to all at the same time, each its own INTID. */
static void check_all_at_once(void)
{
    bool good;

    forget();
    for (u32 cpu = 1; cpu < cpus; cpu++)
        smp_send(cpu, send_own_number, 0);
    send_own_number(0);
    for (u32 cpu = 1; cpu < cpus; cpu++)
        smp_wait(cpu);
    good = wait_total(cpus * cpus);
    for (u32 cpu = 0; cpu < cpus; cpu++)
        for (u32 intid = 0; intid < cpus; intid++)
            good &= times_taken(cpu, intid) == 1;
    check(good, "each CPU sends to all at once: each receives one from each");
}

static u64 receive_masked(u64 argument)
{
    irq_disable();
    for (u32 intid = 0; intid < SGI_COUNT; intid++)
        gic_sgi_self(intid);
    delay_us(10);
    argument = took_nothing(cpu_id());
    irq_enable();
    argument &= wait_taken(cpu_id(), SGI_COUNT);
    for (u32 intid = 0; intid < SGI_COUNT; intid++)
        argument &= times_taken(cpu_id(), intid) == 1;
    return argument;
}

int main(void)
{
    gictest_start();
    open_all();
    each("each of the 16 SGIs to itself reaches the CPU once, and no other CPU", to_self, 0);
    each("an SGI to any one CPU arrives there and only there", to_each, 0);
    each("an SGI to a list of all CPUs arrives once at each", to_list, all());
    each("an SGI to the even CPUs arrives at these", to_list, all() & 0x55);
    each("an SGI to the odd CPUs arrives at these", to_list, all() & 0xaa);
    each("an SGI to an empty list arrives nowhere", to_list, 0);
    each("an SGI to all others arrives at all but the sender", to_others, 0);
    each("25 SGIs to the next CPU are 25 interrupts", to_next_often, 0);
    each("an SGI sent again while it is pending is taken once", stays_pending, 0);
    each("16 SGIs sent while IRQs are masked are all taken afterwards", receive_masked, 0);
    check_all_at_once();
    gictest_stop();
    return 0;
}
