/* Two or more CPUs at work: exclusives, a lock, and errands for another CPU. */
#ifndef SMP_H
#define SMP_H

#include "types.h"

struct spinlock {
    u32 locked;
};

/* LDAXR/STXR with WFE while it is held; the store that releases it wakes the waiters. */
void spin_lock(struct spinlock *lock);
void spin_unlock(struct spinlock *lock);

/* *value += addend by LDXR/STXR, until the store succeeds. */
void atomic_add(u32 *value, u32 addend);

/* Start ``cpu`` as a servant with the MMU as mmu_on() left it. It then runs what smp_call() hands it. */
void smp_start(u32 cpu);

/* Run ``function(argument)`` on ``cpu`` and return what it returned. */
u64 smp_call(u32 cpu, u64 (*function)(u64 argument), u64 argument);

/* The two halves of smp_call(), to work meanwhile. */
void smp_send(u32 cpu, u64 (*function)(u64 argument), u64 argument);
u64 smp_wait(u32 cpu);

/* Send ``cpu`` to CPU_OFF. */
void smp_stop(u32 cpu);

#endif
