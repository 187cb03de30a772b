/* The actions of bench-actions. Each repeats one action ``count`` times and returns how many were right. */
#ifndef BENCH_ACTIONS_H
#define BENCH_ACTIONS_H

#include "types.h"

/* The number of CPUs that may take part: all that have Aff1 = 0 on a GICv3. */
#define MOST_CPUS 16u

/* The greatest number of SPIs of a GIC (INTIDs 32 to 1019). */
#define MOST_SPIS 988u

/* On one CPU: instructions that trap or fault, and pages (bench_actions_cpu.c). */
u64 read_fr(u64 count);
u64 psci_version(u64 count);
u64 svc_and_return(u64 count);
u64 brk_and_return(u64 count);
u64 fault_and_map(u64 count);
u64 walk_after_tlbi(u64 count);
u64 patch_and_run(u64 count);

/* On one CPU: the virtual timer and pending interrupts (bench_actions_irq.c). */
u64 poll_1ms(u64 count);
u64 one_shot_asleep(u64 count);
u64 one_shot_polled(u64 count);
u64 storm(u64 count);
u64 acknowledge(u64 count);

/* The number of SPIs that acknowledge() makes pending at once; 1 to MOST_SPIS. */
extern u32 pending_at_once;

/* On all CPUs (bench_actions_smp.c). The last one leaves the other CPUs asleep for ever. */
u64 ipi_and_spin(u64 count);
u64 hand_over(u64 count);
u64 share_out(u64 count);
u64 one_shot_among_sleepers(u64 count);

#endif
