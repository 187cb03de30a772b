#include "its.h"

#include "fdt.h"
#include "gic.h"
#include "rt.h"
#include "timer.h"

#define GITS_CTLR    (ITS_BASE + 0x000)
#define GITS_TYPER   (ITS_BASE + 0x008)
#define GITS_CBASER  (ITS_BASE + 0x080)
#define GITS_CWRITER (ITS_BASE + 0x088)
#define GITS_CREADR  (ITS_BASE + 0x090)
#define GITS_BASER   (ITS_BASE + 0x100)
#define GITS_TRANSLATER (ITS_BASE + 0x10040)
#define TYPER_PTA    (1ul << 19)

#define GICR_CTLR      0x000u
#define GICR_TYPER     0x008u
#define GICR_PROPBASER 0x070u
#define GICR_PENDBASER 0x078u
#define CTLR_ENABLE_LPIS 1u
#define PENDBASER_PTZ  (1ul << 62)

/* Attributes: valid, inner cacheable (read- and write-allocate, write-back), inner shareable. */
#define VALID          (1ul << 63)
#define CACHED         (7ul << 59 | 1ul << 10)
#define CACHED_LPI     (7ul << 7 | 1ul << 10)

/* RAM behind the image, which ends before 0x42000000 (tests/tools/test_build_firmware.py). */
#define TABLES         0x42000000ul
#define CONFIG         (TABLES + 0x00000) /* a byte per LPI */
#define QUEUE          (TABLES + 0x10000)
#define DEVICES        (TABLES + 0x20000) /* BASER tables: 64 KiB each */
#define COLLECTIONS    (TABLES + 0x30000)
#define EVENTS         (TABLES + 0x40000) /* ITTs: 64 KiB each, the wide one last */
#define WIDE_SIZE      0x40000ul          /* 2^14 entries of at most 16 bytes */
#define PENDING        (TABLES + 0x100000) /* 64 KiB for each CPU, of which 2 KiB are used */
#define PENDING_SIZE   ((LPI_FIRST + LPI_COUNT) / 8)
#define SLOT           0x10000ul

#define QUEUE_SIZE     0x1000ul
#define COMMAND_SIZE   32u

enum {
    MOVI = 1, INT = 3, CLEAR = 4, SYNC = 5, MAPD = 8, MAPC = 9, MAPTI = 10, MAPI = 11, INV = 12, INVALL = 13,
    MOVALL = 14, DISCARD = 15,
};

static u64 targets[MAX_CPUS]; /* RDbase as commands have it, in bits 50 to 16 */
static u64 writer;

/* The GIC may read memory past the caches (where it answers that shareability is none). */
static void clean(u64 address, u64 size)
{
    for (u64 p = address & ~15ul; p < address + size; p += 16)
        __asm__ volatile("dc cvac, %0" : : "r"(p) : "memory");
    dsb();
}

static void zero(u64 address, u64 size)
{
    for (u64 p = address; p < address + size; p += 8)
        *(volatile u64 *)p = 0;
    for (u64 p = address; p < address + size; p += 64)
        __asm__ volatile("dc cvac, %0" : : "r"(p) : "memory");
    dsb();
}

bool its_present(void)
{
    return gic_version == 3 && fdt_count("compatible", "arm,gic-v3-its");
}

/* A table of 64 KiB in pages as large as this BASER has them: the size that it does not have reads as another. */
static void set_table(u64 reg, u64 address)
{
    for (u32 n = 3; n-- > 0;) {
        u64 size = n, pages = 16 >> 2 * n;

        write64(reg, VALID | CACHED | address | size << 8 | (pages - 1));
        if ((read64(reg) >> 8 & 3) == size)
            return;
    }
    die("GITS_BASER has a page size");
}

static void set_tables(void)
{
    for (u64 reg = GITS_BASER; reg < GITS_BASER + 8 * 8; reg += 8) {
        u64 type = read64(reg) >> 56 & 7;

        if (type == 1)
            set_table(reg, DEVICES);
        else if (type == 4)
            set_table(reg, COLLECTIONS);
    }
}

