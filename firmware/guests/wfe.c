/* The event register (DDI 0487 D1.6.1): SEVL, SEV, exception return, and the store to a marked granule; and a lock as
 * xv6 has it, sevl; wfe; ldaxr. Nothing but the event itself ends the waits: no interrupt, no event stream. */
#include "gictest.h"
#include "rt.h"
#include "smp.h"
#include "timer.h"

#define ROUNDS 1000u

static struct {
    u32 locked;
} lock __attribute__((aligned(64)));
static struct {
    u32 flag, other;
} word __attribute__((aligned(64)));
static volatile u64 total __attribute__((aligned(64)));
static u32 arrived __attribute__((aligned(64)));

static void sevl(void) { __asm__ volatile("sevl" : : : "memory"); }

/* An exception return to the next instruction. */
static void exception_return(void)
{
    u64 there;

    __asm__ volatile("adr %0, 1f\n\tmsr elr_el1, %0\n\tmrs %0, daif\n\tadd %0, %0, #5\n\tmsr spsr_el1, %0\n\teret\n1:"
                     : "=&r"(there) : : "memory");
}

static void acquire(void)
{
    u32 seen;

    __asm__ volatile("sevl\n1:\twfe\n2:\tldaxr %w0, [%1]\n\tcbnz %w0, 1b\n\tstxr %w0, %w2, [%1]\n\tcbnz %w0, 2b"
                     : "=&r"(seen) : "r"(&lock.locked), "r"(1) : "memory");
}

static void release(void) { __asm__ volatile("stlr wzr, [%0]" : : "r"(&lock.locked) : "memory"); }

static u64 count_under_lock(u64 argument)
{
    for (u32 n = 0; n < ROUNDS; n++) {
        acquire();
        total = total + argument;
        release();
    }
    return argument;
}

/* Wait for the flag by SEV alone. */
static u64 wait_for_sev(u64 argument)
{
    atomic_add(&arrived, 1);
    while (!READ_ONCE(word.flag))
        wfe();
    return argument;
}

/* Wait for the flag by the monitor alone. */
static u64 wait_for_store(u64 argument)
{
    u32 seen;

    atomic_add(&arrived, 1);
    __asm__ volatile("sevl\n1:\twfe\n\tldaxr %w0, [%1]\n\tcbz %w0, 1b\n\tclrex"
                     : "=&r"(seen) : "r"(&word.flag) : "memory");
    return argument;
}

static void check_alone(void)
{
    u64 rounds;

    for (rounds = 0; rounds < ROUNDS; rounds++) {
        sevl();
        wfe();
    }
    check(true, "WFE behind SEVL completes");
    for (rounds = 0; rounds < ROUNDS; rounds++) {
        exception_return();
        wfe();
    }
    check(true, "WFE behind an exception return completes");
    sev();
    wfe();
    check(true, "WFE behind a SEV of one's own completes");
}

static void check_locks(void)
{
    u64 expected = 0, wrong = 0;

    for (u32 cpu = 1; cpu < cpus; cpu++)
        smp_send(cpu, count_under_lock, cpu + 1);
    count_under_lock(1);
    for (u32 cpu = 1; cpu < cpus; cpu++)
        wrong += smp_wait(cpu) != cpu + 1;
    for (u32 cpu = 0; cpu < cpus; cpu++)
        expected += (u64)ROUNDS * (cpu + 1);
    check_equal(wrong, 0, "every CPU gets through its rounds");
    check_equal(total, expected, "no addition under the lock is lost");
}

static void check_waits(const char *what, u64 (*wait)(u64), bool event)
{
    u64 wrong = 0;

    for (u32 round = 0; round < 20; round++) {
        WRITE_ONCE(word.flag, 0);
        WRITE_ONCE(arrived, 0);
        for (u32 cpu = 1; cpu < cpus; cpu++)
            smp_send(cpu, wait, round);
        while (READ_ONCE(arrived) != cpus - 1)
            yield();
        delay_us(20);
        WRITE_ONCE(word.flag, 1);
        if (event)
            sev();
        for (u32 cpu = 1; cpu < cpus; cpu++)
            wrong += smp_wait(cpu) != round;
    }
    check_equal(wrong, 0, "%s wakes every CPU", what);
}

int main(void)
{
    gictest_start();
    check_alone();
    check_locks();
    check_waits("SEV", wait_for_sev, true);
    check_waits("a store to what they have marked", wait_for_store, false);
    gictest_stop();
    return 0;
}
