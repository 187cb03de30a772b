/* Exceptions at EL1: which vector, and what ESR, ELR, FAR and SPSR say; stack pointers; an interrupt
 * and a synchronous exception at once. DDI 0487 D1.3 and the description of ESR_EL1. */
#include "gic.h"
#include "mmu.h"
#include "rt.h"
#include "timer.h"
#include "user.h"

/* Instructions whose address the checks know: LABEL names the one after it. */
#define MARK(label) ".global " #label "\n" #label ":\n\t"

static u64 page[512] __attribute__((aligned(4096)));
extern char at_brk[], at_udf[], at_svc[], at_el1t[], at_irq_svc[];

static void check_kind(struct fault f, u32 ec, u64 elr, const char *what)
{
    check_equal(f.count, 1, "%s: one exception", what);
    check_equal(f.vector, VECTOR_EL1H_SYNC, "%s: the synchronous vector of EL1h", what);
    check_equal(ESR_EC(f.esr), ec, "%s: the exception class", what);
    check_equal(f.elr, elr, "%s: ELR_EL1", what);
    check(f.esr & ESR_IL, "%s: a 32-bit instruction", what);
}

static __attribute__((noinline)) void check_brk(void)
{
    struct fault f;

    fault_begin();
    __asm__ volatile(MARK(at_brk) "brk #0x1234" : : : "memory");
    f = fault_end();
    check_kind(f, EC_BRK64, (u64)at_brk, "BRK");
    check_equal(ESR_ISS(f.esr), 0x1234, "BRK: the immediate");
    check_equal(f.spsr & PSTATE_MODE, PSTATE_EL1H, "BRK: SPSR_EL1 says EL1h");
}

static void check_udf(void)
{
    struct fault f;

    fault_begin();
    __asm__ volatile(MARK(at_udf) ".inst 0" : : : "memory");
    f = fault_end();
    check_kind(f, EC_UNKNOWN, (u64)at_udf, "UDF");
    check_equal(ESR_ISS(f.esr), 0, "UDF: no syndrome");
}

static void check_svc(void)
{
    struct fault f;

    fault_begin();
    __asm__ volatile(MARK(at_svc) "svc #0xabcd" : : : "memory");
    f = fault_end();
    check_kind(f, EC_SVC64, (u64)at_svc + 4, "SVC at EL1");
    check_equal(ESR_ISS(f.esr), 0xabcd, "SVC at EL1: the immediate");
}

/* Flags, masks and the general registers survive; the handler runs masked on SP_EL1. */
static u64 handler_daif, handler_spsel, handler_el;

static void look_around(struct context *ctx)
{
    handler_daif = read_sysreg(daif);
    handler_spsel = read_sysreg(spsel);
    handler_el = read_sysreg(CurrentEL);
    ctx->elr += 4;
    ctx->x[9] += 1;
}

static void check_pstate(void)
{
    u64 nzcv, x9, x10, daif;

    sync_handler = look_around;
    __asm__ volatile("msr daifclr, #15\n\tmov x9, #41\n\tmov x10, #17\n\tcmp x10, #18\n\tbrk #0\n\t"
                     "mrs %0, nzcv\n\tmrs %3, daif\n\tmov %1, x9\n\tmov %2, x10\n\tmsr daifset, #15"
                     : "=&r"(nzcv), "=&r"(x9), "=&r"(x10), "=&r"(daif) : : "x9", "x10", "cc", "memory");
    sync_handler = NULL;
    check_equal(handler_daif, PSTATE_DAIF, "exception entry masks D, A, I and F");
    check_equal(handler_spsel, 1, "and selects SP_EL1");
    check_equal(handler_el >> 2, 1, "at EL1");
    check_equal(nzcv, 0x80000000, "ERET restores the flags");
    check_equal(daif, 0, "and the masks");
    check(x9 == 42 && x10 == 17, "the handler's change of a register is seen, other registers are kept");
}

static void check_unaligned_allowed(void)
{
    u64 value;

    page[0] = 0x1122334455667788ull;
    page[1] = 0x99aabbccddeeff00ull;
    __asm__ volatile("ldr %0, [%1]" : "=r"(value) : "r"((u64)page + 1) : "memory");
    check_equal(value, 0x0011223344556677ull, "a misaligned load of Normal memory works with SCTLR_EL1.A = 0");
}

static struct fault load_fault(u64 address)
{
    fault_begin();
    read64(address);
    return fault_end();
}

static struct fault store_fault(u64 address)
{
    fault_begin();
    write64(address, 1);
    return fault_end();
}

