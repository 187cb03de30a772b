/* What the GIC guests share: all CPUs at work, and a record of what each took.
 *
 * CPUs other than 0 wait for errands with their IRQs as the last errand left them, masked at first. A check
 * on every CPU is a function that returns whether it holds where it runs, see each(). Only CPU 0 prints. */
#ifndef GICTEST_H
#define GICTEST_H

#include "board.h"
#include "gic.h"

#define SPI_FREE   160u /* no device is connected to SPIs from here, */
#define SPI_COUNT  128u /* and so many there are */
#define SGI_COUNT  16u
#define RECORD     64u
#define PATIENCE_US 100000u

/* In order; what does not fit is counted only. */
struct taken {
    u32 count;
    u32 intid[RECORD];
    u32 priority[RECORD]; /* the running priority while it was handled */
};

extern volatile struct taken taken[MAX_CPUS];

/* CPUs at work: as many as the device tree has. */
extern u32 cpus;

/* MMU, GIC and every CPU with its interface on; all SGIs enabled with take() as handler. */
void gictest_start(void);
void gictest_stop(void);

/* The handler that records. */
void take(u32 intid);

/* Empty the records of all CPUs. */
void forget(void);

/* Whether ``cpu`` took ``intid``, so many times, and nothing else. */
bool took_only(u32 cpu, u32 intid, u32 times);
u32 times_taken(u32 cpu, u32 intid);
bool took_nothing(u32 cpu);

/* Interrupts taken by all CPUs. */
u32 total_taken(void);

/* Wait until ``cpu`` has, or all together have, taken ``count``, and a little longer for what should not come.
 * The waiting CPU's IRQs are open meanwhile. */
bool wait_taken(u32 cpu, u32 count);
bool wait_total(u32 count);

/* Let in what is pending here, wait a little, close. */
void window(void);

/* IRQs of every CPU open or masked. */
void open_all(void);
void close_all(void);

/* Run ``function(argument)`` on ``cpu``, which may be CPU 0 itself; only CPU 0 may ask. */
u64 on_cpu(u32 cpu, u64 (*function)(u64 argument), u64 argument);

/* The CPU after this one, which is this one where there is no other. */
u32 next_cpu(u32 cpu);

/* The number of CPUs on which ``holds`` is true, tried one after the other; records are emptied before each. */
u32 count_cpus(u64 (*holds)(u64 argument), u64 argument);

/* A check that must hold on every CPU. */
void each(const char *sentence, u64 (*holds)(u64 argument), u64 argument);

/* The same for a number of CPUs found otherwise, where QEMU's GICv2 falls short of IHI 0048: on a GICv2 not a check
 * but a note, "SENTENCE: 2 of 2", which the tests of armvirt read. */
void judge_on_v3(u32 good, const char *sentence);

/* Where there is nothing to judge: ends the guest with one check that says so. */
void nothing_to_do(const char *needs) __attribute__((noreturn));

/* An SPI for experiments: edge-triggered or level-sensitive, not pending, not active, enabled, to ``cpu``. */
void spi_setup(u32 intid, bool edge, u32 cpu);

#endif
