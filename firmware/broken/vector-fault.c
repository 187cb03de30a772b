/* Broken on purpose: the vectors are not mapped, so the first exception faults for ever. */
#include "mmu.h"
#include "rt.h"

int main(void)
{
    mmu_on();
    print("about to fault with VBAR_EL1 unmapped\n");
    write_sysreg(vbar_el1, WINDOW);
    isb();
    __asm__ volatile("brk #0");
    return 0;
}
