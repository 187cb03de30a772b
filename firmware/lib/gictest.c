#include "gictest.h"

#include "fdt.h"
#include "mmu.h"
#include "rt.h"
#include "smp.h"
#include "timer.h"

#define GRACE_US 10u /* for what should not come */

volatile struct taken taken[MAX_CPUS];
u32 cpus;

static void enable_sgis(void)
{
    for (u32 intid = 0; intid < SGI_COUNT; intid++)
        gic_enable(intid, take);
}

static u64 prepare(u64 argument)
{
    (void)argument;
    gic_cpu_init();
    enable_sgis();
    return 0;
}

void gictest_start(void)
{
    mmu_on();
    gic_init();
    enable_sgis();
    cpus = fdt_cpus();
    note("GICv%u, %u CPUs", gic_version, cpus);
    for (u32 cpu = 1; cpu < cpus; cpu++) {
        smp_start(cpu);
        smp_call(cpu, prepare, 0);
    }
}

void gictest_stop(void)
{
    close_all();
    for (u32 cpu = 1; cpu < cpus; cpu++)
        smp_stop(cpu);
}

void take(u32 intid)
{
    volatile struct taken *mine = &taken[cpu_id()];

    if (mine->count < RECORD) {
        mine->intid[mine->count] = intid;
        mine->priority[mine->count] = gic_running();
    }
    dsb();
    mine->count++;
}

void forget(void)
{
    for (u32 cpu = 0; cpu < cpus; cpu++)
        taken[cpu].count = 0;
    dsb();
}

u32 times_taken(u32 cpu, u32 intid)
{
    u32 times = 0;

    for (u32 n = 0; n < taken[cpu].count && n < RECORD; n++)
        times += taken[cpu].intid[n] == intid;
    return times;
}

bool took_only(u32 cpu, u32 intid, u32 times)
{
    return taken[cpu].count == times && times_taken(cpu, intid) == times;
}

bool took_nothing(u32 cpu)
{
    return taken[cpu].count == 0;
}

u32 total_taken(void)
{
    u32 sum = 0;

    for (u32 cpu = 0; cpu < cpus; cpu++)
        sum += taken[cpu].count;
    return sum;
}

/* With IRQs open, until ``enough`` says so or patience ends; then IRQs as they were. */
static bool wait_until(bool (*enough)(u32 cpu, u32 count), u32 cpu, u32 count)
{
    u64 mask = read_sysreg(daif), start = virtual_count(), ticks = ticks_of_us(PATIENCE_US);
    bool good;

    irq_enable();
    while (!(good = enough(cpu, count)) && virtual_count() - start < ticks)
        yield();
    delay_us(GRACE_US);
    write_sysreg(daif, mask);
    return good;
}

static bool enough_here(u32 cpu, u32 count) { return taken[cpu].count >= count; }
static bool enough_together(u32 cpu, u32 count) { (void)cpu; return total_taken() >= count; }

bool wait_taken(u32 cpu, u32 count)
{
    return wait_until(enough_here, cpu, count) && taken[cpu].count == count;
}

bool wait_total(u32 count)
{
    return wait_until(enough_together, 0, count) && total_taken() == count;
}

void window(void)
{
    irq_enable();
    delay_us(GRACE_US);
    irq_disable();
}

static u64 open_here(u64 argument) { irq_enable(); return argument; }
static u64 close_here(u64 argument) { irq_disable(); return argument; }

u64 on_cpu(u32 cpu, u64 (*function)(u64 argument), u64 argument)
{
    return cpu == 0 ? function(argument) : smp_call(cpu, function, argument);
}

u32 next_cpu(u32 cpu)
{
    return (cpu + 1) % cpus;
}

void open_all(void)
{
    for (u32 cpu = 0; cpu < cpus; cpu++)
        on_cpu(cpu, open_here, 0);
}

void close_all(void)
{
    for (u32 cpu = 0; cpu < cpus; cpu++)
        on_cpu(cpu, close_here, 0);
}

u32 count_cpus(u64 (*holds)(u64 argument), u64 argument)
{
    u32 good = 0;

    for (u32 cpu = 0; cpu < cpus; cpu++) {
        forget();
        good += on_cpu(cpu, holds, argument) != 0;
    }
    return good;
}

void each(const char *sentence, u64 (*holds)(u64 argument), u64 argument)
{
    check_equal(count_cpus(holds, argument), cpus, "%s", sentence);
}

void judge_on_v3(u32 good, const char *sentence)
{
    if (gic_version == 3)
        check_equal(good, cpus, "%s", sentence);
    else
        note("%s: %u of %u", sentence, good, cpus);
}

void nothing_to_do(const char *needs)
{
    check(true, "needs %s, this is a GICv%u without: nothing to do", needs, gic_version);
    finish();
}

void spi_setup(u32 intid, bool edge, u32 cpu)
{
    gic_disable(intid);
    gic_set_edge(intid, edge);
    gic_bit_write(intid, GIC_ICPENDR);
    gic_bit_write(intid, GIC_ICACTIVER);
    gic_enable(intid, take);
    gic_route(intid, cpu);
}
