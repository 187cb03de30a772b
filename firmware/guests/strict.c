/* Two architectural checks that an engine for ordinary code may leave out: alignment faults under
 * SCTLR_EL1.A (DDI 0487 B2.5.2) and the illegal execution state (D1.4.1). */
#include "mmu.h"
#include "rt.h"

/* Instructions whose address the checks know. */
#define MARK(label) ".global " #label "\n" #label ":\n\t"

static u64 page[512] __attribute__((aligned(4096)));
extern char at_load[], at_store[], at_illegal[];

static void check_kind(struct fault f, u32 ec, u64 elr, const char *what)
{
    check_equal(f.count, 1, "%s: one exception", what);
    check_equal(f.vector, VECTOR_EL1H_SYNC, "%s: the synchronous vector of EL1h", what);
    check_equal(ESR_EC(f.esr), ec, "%s: the exception class", what);
    check_equal(f.elr, elr, "%s: ELR_EL1", what);
    check(f.esr & ESR_IL, "%s: a 32-bit instruction", what);
}

static __attribute__((noinline)) void check_alignment(void)
{
    u64 address = (u64)page + 1;
    struct fault f;

    write_sysreg(sctlr_el1, read_sysreg(sctlr_el1) | SCTLR_A);
    isb();
    fault_begin();
    __asm__ volatile(MARK(at_load) "ldr x9, [%0]" : : "r"(address) : "x9", "memory");
    f = fault_end();
    check_kind(f, EC_DABT_SAME, (u64)at_load, "misaligned load");
    check_equal(ESR_FSC(f.esr), FSC_ALIGNMENT, "misaligned load: an alignment fault");
    check_equal(f.far, address, "misaligned load: FAR_EL1");
    fault_begin();
    __asm__ volatile(MARK(at_store) "str w9, [%0]" : : "r"(address) : "memory");
    f = fault_end();
    check_kind(f, EC_DABT_SAME, (u64)at_store, "misaligned store");
    check(ESR_FSC(f.esr) == FSC_ALIGNMENT && (f.esr & ESR_WNR), "misaligned store: an alignment fault on a write");
    write_sysreg(sctlr_el1, read_sysreg(sctlr_el1) & ~SCTLR_A);
    isb();
    page[0] = 0x1122334455667788ull;
    check_equal(*(volatile u32 __attribute__((aligned(1))) *)(u64)(address - 1) >> 24, 0x55, "an aligned load works");
}

static void check_illegal_return(void)
{
    struct fault f;
    u64 spsr = 0x3c9; /* EL2h, which EL1 cannot return to */

    fault_begin();
    __asm__ volatile("adr x9, 1f\n\tmsr elr_el1, x9\n\tmsr spsr_el1, %0\n\teret\n1:\n" MARK(at_illegal) "nop"
                     : : "r"(spsr) : "x9", "memory");
    f = fault_end();
    check_equal(ESR_EC(f.esr), EC_ILLEGAL, "ERET to a higher level sets the illegal state");
    check_equal(f.elr, (u64)at_illegal, "taken at the target of the return");
    check(f.spsr & PSTATE_IL, "and SPSR_EL1.IL is set");
}

int main(void)
{
    check_alignment();
    mmu_on();
    check_alignment();
    check_illegal_return();
    return 0;
}
