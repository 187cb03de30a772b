/* Stage-1 translation and EL0: system calls, what EL0 must not do, remapping with TLB maintenance,
 * 2 MiB blocks split and joined. */
#include "gic.h"
#include "mmu.h"
#include "rt.h"
#include "timer.h"
#include "user.h"

#define POOL_PAGES 8u

static u64 pool[POOL_PAGES][512] __attribute__((aligned(4096)));
/* Two whole 2 MiB blocks of RAM above the image, used as plain data. */
#define BLOCK_A 0x42000000ul
#define BLOCK_B 0x42200000ul

static void check_svc(void)
{
    struct context user = user_run(user_svc, 7, 8);

    check_equal(user.vector, VECTOR_EL0_SYNC, "SVC at EL0 enters the lower-EL vector");
    check_equal(user.esr, (u64)EC_SVC64 << 26 | ESR_IL | 0x1234, "ESR_EL1 holds the SVC and its immediate");
    check_equal(user.elr, user_address(user_svc) + 4, "ELR_EL1 is the instruction after it");
    check_equal(user.spsr & PSTATE_MODE, PSTATE_EL0T, "SPSR_EL1 says EL0t");
    check(user.x[0] == 7 && user.x[1] == 8, "registers reach EL0 and come back");
    user = user_run(user_svc_twice, 0, 0);
    check_equal(user.x[2], 1, "EL0 ran to its first SVC");
    el0_run(&user);
    check_equal(user.x[2], 2, "EL0 goes on after the SVC");
    check_equal(ESR_ISS(user.esr), 0xffff, "the second SVC has its own immediate");
    user = user_run(user_stack, 11, 22);
    check(user.x[2] == 11 && user.x[3] == 22, "EL0 pushes and pops on SP_EL0");
    check_equal(user.sp_el0, USER_DATA + PAGE_SIZE, "SP_EL0 is as it was");
    user = user_run(user_flags, 5, 5);
    check_equal(user.spsr >> 28, 6, "SPSR_EL1 keeps the flags of EL0");
}

struct undefined {
    const char *name;
    const char *stub;
};

static const struct undefined undefined[] = {
    {"HVC", user_hvc}, {"SMC", user_smc}, {"MRS ICC_IAR1_EL1", user_icc_iar1}, {"MSR ICC_PMR_EL1", user_icc_pmr_write},
    {"MSR ICC_SGI1R_EL1", user_icc_sgi1r}, {"MRS SCTLR_EL1", user_sctlr}, {"UDF", user_udf},
};

static void check_undefined(const struct undefined *u)
{
    struct context user = user_run(u->stub, 0, 0);

    check(ESR_EC(user.esr) == EC_UNKNOWN && user.vector == VECTOR_EL0_SYNC, "%s at EL0 is undefined", u->name);
    check_equal(user.esr, ESR_IL, "with IL set and no other syndrome");
    check_equal(user.elr, user_address(u->stub), "and ELR_EL1 at the instruction");
}

static void check_el0_abort(struct context user, u32 ec, u32 fsc, u64 far, const char *what)
{
    check_equal(ESR_EC(user.esr), ec, "%s: the exception class", what);
    check_equal(ESR_FSC(user.esr), fsc, "%s: the fault status", what);
    check_equal(user.far, far, "%s: FAR_EL1", what);
}

