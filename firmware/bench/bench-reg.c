/* Benchmark: a loop in registers only, MMU off. About 300 million instructions. */
#include "rt.h"

#define ROUNDS 37500000ul /* of 8 instructions */

/* A linear congruence and a rotation; the result is the same on every machine. */
static u64 mix(u64 rounds)
{
    u64 a = 1, b = 2, c = 3;

    __asm__ volatile("1:\tadd %0, %0, %1\n\teor %1, %1, %0\n\tror %2, %2, #7\n\tadd %2, %2, %0\n\t"
                     "sub %1, %1, %2\n\torr %1, %1, #1\n\tsubs %3, %3, #1\n\tb.ne 1b"
                     : "+r"(a), "+r"(b), "+r"(c), "+r"(rounds) : : "cc");
    return a ^ b ^ c;
}

int main(void)
{
    u64 first = mix(ROUNDS / 2);

    check_equal(mix(ROUNDS / 2), first, "a loop in registers gives the same result twice");
    return 0;
}
