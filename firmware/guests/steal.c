/* Stolen time (Arm DEN 0057): each CPU finds its structure by SMCCC; what it counts grows, and never faster than time. */
#include "gictest.h"
#include "mmu.h"
#include "rt.h"
#include "smccc.h"
#include "smp.h"
#include "timer.h"

#define OFFSET_STOLEN 8u
#define STRUCTURE_SIZE 64u
#define RUN_US   2000u
#define SLACK_NS 1000u

static u64 addresses[MAX_CPUS];
static u32 backwards[MAX_CPUS], too_fast[MAX_CPUS];
static u64 gained[MAX_CPUS]; /* ns stolen while all CPUs ran */

static u64 stolen(void)
{
    return read64(addresses[cpu_id()] + OFFSET_STOLEN);
}

static u64 find_structure(u64 argument)
{
    addresses[cpu_id()] = smccc_call(PV_TIME_ST, 0).x0;
    return argument + (addresses[cpu_id()] != SMCCC_NOT_SUPPORTED && addresses[cpu_id()] % STRUCTURE_SIZE == 0);
}

static u64 finds_it_again(u64 argument)
{
    return argument + (smccc_call(PV_TIME_ST, 0).x0 == addresses[cpu_id()]);
}

static u64 has_revision_0(u64 argument)
{
    return argument + (read32(addresses[cpu_id()]) == 0 && read32(addresses[cpu_id()] + 4) == 0);
}

/* Watches its own stolen time for a while, beside all others. */
static u64 run(u64 argument)
{
    u64 start = virtual_count(), first = stolen(), last = first, elapsed;

    do {
        u64 now = stolen();

        elapsed = ns_of_ticks(virtual_count() - start);
        backwards[cpu_id()] += now < last;
        too_fast[cpu_id()] += now - first > elapsed + SLACK_NS;
        last = now;
    } while (elapsed < 1000 * RUN_US);
    gained[cpu_id()] = last - first;
    return argument;
}

static void everywhere(u64 (*work)(u64 argument))
{
    for (u32 cpu = 1; cpu < cpus; cpu++)
        smp_send(cpu, work, 0);
    work(0);
    for (u32 cpu = 1; cpu < cpus; cpu++)
        smp_wait(cpu);
}

static u32 sum_of(const u32 *counts)
{
    u32 sum = 0;

    for (u32 cpu = 0; cpu < cpus; cpu++)
        sum += counts[cpu];
    return sum;
}

static void check_calls(void)
{
    check_equal(smccc_call(PV_TIME_FEATURES, PV_TIME_FEATURES).x0, 0, "PV_TIME_FEATURES knows itself");
    check_equal(smccc_call(PV_TIME_FEATURES, PV_TIME_ST).x0, 0, "and PV_TIME_ST");
    check_equal(smccc_call(PV_TIME_FEATURES, SMCCC_VERSION).x0, SMCCC_NOT_SUPPORTED, "and nothing that is not its own");
}

static bool all_apart(void)
{
    u32 equal = 0;

    for (u32 a = 0; a < cpus; a++)
        for (u32 b = a + 1; b < cpus; b++)
            equal += addresses[a] == addresses[b];
    return equal == 0;
}

static void check_running(void)
{
    everywhere(run);
    check_equal(sum_of(backwards), 0, "stolen time never goes back");
    check_equal(sum_of(too_fast), 0, "it never grows faster than time");
    for (u32 cpu = 0; cpu < cpus; cpu++)
        note("of %u us of CPU %u, %lu ns were stolen", RUN_US, cpu, gained[cpu]);
}

int main(void)
{
    gictest_start();
    if (!smccc_has(PV_TIME_FEATURES) || smccc_call(PV_TIME_ST, 0).x0 == SMCCC_NOT_SUPPORTED) {
        check(true, "no stolen time here: nothing to do");
        finish();
    }
    check_calls();
    each("PV_TIME_ST gives the address of a structure, a multiple of 64", find_structure, 0);
    each("and the same when asked again", finds_it_again, 0);
    check(all_apart(), "each CPU has a structure of its own");
    each("its revision and attributes are 0", has_revision_0, 0);
    check_running();
    gictest_stop();
    return 0;
}
