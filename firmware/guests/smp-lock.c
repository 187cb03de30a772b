/* All CPUs on the same words: a lock, a ticket lock, counters by exclusives and by LSE. Every total must be exact. */
#include "gictest.h"
#include "mmu.h"
#include "rt.h"
#include "smp.h"
#include "timer.h"

#define TOTAL 4000u /* of each kind, shared out to the CPUs */

/* A CPU draws the next ticket and waits until it is served. */
static struct {
    u32 next, serving;
} tickets __attribute__((aligned(64)));

static struct spinlock lock;
static volatile u64 plain[2]; /* both change only under a lock, and are always equal */
static volatile u32 inside, crowded, torn, unfair;
static u32 counter __attribute__((aligned(64)));
static u64 wide[2] __attribute__((aligned(16)));

static u32 rounds(void)
{
    return TOTAL / cpus;
}

/* What only one CPU may be in at a time. */
static void critical(void)
{
    crowded += inside++ != 0;
    torn += plain[0] != plain[1];
    plain[0]++;
    plain[1]++;
    inside--;
}

static u64 by_spinlock(u64 argument)
{
    for (u32 n = 0; n < rounds(); n++) {
        spin_lock(&lock);
        critical();
        spin_unlock(&lock);
    }
    return argument;
}

static u32 draw_ticket(void)
{
    u32 mine, next, failed;

    __asm__ volatile("1:\tldaxr %w0, [%3]\n\tadd %w1, %w0, #1\n\tstxr %w2, %w1, [%3]\n\tcbnz %w2, 1b"
                     : "=&r"(mine), "=&r"(next), "=&r"(failed) : "r"(&tickets.next) : "memory");
    return mine;
}

/* The exclusive load arms the monitor, so that the store which serves this ticket ends the WFE (DDI 0487 B2.9.2). */
static void wait_served(u32 mine)
{
    u32 now;

    __asm__ volatile("sevl\n1:\twfe\n\tldaxr %w0, [%1]\n\tcmp %w0, %w2\n\tb.ne 1b"
                     : "=&r"(now) : "r"(&tickets.serving), "r"(mine) : "memory", "cc");
}

static void serve_next(u32 mine)
{
    __asm__ volatile("stlr %w0, [%1]" : : "r"(mine + 1), "r"(&tickets.serving) : "memory");
}

static u64 by_ticket(u64 argument)
{
    for (u32 n = 0; n < rounds(); n++) {
        u32 mine = draw_ticket();

        wait_served(mine);
        unfair += (u32)plain[0] != mine; /* as many were inside before as tickets were drawn before */
        critical();
        serve_next(mine);
    }
    return argument;
}

static u64 by_exclusive(u64 argument)
{
    for (u32 n = 0; n < rounds(); n++)
        atomic_add(&counter, (u32)argument + 1);
    return argument;
}

/* Both halves of 128 bits change together: LDXP/STXP, one up and one down. */
static u64 by_pair(u64 argument)
{
    for (u32 n = 0; n < rounds(); n++) {
        u64 a, b;
        u32 failed;

        __asm__ volatile("1:\tldaxp %0, %1, [%3]\n\tadd %0, %0, %4\n\tsub %1, %1, %4\n\t"
                         "stlxp %w2, %0, %1, [%3]\n\tcbnz %w2, 1b"
                         : "=&r"(a), "=&r"(b), "=&r"(failed) : "r"(wide), "r"(argument + 1) : "memory");
    }
    return argument;
}

static u64 by_ldadd(u64 argument)
{
    for (u32 n = 0; n < rounds(); n++) {
        u32 old;

        __asm__ volatile(".arch_extension lse\n\tldadd %w1, %w0, [%2]"
                         : "=r"(old) : "r"((u32)argument + 1), "r"(&counter) : "memory");
    }
    return argument;
}

static bool have_lse(void)
{
    return (read_sysreg(id_aa64isar0_el1) >> 20 & 0xf) >= 2;
}

/* ``work(cpu)`` on every CPU at once. */
static void everywhere(u64 (*work)(u64 argument))
{
    for (u32 cpu = 1; cpu < cpus; cpu++)
        smp_send(cpu, work, cpu);
    work(0);
    for (u32 cpu = 1; cpu < cpus; cpu++)
        smp_wait(cpu);
}

/* The total when each CPU adds its number plus 1 so many times. */
static u32 total_of_sums(void)
{
    return rounds() * cpus * (cpus + 1) / 2;
}

static void check_under(const char *lock_name, u64 (*work)(u64 argument))
{
    plain[0] = plain[1] = 0;
    crowded = torn = 0;
    everywhere(work);
    check_equal(plain[0], TOTAL, "%s: no addition is lost", lock_name);
    check_equal(crowded, 0, "%s: never two CPUs inside", lock_name);
    check_equal(torn, 0, "%s: the two words are never seen apart", lock_name);
}

static void check_counters(void)
{
    everywhere(by_exclusive);
    check_equal(counter, total_of_sums(), "LDXR/STXR by all CPUs loses nothing");
    wide[1] = 1ul << 40;
    everywhere(by_pair);
    check(wide[0] == total_of_sums() && wide[0] + wide[1] == 1ul << 40, "LDXP/STXP keep both halves together");
    counter = 0;
    if (have_lse())
        everywhere(by_ldadd);
    else
        note("this CPU has no LSE atomics");
    check(!have_lse() || counter == total_of_sums(), "LDADD by all CPUs loses nothing, where there is LDADD");
}

int main(void)
{
    u64 start;

    gictest_start();
    start = virtual_count();
    check_under("a lock of LDAXR/STXR", by_spinlock);
    check_equal(lock.locked, 0, "the lock is free at the end");
    check_under("a ticket lock", by_ticket);
    check_equal(unfair, 0, "tickets are served in the order in which they were drawn");
    check(tickets.next == TOTAL && tickets.serving == TOTAL, "every ticket was served");
    check_counters();
    note("%lu us in all", ns_of_ticks(virtual_count() - start) / 1000);
    gictest_stop();
    return 0;
}
