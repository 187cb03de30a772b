#include "psci.h"

#include "rt.h"
#include "timer.h"

extern char secondary_entry[];

struct smp_boot {
    u64 stack;
    void (*function)(u64 argument);
    u64 argument;
};

static struct smp_boot boots[MAX_CPUS];
static u8 stacks[MAX_CPUS][STACK_SIZE] __attribute__((aligned(16)));

long psci_call(u64 function, u64 a, u64 b, u64 c)
{
    register u64 x0 __asm__("x0") = function;
    register u64 x1 __asm__("x1") = a;
    register u64 x2 __asm__("x2") = b;
    register u64 x3 __asm__("x3") = c;

    /* SMCCC 1.0 lets a callee change x4-x17. */
    __asm__ volatile("hvc #0"
                     : "+r"(x0), "+r"(x1), "+r"(x2), "+r"(x3)
                     :
                     : "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15", "x16", "x17",
                       "memory");
    return (s32)x0;
}

long cpu_start(u32 cpu, void (*function)(u64 argument), u64 argument)
{
    boots[cpu] = (struct smp_boot){(u64)(stacks[cpu] + STACK_SIZE), function, argument};
    /* The new CPU reads with its caches off. */
    for (u64 p = (u64)&boots[cpu] & ~63ul; p < (u64)(&boots[cpu] + 1); p += 64)
        __asm__ volatile("dc civac, %0" : : "r"(p) : "memory");
    dsb();
    return psci_call(PSCI_CPU_ON, cpu, (u64)secondary_entry, (u64)&boots[cpu]);
}

bool cpu_wait_off(u32 cpu, u32 us)
{
    u64 end = virtual_count() + ticks_of_us(us);

    while (virtual_count() < end) {
        if (psci_call(PSCI_AFFINITY_INFO, cpu, 0, 0) == AFFINITY_OFF)
            return true;
        yield();
    }
    return false;
}

void cpu_park(void)
{
    psci_call(PSCI_CPU_OFF, 0, 0, 0);
    for (;;)
        wfi();
}