static void check_el0_faults(void)
{
    u64 kernel = (u64)pool[0];
    struct context user = user_run(user_load, kernel, 0);

    check_el0_abort(user, EC_DABT_LOW, FSC_PERMISSION | 1, kernel, "EL0 load from a privileged block");
    check(!(user.esr & ESR_WNR), "it is a read");
    user = user_run(user_store, kernel + 24, 0);
    check_el0_abort(user, EC_DABT_LOW, FSC_PERMISSION | 1, kernel + 24, "EL0 store to a privileged block");
    check(user.esr & ESR_WNR, "it is a write");
    user = user_run(user_store, USER_TEXT, 0);
    check_el0_abort(user, EC_DABT_LOW, FSC_PERMISSION | 3, USER_TEXT, "EL0 store to its read-only text");
    user = user_run(user_branch, USER_DATA, 0);
    check_el0_abort(user, EC_IABT_LOW, FSC_PERMISSION | 3, USER_DATA, "EL0 branch to its data");
    check_equal(user.elr, USER_DATA, "ELR_EL1 is the target of the branch");
    user = user_run(user_branch, WINDOW, 0);
    check_el0_abort(user, EC_IABT_LOW, FSC_TRANSLATION | 1, WINDOW, "EL0 branch to nowhere");
    user = user_run(user_load, USER_DATA + PAGE_SIZE, 0);
    check_el0_abort(user, EC_DABT_LOW, FSC_TRANSLATION | 3, USER_DATA + PAGE_SIZE, "EL0 load from an unmapped page");
    user = user_run(user_brk, 0, 0);
    check_equal(user.esr, (u64)EC_BRK64 << 26 | ESR_IL | 0x77, "BRK at EL0 comes with its immediate");
}

static void check_el0_data(void)
{
    struct context user = user_run(user_store, USER_DATA + 8, 0xfeedfacecafebeefull);

    check_equal(ESR_EC(user.esr), EC_SVC64, "EL0 stores to its data page");
    check_equal(user_page[1], 0xfeedfacecafebeefull, "EL1 sees it at the page's other address");
    WRITE_ONCE(user_page[2], 0x1234);
    user = user_run(user_load, USER_DATA + 16, 0);
    check_equal(user.x[1], 0x1234, "EL0 sees what EL1 stored there");
}

/* With PSTATE.PAN clear or absent EL1 reads EL0's pages, but it never executes what EL0 can write. */
static void check_el1_on_user_pages(void)
{
    struct fault fault;

    check_equal(read64(USER_DATA + 16), 0x1234, "EL1 reads an EL0 page");
    fault_begin();
    ((void (*)(void))USER_DATA)();
    fault = fault_end();
    check(fault.count == 1 && ESR_EC(fault.esr) == EC_IABT_SAME, "EL1 does not execute an EL0-writable page");
}

static volatile u32 ticks;

static void on_timer(u32 intid)
{
    (void)intid;
    WRITE_ONCE(user_page[4], 1);
    virtual_timer.set_ctl(0);
    ticks++;
}

/* A loop at EL0 that only an interrupt can end. */
static void check_interrupted(void)
{
    struct context user;

    gic_init();
    gic_enable(INTID_VTIMER, on_timer);
    WRITE_ONCE(user_page[4], 0);
    virtual_timer.set_cval(virtual_count() + ticks_of_us(100));
    virtual_timer.set_ctl(CTL_ENABLE);
    user = user_run(user_loop, 0, USER_DATA + 32);
    check_equal(ticks, 1, "an interrupt is taken from EL0");
    check(ESR_EC(user.esr) == EC_SVC64 && user.x[0] > 10, "and EL0 goes on where it was");
    user = user_run(user_daif, 0, 0);
    check(ESR_EC(user.esr) == EC_SYSREG && user.elr == user_address(user_daif),
          "EL0 cannot mask interrupts (SCTLR_EL1.UMA = 0)");
}

static void check_remap(void)
{
    u32 good = 0;

    for (u32 page = 0; page < POOL_PAGES; page++)
        pool[page][5] = 100 + page;
    mmu_map(WINDOW, (u64)pool[0], PAGE_SIZE, MAP_RW);
    check_equal(read64(WINDOW + 40), 100, "a new mapping is visible");
    for (u32 n = 0; n < 200; n++) {
        u32 page = n * 3 % POOL_PAGES;

        mmu_remap(WINDOW, (u64)pool[page], MAP_RW);
        good += read64(WINDOW + 40) == 100 + page;
    }
    check_equal(good, 200, "each of 200 remaps (break, TLBI VAE1IS, make) is seen at once");
    write64(WINDOW + 40, 7);
    check_equal(READ_ONCE(pool[199 * 3 % POOL_PAGES][5]), 7, "a store through the window lands in the last page");
    fault_begin();
    mmu_unmap(WINDOW, PAGE_SIZE);
    read64(WINDOW);
    check_equal(fault_end().count, 1, "after the unmap it faults");
}

