#include "mmu.h"

#include "rt.h"

#define TCR_T0SZ_39  25ul
#define TCR_WBWA0    (1ul << 8 | 1ul << 10)
#define TCR_SH0      (3ul << 12)
#define TCR_EPD1     (1ul << 23)
#define TCR_IPS_36   (1ul << 32)

#define MAIR_VALUE   (0xfful | 0x04ul << 8)
#define OUTPUT_MASK  0x0000fffffffff000ul
#define TABLES       32u

static u64 tables[TABLES][512] __attribute__((aligned(4096)));
static u32 tables_used = 1; /* table 0 is level 1 */

static u64 *new_table(void)
{
    if (tables_used == TABLES)
        die("the pool of translation tables suffices");
    return tables[tables_used++];
}

static u32 index_at(u64 va, u32 level)
{
    return va >> (39 - 9 * level) & 511;
}

u64 *mmu_entry(u64 va, u32 level)
{
    u64 *table = tables[0];

    for (u32 l = 1; l < level; l++) {
        u64 *entry = &table[index_at(va, l)];

        if (!(*entry & PTE_VALID)) {
            WRITE_ONCE(*entry, (u64)new_table() | PTE_TABLE | PTE_VALID);
            dsb();
        }
        table = (u64 *)(*entry & OUTPUT_MASK);
    }
    return &table[index_at(va, level)];
}

void mmu_map(u64 va, u64 pa, u64 size, u64 attributes)
{
    for (u64 done = 0; done < size; done += PAGE_SIZE)
        WRITE_ONCE(*mmu_entry(va + done, 3), (pa + done) | attributes | PTE_TABLE | PTE_VALID);
    dsb();
    isb();
}

void mmu_map_block(u64 va, u64 pa, u64 attributes)
{
    WRITE_ONCE(*mmu_entry(va, 2), pa | attributes | PTE_VALID);
    dsb();
    isb();
}

void mmu_unmap(u64 va, u64 size)
{
    for (u64 done = 0; done < size; done += PAGE_SIZE) {
        WRITE_ONCE(*mmu_entry(va + done, 3), 0);
        tlbi_va(va + done);
    }
}

void mmu_remap(u64 va, u64 pa, u64 attributes)
{
    mmu_unmap(va, PAGE_SIZE);
    mmu_map(va, pa, PAGE_SIZE, attributes);
}

void tlbi_va(u64 va)
{
    __asm__ volatile("dsb ishst\n\ttlbi vae1is, %0\n\tdsb ish\n\tisb" : : "r"(va >> 12) : "memory");
}

void tlbi_all(void)
{
    __asm__ volatile("dsb ishst\n\ttlbi vmalle1is\n\tdsb ish\n\tisb" : : : "memory");
}

void sync_code(u64 address, u64 size)
{
    u64 step = 4ul << (read_sysreg(ctr_el0) & 15), step_data = 4ul << (read_sysreg(ctr_el0) >> 16 & 15);

    for (u64 p = address & ~(step_data - 1); p < address + size; p += step_data)
        __asm__ volatile("dc cvau, %0" : : "r"(p) : "memory");
    __asm__ volatile("dsb ish" : : : "memory");
    for (u64 p = address & ~(step - 1); p < address + size; p += step)
        __asm__ volatile("ic ivau, %0" : : "r"(p) : "memory");
    __asm__ volatile("dsb ish\n\tisb" : : : "memory");
}

void mmu_enable(void)
{
    write_sysreg(mair_el1, MAIR_VALUE);
    write_sysreg(tcr_el1, TCR_T0SZ_39 | TCR_WBWA0 | TCR_SH0 | TCR_EPD1 | TCR_IPS_36);
    write_sysreg(ttbr0_el1, (u64)tables[0]);
    isb();
    tlbi_all();
    write_sysreg(sctlr_el1, read_sysreg(sctlr_el1) | SCTLR_M | SCTLR_C | SCTLR_I);
    isb();
}

void mmu_disable(void)
{
    write_sysreg(sctlr_el1, read_sysreg(sctlr_el1) & ~(SCTLR_M | SCTLR_C | SCTLR_I));
    isb();
    tlbi_all();
}

void mmu_on(void)
{
    tables[0][0] = MAP_DEVICE | PTE_VALID;
    tables[0][1] = RAM_BASE | MAP_RWX | PTE_VALID;
    mmu_enable();
}
