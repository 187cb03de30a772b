/* Benchmark: a lock as a small teaching kernel has it, which nobody contends for. Taking it masks interrupts, counted per CPU, looks
 * whether this CPU has it already, and waits in WFE behind SEVL until LDAXR finds it free. The CPUs share out the rounds, each with a lock and
 * a counter of its own. `--append plain` has the same lock without SEVL and WFE. */
#include "fdt.h"
#include "gictest.h"
#include "rt.h"
#include "smp.h"
#include "timer.h"

#ifndef ROUNDS
#define ROUNDS 2000000u /* for all CPUs together */
#endif
#define OWN_LINE __attribute__((aligned(64)))
#define APART    __attribute__((noinline))

struct masking {
    u32 depth;  /* how many reasons there are to mask interrupts */
    bool before; /* whether they were open before the first */
};
struct lock {
    u32 taken;
    const char *name;
    const struct masking *owner;
};
static struct of_cpu {
    struct masking masking;
    struct lock lock;
    u64 counter, ns;
} of_cpus[MAX_CPUS] OWN_LINE;
static bool plain;

static struct masking *mine(void) { return &of_cpus[cpu_id()].masking; }
static void dmb(void) { __asm__ volatile("dmb ish" : : : "memory"); }
static bool are_open(void) { return !(read_sysreg(daif) & PSTATE_I); }

static APART void mask(void)
{
    bool open = are_open();
    struct masking *my;

    __asm__ volatile("msr daifset, #2" : : : "memory");
    my = mine();
    if (!my->depth++)
        my->before = open;
}

static APART void unmask(void)
{
    struct masking *my = mine();

    if (are_open() || !my->depth)
        die("interrupts are masked for no reason");
    if (!--my->depth && my->before)
        __asm__ volatile("msr daifclr, #2" : : : "memory");
}

static APART bool have(const struct lock *lock) { return lock->taken && lock->owner == mine(); }

static inline void got(struct lock *lock)
{
    dmb();
    lock->owner = mine();
}

static APART void take_with_wfe(struct lock *lock)
{
    u32 seen;

    mask();
    if (have(lock))
        die("%s: taken twice", lock->name);
    __asm__ volatile("sevl\n1:\twfe\n2:\tldaxr %w0, [%1]\n\tcbnz %w0, 1b\n\tstxr %w0, %w2, [%1]\n\tcbnz %w0, 2b"
                     : "=&r"(seen) : "r"(&lock->taken), "r"(1) : "memory");
    got(lock);
}

static APART void take_plain(struct lock *lock)
{
    u32 seen;

    mask();
    if (have(lock))
        die("%s: taken twice", lock->name);
    __asm__ volatile("1:\tldaxr %w0, [%1]\n\tcbnz %w0, 1b\n\tstxr %w0, %w2, [%1]\n\tcbnz %w0, 1b"
                     : "=&r"(seen) : "r"(&lock->taken), "r"(1) : "memory");
    got(lock);
}

static APART void give(struct lock *lock)
{
    if (!have(lock))
        die("%s: not taken", lock->name);
    lock->owner = 0;
    dmb();
    __asm__ volatile("stlr wzr, [%0]" : : "r"(&lock->taken) : "memory");
    unmask();
}

static u64 share(u64 rounds)
{
    struct of_cpu *my = &of_cpus[cpu_id()];
    void (*take_it)(struct lock *) = plain ? take_plain : take_with_wfe;
    u64 began;

    my->lock.name = "bench";
    irq_enable();
    began = virtual_count();
    for (u64 n = 0; n < rounds; n++) {
        take_it(&my->lock);
        my->counter++;
        give(&my->lock);
    }
    my->ns = ns_of_ticks(virtual_count() - began);
    irq_disable();
    return my->counter;
}

int main(void)
{
    const char *words = fdt_string("bootargs");
    u64 sum;

    plain = strlen(words) == 5 && !memcmp(words, "plain", 5);
    gictest_start();
    for (u32 cpu = 1; cpu < cpus; cpu++)
        smp_send(cpu, share, ROUNDS / cpus);
    sum = share(ROUNDS / cpus);
    for (u32 cpu = 1; cpu < cpus; cpu++)
        sum += smp_wait(cpu);
    note("%s: %lu ns for a round of CPU 0", plain ? "without SEVL and WFE" : "with SEVL and WFE",
         of_cpus[0].ns / (ROUNDS / cpus));
    check_equal(sum, ROUNDS, "every round is counted");
    gictest_stop();
    return 0;
}
