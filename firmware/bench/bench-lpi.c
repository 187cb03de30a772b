/* Benchmark: an INT command by way of the ITS's queue, acknowledge and end, IRQs masked. */
#include "gic.h"
#include "its.h"
#include "mmu.h"
#include "rt.h"

#ifndef ROUNDS
#define ROUNDS 30000u
#endif
#define LPI LPI_FIRST

int main(void)
{
    u32 taken = 0;

    mmu_on();
    gic_init();
    if (!its_present()) {
        check(true, "needs a GICv3 with an ITS: nothing to do");
        return 0;
    }
    its_init();
    its_cpu_init();
    its_mapc(0, 0);
    its_mapd(0);
    lpi_configure(LPI, PRIORITY_DEFAULT, true);
    its_mapti(0, 0, LPI, 0);
    its_inv(0, 0);
    its_sync(0);
    for (u32 n = 0; n < ROUNDS; n++) {
        u32 ack;

        its_int(0, 0);
        if (gic_highest() != LPI && !gic_wait_pending(LPI, 1000))
            break;
        ack = gic_ack();
        taken += ack == LPI;
        gic_eoi(ack);
    }
    check_equal(taken, ROUNDS, "every INT was taken as an LPI");
    return 0;
}
