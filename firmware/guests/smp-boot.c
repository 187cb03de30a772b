/* PSCI: every CPU is turned on, looked at where it enters, turned off, and on again by another. Arm DEN 0022. */
#include "fdt.h"
#include "gic.h"
#include "psci.h"
#include "rt.h"
#include "timer.h"

#define PSCI_CPU_ON_32        0x84000003ul
#define PSCI_AFFINITY_INFO_32 0x84000004ul
#define MPIDR_AFFINITY 0xff00fffffful
#define ABSENT 0x7fu /* an affinity that no CPU has */
#define PATIENCE_US 1000000u

/* What a CPU found at its entry point, before it touched anything. The layout is known to probe_entry. */
static volatile struct entry {
    u64 x0, el, spsel, daif, sctlr, mpidr, cntv_ctl, cntp_ctl;
} entries[MAX_CPUS] __attribute__((used));

/* Where it goes on: what secondary_entry of start.S takes. */
static struct life {
    u64 stack;
    void (*function)(u64 argument);
    u64 argument;
    u64 unused;
} lives[MAX_CPUS] __attribute__((used));

static u8 stacks[MAX_CPUS][STACK_SIZE] __attribute__((aligned(16)));
static volatile u32 lived[MAX_CPUS]; /* how often it was turned on */
static volatile u32 may_stop;
static u32 cpus;

extern char probe_entry[];
__asm__(".pushsection .text.probe, \"ax\"\n.global probe_entry\nprobe_entry:\n\t"
        "mrs x1, mpidr_el1\n\tand x2, x1, #0xff\n\t"
        "adrp x3, entries\n\tadd x3, x3, :lo12:entries\n\tadd x3, x3, x2, lsl #6\n\t"
        "mrs x4, CurrentEL\n\tmrs x5, spsel\n\tmrs x6, daif\n\tmrs x7, sctlr_el1\n\t"
        "mrs x8, cntv_ctl_el0\n\tmrs x9, cntp_ctl_el0\n\t"
        "stp x0, x4, [x3]\n\tstp x5, x6, [x3, #16]\n\tstp x7, x1, [x3, #32]\n\tstp x8, x9, [x3, #48]\n\t"
        "adrp x0, lives\n\tadd x0, x0, :lo12:lives\n\tadd x0, x0, x2, lsl #5\n\tb secondary_entry\n.popsection");

static long turn_on(u64 function, u32 cpu, void (*life)(u64 argument), u64 context)
{
    lives[cpu] = (struct life){(u64)stacks[cpu] + STACK_SIZE, life, cpu, 0};
    dsb();
    return psci_call(function, cpu, (u64)probe_entry, context);
}

static long affinity_info(u64 affinity, u64 level)
{
    return psci_call(PSCI_AFFINITY_INFO, affinity, level, 0);
}

/* A value with all its halves different, for CPU_ON to hand over. */
static u64 context_of(u32 cpu)
{
    return 0xfedcba9876543200ul + cpu;
}

static void stay(u64 cpu)
{
    lived[cpu]++;
    while (!may_stop)
        yield();
}

/* Leaves both timers running when it goes off: its next life must not have them. */
static void stay_with_timers(u64 cpu)
{
    virtual_timer.set_cval(~0ul);
    virtual_timer.set_ctl(CTL_ENABLE);
    physical_timer.set_cval(0);
    physical_timer.set_ctl(CTL_ENABLE | CTL_IMASK);
    stay(cpu);
}

static bool all_off(u32 first)
{
    u32 good = 0;

    may_stop = 1;
    for (u32 cpu = first; cpu < cpus; cpu++)
        good += cpu_wait_off(cpu, PATIENCE_US);
    may_stop = 0;
    return good == cpus - first;
}

/* Of the CPUs other than 0, whether ``holds`` is true for each. */
static void check_others(const char *sentence, bool (*holds)(u32 cpu))
{
    u32 good = 1;

    for (u32 cpu = 1; cpu < cpus; cpu++)
        good += holds(cpu);
    check_equal(good, cpus, "%s", sentence);
}

static bool is_off(u32 cpu) { return affinity_info(cpu, 0) == AFFINITY_OFF; }
static bool is_on(u32 cpu) { return affinity_info(cpu, 0) == AFFINITY_ON; }

static bool is_on_32(u32 cpu)
{
    return psci_call(PSCI_AFFINITY_INFO_32, cpu, 0, 0) == AFFINITY_ON;
}

/* ON_PENDING (2) is allowed until it runs, OFF is not. */
static bool turns_on(u32 cpu)
{
    return turn_on(PSCI_CPU_ON, cpu, stay_with_timers, context_of(cpu)) == PSCI_SUCCESS &&
           affinity_info(cpu, 0) != AFFINITY_OFF;
}

static bool turns_on_32(u32 cpu)
{
    return turn_on(PSCI_CPU_ON_32, cpu, stay, context_of(cpu) & 0xffffffff) == PSCI_SUCCESS;
}

