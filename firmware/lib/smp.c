#include "smp.h"

#include "mmu.h"
#include "psci.h"
#include "rt.h"

/* Requests are numbered; a CPU is idle when it has answered as many as were made. */
static struct errand {
    u32 requested, answered;
    u64 (*function)(u64 argument);
    u64 argument, result;
} errands[MAX_CPUS];

void spin_lock(struct spinlock *lock)
{
    u32 old, failed;

    __asm__ volatile("sevl\n"
                     "1:\twfe\n"
                     "2:\tldaxr %w0, [%2]\n\tcbnz %w0, 1b\n\tstxr %w1, %w3, [%2]\n\tcbnz %w1, 2b"
                     : "=&r"(old), "=&r"(failed) : "r"(&lock->locked), "r"(1) : "memory");
}

/* No SEV: clearing the lock ends the waiters' exclusive reservation, which is an event (DDI 0487 D1.6.1). */
void spin_unlock(struct spinlock *lock)
{
    __asm__ volatile("stlr wzr, [%0]" : : "r"(&lock->locked) : "memory");
}

void atomic_add(u32 *value, u32 addend)
{
    u32 sum, failed;

    __asm__ volatile("1:\tldxr %w0, [%2]\n\tadd %w0, %w0, %w3\n\tstxr %w1, %w0, [%2]\n\tcbnz %w1, 1b"
                     : "=&r"(sum), "=&r"(failed) : "r"(value), "r"(addend) : "memory");
}

static void serve(u64 argument)
{
    struct errand *mine = &errands[argument];

    mmu_enable();
    for (;;) {
        while (READ_ONCE(mine->requested) == mine->answered)
            wfe();
        dsb();
        if (!mine->function)
            break;
        mine->result = mine->function(mine->argument);
        dsb();
        WRITE_ONCE(mine->answered, mine->answered + 1);
        sev();
    }
}

void smp_start(u32 cpu)
{
    if (cpu_start(cpu, serve, cpu) != PSCI_SUCCESS)
        die("CPU %u starts", cpu);
}

void smp_send(u32 cpu, u64 (*function)(u64 argument), u64 argument)
{
    struct errand *errand = &errands[cpu];

    errand->function = function;
    errand->argument = argument;
    dsb();
    WRITE_ONCE(errand->requested, errand->requested + 1);
    sev();
}

u64 smp_wait(u32 cpu)
{
    struct errand *errand = &errands[cpu];

    while (READ_ONCE(errand->answered) != errand->requested)
        wfe();
    dsb();
    return errand->result;
}

u64 smp_call(u32 cpu, u64 (*function)(u64 argument), u64 argument)
{
    smp_send(cpu, function, argument);
    return smp_wait(cpu);
}

void smp_stop(u32 cpu)
{
    smp_send(cpu, NULL, 0);
    if (!cpu_wait_off(cpu, 1000000))
        die("CPU %u goes off", cpu);
}
