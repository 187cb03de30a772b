/* PSCI by HVC: start and stop every CPU the board has (at least two), and the answers on the way.
 * Arm DEN 0022. */
#include "psci.h"

#include "mmu.h"
#include "rt.h"
#include "timer.h"

#define ABSENT 0x7fu /* an affinity that no CPU has */

/* What a started CPU saw, written by itself. */
static volatile struct sighting {
    u64 argument;
    u32 runs;
    u32 cpu;
    u64 el, sctlr, daif;
} seen[MAX_CPUS];

static volatile u32 may_stop;
static u32 cpus;

static void look_around(u64 argument)
{
    volatile struct sighting *mine = &seen[cpu_id()];

    mine->argument = argument;
    mine->cpu = cpu_id();
    mine->el = read_sysreg(CurrentEL) >> 2;
    mine->sctlr = read_sysreg(sctlr_el1);
    mine->daif = read_sysreg(daif);
    dsb();
    mine->runs++;
    sev();
    while (!may_stop)
        wfe();
}

static void check_version(void)
{
    long version = psci_call(PSCI_VERSION, 0, 0, 0);

    check(version >> 16 == 1 || version == 2, "VERSION is 0.2 or 1.x");
    check_equal((u64)psci_call(PSCI_MIGRATE_INFO_TYPE, 0, 0, 0), 2,
                "MIGRATE_INFO_TYPE says that nothing needs migration");
}

static void check_features(void)
{
    static const u64 mandatory[] = {PSCI_VERSION, PSCI_CPU_SUSPEND, PSCI_CPU_OFF, PSCI_CPU_ON, PSCI_AFFINITY_INFO,
                                    PSCI_SYSTEM_OFF, PSCI_SYSTEM_RESET, PSCI_FEATURES};
    u32 good = 0;

    for (u32 n = 0; n < ARRAY_SIZE(mandatory); n++)
        good += psci_call(PSCI_FEATURES, mandatory[n], 0, 0) == PSCI_SUCCESS;
    check_equal(good, ARRAY_SIZE(mandatory), "FEATURES knows every mandatory function");
    check_equal((u64)psci_call(PSCI_FEATURES, 0x840000ff, 0, 0), (u64)PSCI_NOT_SUPPORTED,
                "FEATURES denies an unknown one");
    check_equal((u64)psci_call(0x840000ff, 0, 0, 0), (u64)PSCI_NOT_SUPPORTED,
                "a call of an unknown function is NOT_SUPPORTED");
}

static void count_cpus(void)
{
    while (cpus < MAX_CPUS && psci_call(PSCI_AFFINITY_INFO, cpus, 0, 0) != PSCI_INVALID_PARAMETERS)
        cpus++;
    check(cpus >= 2, "there is more than one CPU");
    check_equal((u64)psci_call(PSCI_AFFINITY_INFO, 0, 0, 0), AFFINITY_ON, "AFFINITY_INFO: this CPU is on");
    for (u32 cpu = 1; cpu < cpus; cpu++)
        check_equal((u64)psci_call(PSCI_AFFINITY_INFO, cpu, 0, 0), AFFINITY_OFF, "AFFINITY_INFO: CPU %u is off", cpu);
    check_equal((u64)psci_call(PSCI_AFFINITY_INFO, ABSENT, 0, 0), (u64)PSCI_INVALID_PARAMETERS,
                "AFFINITY_INFO of an absent CPU is INVALID_PARAMETERS");
}

static void check_errors(void)
{
    check_equal((u64)psci_call(PSCI_CPU_ON, 0, RAM_BASE, 0), (u64)PSCI_ALREADY_ON, "CPU_ON of this CPU is ALREADY_ON");
    check_equal((u64)psci_call(PSCI_CPU_ON, ABSENT, RAM_BASE, 0), (u64)PSCI_INVALID_PARAMETERS,
                "CPU_ON of an absent CPU is INVALID_PARAMETERS");
}

static void check_start(u32 cpu, u64 argument)
{
    u32 before = seen[cpu].runs;

    check_equal((u64)cpu_start(cpu, look_around, argument), PSCI_SUCCESS, "CPU_ON of CPU %u succeeds", cpu);
    check(wait_value(&seen[cpu].runs, before + 1, 1000000), "CPU %u runs", cpu);
    check_equal(seen[cpu].argument, argument, "CPU %u got its context id", cpu);
    check_equal(seen[cpu].cpu, cpu, "CPU %u has its own affinity", cpu);
    check(seen[cpu].el == 1 && !(seen[cpu].sctlr & (SCTLR_M | SCTLR_C)),
          "CPU %u started at EL1, MMU and cache off", cpu);
    check_equal(seen[cpu].daif, PSTATE_DAIF, "CPU %u started with interrupts masked", cpu);
    check_equal((u64)psci_call(PSCI_AFFINITY_INFO, cpu, 0, 0), AFFINITY_ON, "AFFINITY_INFO: CPU %u is on", cpu);
    check_equal((u64)cpu_start(cpu, look_around, 0), (u64)PSCI_ALREADY_ON, "CPU_ON of CPU %u again is ALREADY_ON", cpu);
}

static void stop_all(void)
{
    may_stop = 1;
    sev();
    for (u32 cpu = 1; cpu < cpus; cpu++)
        check(cpu_wait_off(cpu, 1000000), "CPU %u is off after CPU_OFF", cpu);
    may_stop = 0;
}

static void check_round(u64 tag)
{
    for (u32 cpu = 1; cpu < cpus; cpu++)
        check_start(cpu, tag + cpu);
    stop_all();
}

int main(void)
{
    check_version();
    check_features();
    count_cpus();
    check_errors();
    check_round(0x1122334455667700ul);
    print("and once more\n");
    check_round(0xfedcba9800000000ul);
    for (u32 cpu = 1; cpu < cpus; cpu++)
        check_equal(seen[cpu].runs, 2, "CPU %u was started twice", cpu);
    return 0;
}