static void check_data_abort(struct fault f, u32 fsc, u64 far, bool write, const char *what)
{
    check(f.count == 1 && ESR_EC(f.esr) == EC_DABT_SAME, "%s: a data abort from EL1", what);
    check_equal(ESR_FSC(f.esr), fsc, "%s: the fault status", what);
    check_equal(f.far, far, "%s: FAR_EL1", what);
    check_equal(!!(f.esr & ESR_WNR), write, "%s: WnR", what);
}

static void check_translation_faults(void)
{
    u64 near = WINDOW + 5 * PAGE_SIZE;

    check_data_abort(load_fault(WINDOW + 0x123450), FSC_TRANSLATION | 1, WINDOW + 0x123450, false, "no level 1 entry");
    mmu_map(WINDOW, (u64)page, PAGE_SIZE, MAP_RO);
    check_data_abort(store_fault(WINDOW + BLOCK_SIZE), FSC_TRANSLATION | 2, WINDOW + BLOCK_SIZE, true,
                     "no level 2 entry");
    check_data_abort(load_fault(near + 8), FSC_TRANSLATION | 3, near + 8, false, "no level 3 entry");
    check_data_abort(store_fault(WINDOW + 16), FSC_PERMISSION | 3, WINDOW + 16, true, "read-only page");
    mmu_map(near, (u64)page, PAGE_SIZE, MAP_RW & ~PTE_AF);
    check_data_abort(load_fault(near), FSC_ACCESS_FLAG | 3, near, false, "access flag clear");
    check_data_abort(load_fault(1ul << 39), FSC_TRANSLATION | 0, 1ul << 39, false, "an address beyond T0SZ");
    check_data_abort(load_fault(~0xffful), FSC_TRANSLATION | 0, ~0xffful, false, "TTBR1 disabled by EPD1");
    mmu_remap(near, (u64)page, MAP_RW);
    check_equal(load_fault(near).count, 0, "a repaired page does not fault");
}

static void check_instruction_aborts(void)
{
    u64 targets[3] = {WINDOW, WINDOW + BLOCK_SIZE, WINDOW + 0x40000000};
    u32 status[3] = {FSC_PERMISSION | 3, FSC_TRANSLATION | 2, FSC_TRANSLATION | 1};
    static const char *const names[3] = {"call of an execute-never page", "call of an unmapped block",
                                         "call of nowhere"};

    for (u32 n = 0; n < 3; n++) {
        struct fault f;

        fault_begin();
        ((void (*)(void))targets[n])();
        f = fault_end();
        check(f.count == 1 && ESR_EC(f.esr) == EC_IABT_SAME, "%s: an instruction abort from EL1", names[n]);
        check_equal(ESR_FSC(f.esr), status[n], "%s: the fault status", names[n]);
        check(f.elr == targets[n] && f.far == targets[n], "%s: ELR_EL1 and FAR_EL1 are the target", names[n]);
    }
}

/* No device answers there on this board. */
static void check_external_abort(void)
{
    struct fault f = load_fault(0x0b000000);

    check(f.count == 1 && ESR_EC(f.esr) == EC_DABT_SAME, "a load from a hole in the memory map aborts");
    check_equal(ESR_FSC(f.esr), FSC_EXTERNAL, "as a synchronous external abort");
}

/* EL1t: the stack is SP_EL0, the vectors are the first four, the handler's stack is SP_EL1. */
static volatile u64 irq_vector, irq_elr, irqs, irq_mode;

static void on_irq(struct context *ctx)
{
    u32 intid = (u32)read_sysreg(ICC_IAR1_EL1);

    irq_vector = ctx->vector;
    irq_elr = ctx->elr;
    irq_mode = ctx->spsr & PSTATE_MODE;
    irqs++;
    write_sysreg(ICC_EOIR1_EL1, intid);
    isb();
}

static void check_el1t(void)
{
    u64 other = (u64)(page + 512), sp_el1, sp_before, sp_after;
    struct fault f;

    write_sysreg(sp_el0, other);
    fault_begin();
    __asm__ volatile("mov %0, sp\n\tmsr spsel, #0\n\tmov %1, sp\n" MARK(at_el1t) "brk #1\n\tmov %2, sp\n\tmsr spsel, #1"
                     : "=&r"(sp_el1), "=&r"(sp_before), "=&r"(sp_after) : : "memory");
    f = fault_end();
    check_equal(f.vector, VECTOR_EL1T_SYNC, "BRK with SP_EL0 enters the EL1t vector");
    check_equal(f.spsr & PSTATE_MODE, PSTATE_EL1T, "SPSR_EL1 says EL1t");
    check_equal(f.elr, (u64)at_el1t, "ELR_EL1 is the BRK");
    check(sp_before == other && sp_after == other, "SP_EL0 is the stack before and after");
    check_equal(f.sp, sp_el1, "the handler ran on SP_EL1");
}

