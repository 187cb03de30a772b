/* Benchmark: loads and stores, MMU and caches on, data in 4 KiB pages. About 200 million instructions. */
#include "mmu.h"
#include "rt.h"

#define PAGES  64u
#define WORDS  (PAGES * 512u)
#define ROUNDS 870u /* of WORDS * 7 instructions */

static u64 data[WORDS] __attribute__((aligned(4096)));

/* One pass over the buffer: load, change, store. */
static u64 pass(u64 va, u64 words)
{
    u64 sum = 0, value;

    __asm__ volatile("1:\tldr %1, [%2]\n\tadd %1, %1, #3\n\tadd %0, %0, %1\n\teor %0, %0, %1, lsr #5\n\t"
                     "str %1, [%2], #8\n\tsubs %3, %3, #1\n\tb.ne 1b"
                     : "+r"(sum), "=&r"(value), "+r"(va), "+r"(words) : : "cc", "memory");
    return sum;
}

static u32 words_equal(u64 want)
{
    u32 n = 0;

    for (u32 i = 0; i < WORDS; i++)
        n += data[i] == want;
    return n;
}

int main(void)
{
    u64 sum = 0;

    mmu_on();
    mmu_map(WINDOW, (u64)data, sizeof(data), MAP_RW);
    for (u32 n = 0; n < ROUNDS; n++)
        sum ^= pass(WINDOW, WORDS);
    check_equal(words_equal(3 * ROUNDS), WORDS, "every word was changed in every pass");
    note("checksum %lx", sum);
    return 0;
}
