/* Stage-1 translation for EL1 and EL0: 4 KiB granule, 39-bit addresses in TTBR0 (DDI 0487 D8). */
#ifndef MMU_H
#define MMU_H

#include "cpu.h"

#define PAGE_SIZE  0x1000ul
#define BLOCK_SIZE 0x200000ul

/* Descriptor bits. */
#define PTE_VALID  (1ul << 0)
#define PTE_TABLE  (1ul << 1)
#define PTE_DEVICE (1ul << 2) /* AttrIndx 1: Device-nGnRE; AttrIndx 0: Normal write-back */
#define PTE_EL0    (1ul << 6)
#define PTE_RO     (1ul << 7)
#define PTE_SHARED (3ul << 8)
#define PTE_AF     (1ul << 10)
#define PTE_PXN    (1ul << 53)
#define PTE_UXN    (1ul << 54)
#define PTE_XN     (PTE_PXN | PTE_UXN)

/* What callers map. A page that EL0 can write is never executable at EL1. */
#define MAP_RW        (PTE_AF | PTE_SHARED | PTE_XN)
#define MAP_RO        (PTE_AF | PTE_SHARED | PTE_XN | PTE_RO)
#define MAP_RX        (PTE_AF | PTE_SHARED | PTE_UXN | PTE_RO)
#define MAP_RWX       (PTE_AF | PTE_SHARED | PTE_UXN)
#define MAP_USER_RW   (MAP_RW | PTE_EL0)
#define MAP_USER_RO   (MAP_RO | PTE_EL0)
#define MAP_USER_RX   (PTE_AF | PTE_SHARED | PTE_PXN | PTE_RO | PTE_EL0)
#define MAP_DEVICE    (PTE_AF | PTE_XN | PTE_DEVICE)

/* Addresses free for experiments: nothing is mapped there at first. */
#define WINDOW 0x1000000000ul

/* Identity map (devices below 1 GiB, RAM above, RWX) and on. Other CPUs call mmu_enable(). */
void mmu_on(void);
void mmu_enable(void);
void mmu_disable(void);

/* The level 3 (page) or level 2 (2 MiB) descriptor of ``va``; tables above it are made as needed. */
u64 *mmu_entry(u64 va, u32 level);

/* Map or unmap whole pages. Neither invalidates a TLB except where mmu_unmap() says so. */
void mmu_map(u64 va, u64 pa, u64 size, u64 attributes);
void mmu_map_block(u64 va, u64 pa, u64 attributes);
void mmu_unmap(u64 va, u64 size); /* with TLBI of each page, broadcast */

/* Replace what ``va`` maps, break before make. */
void mmu_remap(u64 va, u64 pa, u64 attributes);

/* TLBI VAE1IS / VMALLE1IS with its barriers. */
void tlbi_va(u64 va);
void tlbi_all(void);

/* Make stores to [address, address + size) visible to instruction fetch (DDI 0487 B2.7.4.2). */
void sync_code(u64 address, u64 size);

#endif