static void check_protect(void)
{
    struct fault fault;

    mmu_map(WINDOW, (u64)pool[0], PAGE_SIZE, MAP_RW);
    write64(WINDOW, 1);
    *mmu_entry(WINDOW, 3) |= PTE_RO;
    tlbi_va(WINDOW);
    fault_begin();
    write64(WINDOW, 2);
    fault = fault_end();
    check(fault.count == 1 && ESR_FSC(fault.esr) == (FSC_PERMISSION | 3), "write protection holds after TLBI");
    check_equal(read64(WINDOW), 1, "and the page keeps its value");
    *mmu_entry(WINDOW, 3) &= ~PTE_RO;
    tlbi_va(WINDOW);
    write64(WINDOW, 3);
    check_equal(READ_ONCE(pool[0][0]), 3, "it is writable again after the protection is lifted");
    mmu_unmap(WINDOW, PAGE_SIZE);
}

/* The word that names a page of the two blocks. */
static u64 mark(u64 base, u32 page) { return base + page * PAGE_SIZE; }

static void fill(u64 base)
{
    for (u32 page = 0; page < 512; page++)
        write64(mark(base, page), mark(base, page));
}

static u32 pages_that_show(u64 va, u64 base)
{
    u32 n = 0;

    for (u32 page = 0; page < 512; page++)
        n += read64(va + page * PAGE_SIZE) == mark(base, page);
    return n;
}

/* Break a block mapping, with one TLBI by an address anywhere inside it. */
static void break_block(u64 va, u64 by)
{
    WRITE_ONCE(*mmu_entry(va, 2), 0);
    tlbi_va(by);
}

static void check_block(u64 va)
{
    u32 faults = 0;

    fill(BLOCK_A);
    fill(BLOCK_B);
    mmu_map_block(va, BLOCK_A, MAP_RW);
    check_equal(pages_that_show(va, BLOCK_A), 512, "a 2 MiB block maps all of its pages");
    break_block(va, va + 300 * PAGE_SIZE);
    mmu_map_block(va, BLOCK_B, MAP_RW);
    check_equal(pages_that_show(va, BLOCK_B), 512, "one TLBI by any address in a block removes all of it");
    break_block(va, va + BLOCK_SIZE - 8);
    fault_begin();
    for (u32 page = 0; page < 512; page++)
        read64(va + page * PAGE_SIZE);
    faults = fault_end().count;
    check_equal(faults, 512, "every page of a broken block faults");
}

/* Replace a block by 512 pages, exchange some, and put the block back. */
static void check_split(u64 va)
{
    mmu_map_block(va, BLOCK_A, MAP_RW);
    pages_that_show(va, BLOCK_A);
    break_block(va, va);
    mmu_map(va, BLOCK_A, BLOCK_SIZE, MAP_RW);
    check_equal(pages_that_show(va, BLOCK_A), 512, "a block split into pages shows the same memory");
    for (u32 page = 0; page < 512; page += 2)
        mmu_remap(va + page * PAGE_SIZE, mark(BLOCK_B, page), MAP_RW);
    check_equal(pages_that_show(va, BLOCK_B), 256, "every second page is exchanged");
    check_equal(pages_that_show(va, BLOCK_A), 256, "and the others are not");
    WRITE_ONCE(*mmu_entry(va, 2), 0);
    for (u32 page = 0; page < 512; page++)
        tlbi_va(va + page * PAGE_SIZE);
    mmu_map_block(va, BLOCK_B, MAP_RW);
    check_equal(pages_that_show(va, BLOCK_B), 512, "the pages join into a block again");
    break_block(va, va);
}

