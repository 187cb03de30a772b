/* Two CPUs under one lock: LDAXR/STXR, WFE to wait, and a count that must be exact. */
#include "mmu.h"
#include "rt.h"
#include "smp.h"

#define ROUNDS 5000u

static struct spinlock lock;
static volatile u64 plain[2]; /* both change only under the lock, and are always equal */
static volatile u32 inside, torn, crowded;

static u64 hammer(u64 step)
{
    for (u32 n = 0; n < ROUNDS; n++) {
        spin_lock(&lock);
        crowded += inside++ != 0;
        torn += plain[0] != plain[1];
        plain[0] += step;
        plain[1] += step;
        inside--;
        spin_unlock(&lock);
    }
    return step;
}

/* CPU 0 holds the lock for a while: the other must wait in WFE, and be woken by the release alone. */
static u64 take_once(u64 argument)
{
    u64 seen;

    spin_lock(&lock);
    seen = plain[0];
    spin_unlock(&lock);
    return seen + argument;
}

static void check_handover(void)
{
    u32 good = 0;

    for (u64 n = 0; n < 20; n++) {
        spin_lock(&lock);
        smp_send(1, take_once, 1000);
        plain[0] = 0;
        for (volatile u32 wait = 0; wait < 200; wait++)
            ;
        plain[0] = n;
        spin_unlock(&lock);
        good += smp_wait(1) == n + 1000;
    }
    check_equal(good, 20, "a CPU that waits in WFE sees what was written before the release");
}

int main(void)
{
    mmu_on();
    smp_start(1);
    smp_send(1, hammer, 3);
    hammer(1);
    check_equal(smp_wait(1), 3, "both CPUs finish");
    check_equal(plain[0], 4 * ROUNDS, "no addition under the lock is lost");
    check_equal(torn, 0, "the two words are never seen apart");
    check_equal(crowded, 0, "never two CPUs inside");
    check_equal(lock.locked, 0, "the lock is free at the end");
    check_handover();
    smp_stop(1);
    return 0;
}
