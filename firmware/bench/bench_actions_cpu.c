/* Actions of one CPU: a device register, a hypercall, exceptions at EL1, pages, changed code. */
#include "bench_actions.h"
#include "mmu.h"
#include "psci.h"
#include "rt.h"

#define UART_FR (UART_BASE + 0x18)
#define FR_TXFE (1u << 7)
#define PAGES   512u          /* as many as a table of level 3 has */
#define FRAMES  0x42800000ul  /* RAM that nothing else uses, for as many pages */

#define MOV_X0(imm) (0xd2800000u | (u32)(imm) << 5)
#define RET         0xd65f03c0u

static volatile u64 taken;
static u32 code[2] __attribute__((aligned(64)));

u64 read_fr(u64 count)
{
    u64 empty = 0;

    for (u64 n = 0; n < count; n++)
        empty += (read32(UART_FR) & FR_TXFE) != 0;
    return empty;
}

u64 psci_version(u64 count)
{
    u64 good = 0;

    for (u64 n = 0; n < count; n++)
        good += psci_call(PSCI_VERSION, 0, 0, 0) > 0;
    return good;
}

/* The preferred return address is the instruction after SVC, and BRK itself. */
static void count_exception(struct context *ctx)
{
    taken++;
    if (ESR_EC(ctx->esr) == EC_BRK64)
        ctx->elr += 4;
}

u64 svc_and_return(u64 count)
{
    taken = 0;
    sync_handler = count_exception;
    for (u64 n = 0; n < count; n++)
        __asm__ volatile("svc #0" : : : "memory");
    sync_handler = NULL;
    return taken;
}

u64 brk_and_return(u64 count)
{
    taken = 0;
    sync_handler = count_exception;
    for (u64 n = 0; n < count; n++)
        __asm__ volatile("brk #0" : : : "memory");
    sync_handler = NULL;
    return taken;
}

/* Map the page of the data abort; the load is executed again. */
static void map_page(struct context *ctx)
{
    u64 page = ctx->far & ~(PAGE_SIZE - 1);

    if (ESR_EC(ctx->esr) != EC_DABT_SAME || page - WINDOW >= PAGES * PAGE_SIZE)
        die("only loads from the window fault");
    mmu_map(page, FRAMES + (page - WINDOW), PAGE_SIZE, MAP_RW);
    taken++;
}

static void unmap_window(void)
{
    for (u32 n = 0; n < PAGES; n++)
        WRITE_ONCE(*mmu_entry(WINDOW + n * PAGE_SIZE, 3), 0);
    tlbi_all();
}

u64 fault_and_map(u64 count)
{
    taken = 0;
    sync_handler = map_page;
    for (u64 n = 0; n < count; n++) {
        if (n % PAGES == 0)
            unmap_window();
        read32(WINDOW + n % PAGES * PAGE_SIZE);
    }
    sync_handler = NULL;
    unmap_window();
    return taken;
}

/* One load from each page. Page n holds n. */
static u64 walk(u64 pages)
{
    u64 good = 0;

    for (u64 n = 0; n < pages; n++)
        good += read32(WINDOW + n * PAGE_SIZE) == n;
    return good;
}

u64 walk_after_tlbi(u64 count)
{
    u64 good = 0;

    mmu_map(WINDOW, FRAMES, PAGES * PAGE_SIZE, MAP_RW);
    for (u32 n = 0; n < PAGES; n++)
        write32(WINDOW + n * PAGE_SIZE, n);
    for (u64 done = 0; done < count; done += PAGES) {
        tlbi_all();
        good += walk(count - done < PAGES ? count - done : PAGES);
    }
    unmap_window();
    return good;
}

u64 patch_and_run(u64 count)
{
    u64 good = 0;

    code[1] = RET;
    for (u64 n = 0; n < count; n++) {
        write32((u64)code, MOV_X0(n & 0xffff));
        sync_code((u64)code, sizeof(code));
        good += ((u64 (*)(void))(u64)code)() == (n & 0xffff);
    }
    return good;
}
