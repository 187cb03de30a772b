/* Benchmark: a fixed number of instructions in registers and memory, shared out evenly to the CPUs of the machine (1,
 * 2, 4 or 8). The total and the sum of the results are the same on every machine. About 3.2 billion instructions. */
#include "gictest.h"
#include "mmu.h"
#include "rt.h"
#include "smp.h"

#ifndef ROUNDS
#define ROUNDS 320000000ul /* of 10 instructions, for all CPUs together */
#define SUM    0x24c00eabf44f89e8ul /* of the results, with so many rounds */
#endif
#define PIECE 25000ul /* rounds on one start value; the work is handed out in pieces, all alike in length */
#define WORDS 512ul  /* of each CPU's own page */

static u64 pages[MAX_CPUS][WORDS] __attribute__((aligned(4096)));

/* One piece: each round loads a word, mixes it in, and stores it back changed. */
static u64 piece(u64 *page, u64 seed)
{
    u64 a = seed, b = seed << 32 | 1, address, value, rounds = PIECE;

    __asm__ volatile("1:\tand %2, %4, #511\n\tldr %3, [%5, %2, lsl #3]\n\tadd %0, %0, %1\n\teor %1, %1, %0, ror #7\n\t"
                     "add %3, %0, %3, lsl #1\n\torr %1, %1, #1\n\teor %3, %3, %1\n\tstr %3, [%5, %2, lsl #3]\n\t"
                     "subs %4, %4, #1\n\tb.ne 1b"
                     : "+r"(a), "+r"(b), "=&r"(address), "=&r"(value), "+r"(rounds) : "r"(page) : "cc", "memory");
    return a ^ b;
}

/* The page starts each piece at zero, so that a result does not depend on the CPU that found it. */
static u64 one(u64 *page, u64 seed)
{
    u64 sum;

    for (u32 n = 0; n < WORDS; n++)
        page[n] = 0;
    sum = piece(page, seed);
    for (u32 n = 0; n < WORDS; n++)
        sum += page[n];
    return sum;
}

/* This CPU's share: every ``cpus``-th piece. */
static u64 share(u64 first)
{
    u64 sum = 0;

    for (u64 seed = first; seed < ROUNDS / PIECE; seed += cpus)
        sum += one(pages[first], seed);
    return sum;
}

int main(void)
{
    u64 sum;

    gictest_start();
    for (u32 cpu = 1; cpu < cpus; cpu++)
        smp_send(cpu, share, cpu);
    sum = share(0);
    for (u32 cpu = 1; cpu < cpus; cpu++)
        sum += smp_wait(cpu);
    check_equal(sum, SUM, "the sum of all pieces is that of every machine");
    gictest_stop();
    return 0;
}