static void check_irq_el1t(void)
{
    gic_sgi(1, 1);
    gic_wait_pending(1, 100);
    irqs = 0;
    __asm__ volatile("msr spsel, #0\n\tmsr daifclr, #2\n\tisb\n\tnop\n\tmsr daifset, #2\n\tmsr spsel, #1"
                     : : : "memory");
    check(irqs == 1 && irq_vector == VECTOR_EL1T_IRQ, "an IRQ with SP_EL0 enters the EL1t vector");
    check_equal(irq_mode, PSTATE_EL1T, "and returns to EL1t");
    gic_sgi(1, 1);
    gic_wait_pending(1, 100);
    irq_enable();
    irq_disable();
    check(irqs == 2 && irq_vector == VECTOR_EL1H_IRQ, "an IRQ with SP_EL1 enters the EL1h vector");
}

/* Which came first: order is 1 for the IRQ, 2 for the SVC, as two hexadecimal digits. */
static volatile u32 order;

static void svc_in_order(struct context *ctx)
{
    order = order << 4 | 2;
    (void)ctx;
}

static void irq_in_order(struct context *ctx)
{
    order = order << 4 | 1;
    on_irq(ctx);
}

static void raise_masked(void)
{
    irq_disable();
    order = 0;
    gic_sgi(1, 1);
    gic_wait_pending(1, 100);
}

static void check_irq_with_svc(void)
{
    sync_handler = svc_in_order;
    irq_handler = irq_in_order;
    raise_masked();
    __asm__ volatile("msr daifclr, #2\n\tisb\n" MARK(at_irq_svc) "svc #0\n\tmsr daifset, #2" : : : "memory");
    check_equal(order, 0x12, "same EL: a pending interrupt is taken before an SVC that follows ISB");
    raise_masked();
    __asm__ volatile("svc #0" : : : "memory");
    check_equal(order, 0x2, "same EL: a masked interrupt waits through an SVC");
    irq_enable();
    irq_disable();
    check_equal(order, 0x21, "same EL: and is taken when unmasked");
    sync_handler = NULL;
}

static void check_irq_with_el0_svc(void)
{
    struct context user;

    raise_masked();
    user = user_run(user_svc, 0, 0);
    check_equal(order, 0x1, "lower EL: an interrupt pending at ERET is taken");
    check_equal(irq_vector, VECTOR_EL0_IRQ, "lower EL: at the vector for EL0");
    check_equal(irq_elr, user_address(user_svc), "lower EL: before the first instruction of EL0");
    check_equal(ESR_EC(user.esr), EC_SVC64, "lower EL: and the SVC comes after it");
    raise_masked();
    user.elr = user_address(user_udf);
    el0_run(&user);
    check(order == 0x1 && ESR_EC(user.esr) == EC_UNKNOWN, "lower EL: likewise with an undefined instruction");
    raise_masked();
    user.elr = WINDOW + 0x40000000;
    el0_run(&user);
    check(order == 0x1 && irq_elr == WINDOW + 0x40000000, "lower EL: likewise with an instruction abort");
    check_equal(ESR_EC(user.esr), EC_IABT_LOW, "lower EL: which is taken afterwards");
    irq_handler = NULL;
}

static void check_sp_banking(void)
{
    struct context user = user_run(user_stack, 1, 2);
    u64 sp;

    check_equal(user.sp_el0, USER_DATA + PAGE_SIZE, "SP_EL0 is EL0's stack pointer");
    __asm__ volatile("mov %0, sp" : "=r"(sp));
    check(sp > RAM_BASE && sp < USER_TEXT, "SP_EL1 is EL1's, whatever EL0 did");
}

int main(void)
{
    check_brk();
    check_udf();
    check_svc();
    check_pstate();
    check_external_abort();
    mmu_on();
    user_map();
    check_brk();
    check_unaligned_allowed();
    check_translation_faults();
    check_instruction_aborts();
    check_external_abort();
    check_el1t();
    gic_init();
    gic_enable(1, NULL);
    irq_handler = on_irq;
    check_irq_el1t();
    check_irq_with_svc();
    check_irq_with_el0_svc();
    check_sp_banking();
    return 0;
}