static bool lives_first(u32 cpu) { return wait_value(&lived[cpu], 1, PATIENCE_US); }
static bool lives_again(u32 cpu) { return wait_value(&lived[cpu], 2, PATIENCE_US); }
static bool has_context(u32 cpu) { return entries[cpu].x0 == context_of(cpu); }
static bool has_context_32(u32 cpu) { return entries[cpu].x0 == (context_of(cpu) & 0xffffffff); }
static bool has_affinity(u32 cpu) { return (entries[cpu].mpidr & MPIDR_AFFINITY) == cpu; }
static bool is_el1h(u32 cpu) { return entries[cpu].el == 1 << 2 && entries[cpu].spsel == 1; }
static bool is_masked(u32 cpu) { return entries[cpu].daif == PSTATE_DAIF; }

static bool is_plain(u32 cpu)
{
    return !(entries[cpu].sctlr & (SCTLR_M | SCTLR_C | SCTLR_I | SCTLR_EE));
}

/* The architecture leaves them unknown at a warm reset; QEMU and KVM both turn them off. */
static bool has_no_timers(u32 cpu)
{
    return !((entries[cpu].cntv_ctl | entries[cpu].cntp_ctl) & CTL_ENABLE);
}

static bool refuses_again(u32 cpu)
{
    return psci_call(PSCI_CPU_ON, cpu, (u64)probe_entry, 0) == PSCI_ALREADY_ON;
}

static bool ran_on(u32 cpu) { return lived[cpu] == 1; }

static void check_entries(const char *life)
{
    print("%s\n", life);
    check_others("each CPU has its own affinity", has_affinity);
    check_others("each entered at EL1 with SP_EL1", is_el1h);
    check_others("all exceptions masked", is_masked);
    check_others("MMU and caches off, little-endian", is_plain);
    check_others("both timers off", has_no_timers);
}

static void check_errors(void)
{
    long at_level = affinity_info(0, 1);

    check(at_level == AFFINITY_ON || at_level == PSCI_INVALID_PARAMETERS,
          "AFFINITY_INFO of the cluster of this CPU is ON, or INVALID_PARAMETERS where only level 0 is offered");
    check_equal((u64)affinity_info(0, 0), AFFINITY_ON, "AFFINITY_INFO of this CPU is ON");
    check_equal((u64)affinity_info(ABSENT, 0), (u64)PSCI_INVALID_PARAMETERS,
                "AFFINITY_INFO of an absent CPU is INVALID_PARAMETERS");
    check_equal((u64)affinity_info(cpus, 0), (u64)PSCI_INVALID_PARAMETERS, "also of the first CPU that is one too many");
    check_equal((u64)psci_call(PSCI_CPU_ON, 0, (u64)probe_entry, 0), (u64)PSCI_ALREADY_ON,
                "CPU_ON of this CPU is ALREADY_ON");
    check_equal((u64)psci_call(PSCI_CPU_ON, cpus, (u64)probe_entry, 0), (u64)PSCI_INVALID_PARAMETERS,
                "CPU_ON of an absent CPU is INVALID_PARAMETERS");
    check_equal((u64)psci_call(PSCI_CPU_ON, 1ul << 31, (u64)probe_entry, 0), (u64)PSCI_INVALID_PARAMETERS,
                "CPU_ON with a reserved bit of the affinity is INVALID_PARAMETERS");
    check_equal((u64)psci_call(PSCI_CPU_ON, 1ul << 32, (u64)probe_entry, 0), (u64)PSCI_INVALID_PARAMETERS,
                "CPU_ON with another Aff3 is INVALID_PARAMETERS");
}

static void check_first_life(void)
{
    check_others("at first all other CPUs are off", is_off);
    check_others("CPU_ON succeeds for each", turns_on);
    check_others("each runs", lives_first);
    check_others("each got its context id, all 64 bits", has_context);
    check_others("AFFINITY_INFO says ON", is_on);
    check_others("so does its 32-bit form", is_on_32);
    check_others("CPU_ON of each again is ALREADY_ON", refuses_again);
    check_entries("as they entered:");
    check(all_off(1), "each is OFF after CPU_OFF");
    check_others("none ran twice", ran_on);
}

static void check_second_life(void)
{
    check_others("the 32-bit CPU_ON turns each on again", turns_on_32);
    check_others("each runs again", lives_again);
    check_others("each got its context id of 32 bits", has_context_32);
    check_entries("as they entered again:");
    check(all_off(1), "each is OFF after CPU_OFF again");
}

/* A chain: each CPU turns on the next one, the last one CPU 0, which goes off meanwhile. */
static volatile u32 links;

static void link(u64 cpu);

static void last_life(u64 argument)
{
    (void)argument;
    check_equal(links, cpus - 1, "each CPU was turned on by the one before");
    check(entries[0].x0 == context_of(0) || cpus == 1, "the last turned on CPU 0, which had gone off");
    check(cpus == 1 || (is_el1h(0) && is_masked(0) && is_plain(0)), "CPU 0 entered as the others did");
    check(all_off(1), "the others are OFF in the end");
    finish();
}

static void link(u64 cpu)
{
    u32 next = (u32)(cpu + 1) % cpus;

    links++;
    dsb();
    if (cpu_wait_off(next, PATIENCE_US))
        turn_on(PSCI_CPU_ON, next, next ? link : last_life, context_of(next));
    while (!may_stop)
        yield();
}

int main(void)
{
    gic_init();
    cpus = fdt_cpus();
    note("GICv%u, %u CPUs", gic_version, cpus);
    check_errors();
    check_first_life();
    check_second_life();
    if (cpus == 1)
        last_life(0);
    turn_on(PSCI_CPU_ON, 1, link, context_of(1));
    cpu_park();
}
