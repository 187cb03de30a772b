/* CPUs that fault in their vectors for ever: the others go on, and may repair them. */
#include "fdt.h"
#include "gic.h"
#include "psci.h"
#include "rt.h"
#include "timer.h"

/* An address that is misaligned: the first fetch is an exception, and there are no vectors at 0. */
#define NOWHERE 0x40000002ul

/* Vectors of CPU 1: zero is UNDEFINED, so each exception leads to another, until CPU 0 writes them. */
static u32 bad_vectors[512] __attribute__((aligned(2048)));
static volatile u32 here;

static void lose_oneself(u64 argument)
{
    write_sysreg(vbar_el1, argument);
    isb();
    WRITE_ONCE(here, 1);
    __asm__ volatile("brk #0");
}

static void saved(void)
{
    WRITE_ONCE(here, 2);
    cpu_park();
}

/* Every vector: a branch to saved(). */
static void repair(void)
{
    for (u32 n = 0; n < 512; n += 32) {
        bad_vectors[n] = 0x14000000 | ((u32)(((u64)saved - (u64)&bad_vectors[n]) >> 2) & 0x3ffffff);
        __asm__ volatile("dc cvau, %0\n\tdsb ish\n\tic ivau, %0\n\tdsb ish\n\tisb" : : "r"(&bad_vectors[n]) : "memory");
    }
}

int main(void)
{
    u32 cpus = fdt_cpus();

    gic_init();
    note("GICv%u, %u CPUs", gic_version, cpus);
    check_equal(cpu_start(1, lose_oneself, (u64)bad_vectors), PSCI_SUCCESS, "CPU 1 starts");
    for (u32 cpu = 2; cpu < cpus; cpu++)
        psci_call(PSCI_CPU_ON, cpu, NOWHERE, 0);
    delay_us(20000);
    check(true, "CPU 0 is alive after 20 ms");
    check_equal(here, 1, "CPU 1 faults");
    repair();
    check(cpu_wait_off(1, 100000), "CPU 1 goes off once its vectors are there");
    check_equal(here, 2, "and was in them");
    return 0;
}
