/* The smallest guest: where are we, what was handed over, does the counter run. */
#include "rt.h"
#include "timer.h"

#define FDT_MAGIC 0xd00dfeedu

/* A loader that starts a plain ELF need not set x0; the board then keeps the tree at the base of RAM. */
static u64 device_tree(void)
{
    return boot_x0 ? boot_x0 : RAM_BASE;
}

static void check_entry_state(void)
{
    check_equal(read_sysreg(CurrentEL) >> 2 & 3, 1, "the guest runs at EL1");
    check(!(read_sysreg(sctlr_el1) & SCTLR_M), "the MMU is off at entry");
    check_equal(read_sysreg(mpidr_el1) & 0xff00fffffful, 0, "the boot CPU has affinity 0.0.0.0");
    check_equal(read_sysreg(daif) & PSTATE_DAIF, PSTATE_DAIF, "interrupts are masked");
}

static void check_counter(void)
{
    u64 before = virtual_count();

    check(frequency() != 0, "CNTFRQ_EL0 gives a frequency");
    delay_us(10);
    check(virtual_count() > before, "the virtual counter runs");
}

int main(void)
{
    print("Hello from EL1.\n");
    note("CNTFRQ_EL0 is %lu Hz, MIDR_EL1 is %08lx", frequency(), read_sysreg(midr_el1));
    check_entry_state();
    check_equal(__builtin_bswap32(read32(device_tree())), FDT_MAGIC, "a flattened device tree was handed over");
    check_counter();
    return 0;
}
