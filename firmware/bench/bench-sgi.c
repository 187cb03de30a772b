/* Benchmark: an SGI to itself, taken as an IRQ by a handler that counts: send, exception, acknowledge, end, return. */
#include "gic.h"
#include "rt.h"
#include "timer.h"

#ifndef ROUNDS
#define ROUNDS 200000u
#endif

static volatile u32 count;

static void on_sgi(u32 intid)
{
    (void)intid;
    count++;
}

int main(void)
{
    gic_init();
    gic_enable(1, on_sgi);
    irq_enable();
    for (u32 n = 1; n <= ROUNDS; n++) {
        gic_sgi_self(1);
        if (count < n && !wait_value(&count, n, 1000))
            break;
    }
    irq_disable();
    check_equal(count, ROUNDS, "every SGI was taken");
    return 0;
}