/* As an operating system with transparent huge pages: map, use, split, unmap, many times. */
static void check_huge_page_churn(u64 va)
{
    u32 good = 0;

    for (u32 n = 0; n < 50; n++) {
        u64 base = n & 1 ? BLOCK_B : BLOCK_A;
        u32 page = n * 37 % 512;

        mmu_map_block(va, base, MAP_RW);
        good += read64(va + page * PAGE_SIZE) == mark(base, page);
        break_block(va, va + (page ^ 1) * PAGE_SIZE);
        fault_begin();
        read64(va + page * PAGE_SIZE);
        good += fault_end().count == 1;
    }
    check_equal(good, 100, "50 rounds of map, use and unmap of a block never show an old page");
}

/* TLBI by ASID and by VA for all ASIDs, on a non-global page. */
static void check_asid(void)
{
    u64 ttbr = read_sysreg(ttbr0_el1);

    mmu_map(WINDOW, (u64)pool[1], PAGE_SIZE, MAP_RW | 1ul << 11);
    pool[1][0] = 11;
    pool[2][0] = 22;
    write_sysreg(ttbr0_el1, ttbr | 5ul << 48);
    isb();
    check_equal(read64(WINDOW), 11, "a non-global page is read under ASID 5");
    WRITE_ONCE(*mmu_entry(WINDOW, 3), 0);
    __asm__ volatile("dsb ishst\n\ttlbi aside1is, %0\n\tdsb ish\n\tisb" : : "r"(5ul << 48) : "memory");
    mmu_map(WINDOW, (u64)pool[2], PAGE_SIZE, MAP_RW | 1ul << 11);
    check_equal(read64(WINDOW), 22, "TLBI ASIDE1IS removes it");
    WRITE_ONCE(*mmu_entry(WINDOW, 3), 0);
    __asm__ volatile("dsb ishst\n\ttlbi vaae1is, %0\n\tdsb ish\n\tisb" : : "r"(WINDOW >> 12) : "memory");
    mmu_map(WINDOW, (u64)pool[1], PAGE_SIZE, MAP_RW | 1ul << 11);
    check_equal(read64(WINDOW), 11, "TLBI VAAE1IS does too");
    write_sysreg(ttbr0_el1, ttbr);
    isb();
    tlbi_all();
    check_equal(read64(WINDOW), 11, "and the page is there under ASID 0");
}

static void check_address_translation(void)
{
    u64 par;

    __asm__ volatile("at s1e1r, %1\n\tisb\n\tmrs %0, par_el1" : "=r"(par) : "r"(WINDOW + 8) : "memory");
    check(!(par & 1) && (par & 0xfffffffff000ul) == (u64)pool[1], "AT S1E1R gives the physical address");
    __asm__ volatile("at s1e0r, %1\n\tisb\n\tmrs %0, par_el1" : "=r"(par) : "r"(WINDOW + 8) : "memory");
    check((par & 1) && (par >> 1 & 0x3f) == (FSC_PERMISSION | 3), "AT S1E0R reports the permission fault of EL0");
}

int main(void)
{
    mmu_on();
    check(read_sysreg(sctlr_el1) & SCTLR_M, "the MMU is on");
    user_map();
    check_svc();
    for (u32 n = 0; n < ARRAY_SIZE(undefined); n++)
        check_undefined(&undefined[n]);
    check_el0_faults();
    check_el0_data();
    check_el1_on_user_pages();
    check_interrupted();
    check_remap();
    check_protect();
    check_block(WINDOW + BLOCK_SIZE);
    check_huge_page_churn(WINDOW + BLOCK_SIZE);
    check_split(WINDOW + 2 * BLOCK_SIZE);
    check_asid();
    check_address_translation();
    return 0;
}
