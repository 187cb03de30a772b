/* Benchmark: reads of a distributor register, GICD_ISENABLER1. */
#include "gic.h"
#include "rt.h"

#ifndef ROUNDS
#define ROUNDS 500000u
#endif

static void unused(u32 intid)
{
    (void)intid;
}

int main(void)
{
    u32 equal = 0, want;

    gic_init();
    gic_enable(INTID_UART, unused);
    want = read32(GICD_BASE + GIC_ISENABLER + 4);
    for (u32 n = 0; n < ROUNDS; n++)
        equal += read32(GICD_BASE + GIC_ISENABLER + 4) == want;
    check(want >> (INTID_UART - 32) & 1, "the register shows what is enabled");
    check_equal(equal, ROUNDS, "and each time the same");
    return 0;
}