void its_init(void)
{
    zero(TABLES, EVENTS + ITS_WIDE_DEVICE * SLOT + WIDE_SIZE - TABLES);
    write32(GITS_CTLR, 0);
    set_tables();
    write64(GITS_CBASER, VALID | CACHED | QUEUE | (QUEUE_SIZE / 0x1000 - 1));
    write64(GITS_CWRITER, 0);
    writer = 0;
    write32(GITS_CTLR, 1);
    dsb();
}

void its_cpu_init(void)
{
    u64 base = gic_redistributor(), pending = PENDING + SLOT * cpu_id();

    zero(pending, PENDING_SIZE);
    write64(base + GICR_PROPBASER, CONFIG | CACHED_LPI | 13);
    write64(base + GICR_PENDBASER, PENDBASER_PTZ | CACHED_LPI | pending);
    dsb();
    write32(base + GICR_CTLR, read32(base + GICR_CTLR) | CTLR_ENABLE_LPIS);
    dsb();
    targets[cpu_id()] = read64(GITS_TYPER) & TYPER_PTA ? base : (read64(base + GICR_TYPER) >> 8 & 0xffff) << 16;
}

void lpi_configure(u32 lpi, u8 priority, bool enable)
{
    u64 address = CONFIG + lpi - LPI_FIRST;

    *(volatile u8 *)address = (u8)((priority & 0xfc) | 2 | enable); /* bit 1 is RES1 */
    clean(address, 1);
}

static void wait_for_queue(void)
{
    u64 start = virtual_count(), ticks = ticks_of_us(100000);

    while ((read64(GITS_CREADR) & 0xfffe0) != writer)
        if (virtual_count() - start > ticks)
            die("the ITS takes its commands");
}

static void command(u64 first, u64 second, u64 third, u64 fourth)
{
    volatile u64 *slot = (volatile u64 *)(QUEUE + writer);

    slot[0] = first;
    slot[1] = second;
    slot[2] = third;
    slot[3] = fourth;
    clean((u64)slot, COMMAND_SIZE);
    writer = (writer + COMMAND_SIZE) % QUEUE_SIZE;
    write64(GITS_CWRITER, writer);
    wait_for_queue();
}

static void event_command(u64 code, u32 device, u64 second, u64 third)
{
    command(code | (u64)device << 32, second, third, 0);
}

/* The entries must be zero when the table is handed over. */
void its_mapd(u32 device)
{
    bool wide = device == ITS_WIDE_DEVICE;
    u64 table = EVENTS + SLOT * device;

    zero(table, wide ? WIDE_SIZE : 16ul << ITS_EVENT_BITS);
    event_command(MAPD, device, (wide ? ITS_WIDE_BITS : ITS_EVENT_BITS) - 1, VALID | table);
}

void its_unmapd(u32 device) { event_command(MAPD, device, 0, 0); }
void its_mapc(u32 collection, u32 cpu) { command(MAPC, 0, VALID | targets[cpu] | collection, 0); }

void its_mapti(u32 device, u32 event, u32 lpi, u32 collection)
{
    event_command(MAPTI, device, (u64)lpi << 32 | event, collection);
}

void its_mapi(u32 device, u32 event, u32 collection) { event_command(MAPI, device, event, collection); }
void its_movi(u32 device, u32 event, u32 collection) { event_command(MOVI, device, event, collection); }
void its_movall(u32 from_cpu, u32 to_cpu) { command(MOVALL, 0, targets[from_cpu], targets[to_cpu]); }
void its_int(u32 device, u32 event) { event_command(INT, device, event, 0); }
void its_clear(u32 device, u32 event) { event_command(CLEAR, device, event, 0); }
void its_discard(u32 device, u32 event) { event_command(DISCARD, device, event, 0); }
void its_inv(u32 device, u32 event) { event_command(INV, device, event, 0); }
void its_invall(u32 collection) { command(INVALL, 0, collection, 0); }
void its_sync(u32 cpu) { command(SYNC, 0, targets[cpu], 0); }

void its_sync_all(u32 count)
{
    for (u32 cpu = 0; cpu < count; cpu++)
        its_sync(cpu);
}

void its_store_event(u32 event)
{
    dsb();
    write32(GITS_TRANSLATER, event);
    dsb();
}
