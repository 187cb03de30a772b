/* Benchmark: acknowledge and end, IRQs masked. One store to GICD_ISPENDR makes 4 SPIs pending, which no virtual CPU
 * interface has too few list registers for; then come 4 pairs of IAR and EOIR. So a pair costs the time of this guest
 * by ROUNDS, less a quarter of an access to the distributor, which bench-gicd measures. */
#include "gic.h"
#include "rt.h"

#ifndef ROUNDS
#define ROUNDS 400000u /* pairs */
#endif
#define BATCH 4u
#define SPI   160u /* no device is connected to it and the next three */

static void unused(u32 intid)
{
    (void)intid;
}

int main(void)
{
    u32 taken = 0;

    gic_init();
    for (u32 n = 0; n < BATCH; n++) {
        gic_set_edge(SPI + n, true);
        gic_enable(SPI + n, unused);
    }
    for (u32 n = 0; n < ROUNDS / BATCH; n++) {
        write32(GICD_BASE + GIC_ISPENDR + SPI / 32 * 4, (1u << BATCH) - 1);
        for (u32 k = 0; k < BATCH; k++) {
            u32 ack = gic_ack();

            taken += gic_intid(ack) - SPI < BATCH;
            gic_eoi(ack);
        }
    }
    check_equal(taken, ROUNDS, "every SPI was acknowledged");
    return 0;
}
