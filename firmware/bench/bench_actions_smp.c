/* Actions of several CPUs. The CPUs are switched on for one action, and off again after it; there may be more of them
 * than smp.c has room for. */
#include "bench_actions.h"
#include "fdt.h"
#include "gic.h"
#include "mmu.h"
#include "psci.h"
#include "rt.h"
#include "timer.h"

#define SGI         1u
#define STACK       4096u
#define PATIENCE_US 10000000u
#define OWN_LINE    __attribute__((aligned(64)))

extern char secondary_entry[];

/* What secondary_entry expects in x0. */
static struct boot {
    u64 stack;
    void (*function)(u64 cpu);
    u64 cpu;
} boots[MOST_CPUS] OWN_LINE;
static u8 stacks[MOST_CPUS][STACK] __attribute__((aligned(16)));

static struct result {
    volatile u64 value;
} results[MOST_CPUS] OWN_LINE;
static volatile u64 flag, counter;
static volatile u32 ready;
static u32 turn OWN_LINE;
static u64 total;
static u32 crew = 1; /* CPUs that take part */

static void switch_on(u32 cpu, void (*function)(u64 cpu))
{
    boots[cpu] = (struct boot){(u64)(stacks[cpu] + STACK), function, cpu};
    /* The new CPU reads with its caches off. */
    for (u64 p = (u64)&boots[cpu] & ~63ul; p < (u64)(&boots[cpu] + 1); p += 64)
        __asm__ volatile("dc civac, %0" : : "r"(p) : "memory");
    dsb();
    if (psci_call(PSCI_CPU_ON, cpu, (u64)secondary_entry, (u64)&boots[cpu]) != PSCI_SUCCESS)
        die("CPU %u starts", cpu);
}

/* ``function(cpu)`` on CPUs 1 to ``cpus`` - 1, or on as many as there are. */
static void switch_on_all(void (*function)(u64 cpu), u32 cpus)
{
    u32 there = fdt_cpus();

    crew = there < cpus ? there : cpus;
    for (u32 cpu = 1; cpu < crew; cpu++)
        switch_on(cpu, function);
}

static void wait_off(void)
{
    for (u32 cpu = 1; cpu < crew; cpu++)
        if (!cpu_wait_off(cpu, PATIENCE_US))
            die("CPU %u goes off", cpu);
}

/* An SGI to another CPU, and a flag ---------------------------------------------------------------------------------- */

static void set_flag(u32 intid)
{
    (void)intid;
    flag++;
}

static void answer(u64 cpu)
{
    (void)cpu;
    mmu_enable();
    gic_cpu_init();
    gic_enable(SGI, set_flag);
    ready = 1;
    while (flag < total) {
        wfi();
        irq_enable();
        irq_disable();
    }
}

/* The timer, whose interrupt is masked, ends the turn of a spinning CPU under `qemu -icount`. */
static void spin_until(u64 want)
{
    virtual_timer.set_cval(virtual_count() + ticks_of_us(1000));
    virtual_timer.set_ctl(CTL_ENABLE | CTL_IMASK);
    while (flag < want)
        ;
}

/* Without another CPU the SGI comes to the sender. */
static void send_to_self(u64 count)
{
    gic_enable(SGI, set_flag);
    irq_enable();
    for (u64 n = 1; n <= count; n++) {
        gic_sgi_self(SGI);
        spin_until(n);
    }
    irq_disable();
}

u64 ipi_and_spin(u64 count)
{
    flag = ready = 0;
    total = count;
    switch_on_all(answer, 2);
    if (crew == 1) {
        send_to_self(count);
    } else {
        while (!ready)
            yield();
        for (u64 n = 1; n <= count; n++) {
            gic_sgi(SGI, 1u << 1);
            spin_until(n);
        }
    }
    virtual_timer.set_ctl(0);
    wait_off();
    return flag;
}

/* A mutex that goes from CPU to CPU in a circle -------------------------------------------------------------------- */

/* Wait in WFE until it is the turn of ``mine``. */
static void wait_turn(u32 mine)
{
    u32 seen;

    __asm__ volatile("sevl\n1:\twfe\n\tldaxr %w0, [%1]\n\tcmp %w0, %w2\n\tb.ne 1b"
                     : "=&r"(seen) : "r"(&turn), "r"(mine) : "cc", "memory");
}

static void take_turns(u64 cpu)
{
    for (u64 mine = cpu; mine < total; mine += crew) {
        wait_turn((u32)mine);
        counter++;
        __asm__ volatile("stlr %w0, [%1]" : : "r"((u32)mine + 1), "r"(&turn) : "memory");
    }
}

static void take_turns_elsewhere(u64 cpu)
{
    mmu_enable();
    take_turns(cpu);
}

u64 hand_over(u64 count)
{
    turn = 0;
    counter = 0;
    total = count;
    switch_on_all(take_turns_elsewhere, MOST_CPUS);
    take_turns(0);
    wait_off();
    return counter;
}

/* Work in registers, shared out to all CPUs -------------------------------------------------------------------------- */

static void work(u64 cpu)
{
    u64 rounds = total / crew + (cpu < total % crew), left = rounds, a = 1, b = 2;

    if (rounds)
        __asm__ volatile("1:\tadd %0, %0, %1\n\teor %1, %1, %0\n\tror %1, %1, #7\n\tsubs %2, %2, #1\n\tb.ne 1b"
                         : "+r"(a), "+r"(b), "+r"(left) : : "cc");
    results[cpu].value = rounds - left;
}

static void work_elsewhere(u64 cpu)
{
    mmu_enable();
    work(cpu);
}

u64 share_out(u64 count)
{
    u64 sum = 0;

    total = count;
    switch_on_all(work_elsewhere, MOST_CPUS);
    work(0);
    wait_off();
    for (u32 cpu = 0; cpu < crew; cpu++)
        sum += results[cpu].value;
    return sum;
}

/* One CPU at work, the others asleep --------------------------------------------------------------------------------- */

static void sleep(u64 cpu)
{
    (void)cpu;
    mmu_enable();
    for (;;)
        wfi();
}

u64 one_shot_among_sleepers(u64 count)
{
    switch_on_all(sleep, MOST_CPUS);
    return one_shot_asleep(count);
}
