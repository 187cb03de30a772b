/* Bugs of a driver of the ITS: one LPI, from the command INT. */
#include "driver_bugs.h"

#define GITS_CTLR    (ITS_BASE + 0x000)
#define GITS_CBASER  (ITS_BASE + 0x080)
#define GITS_CWRITER (ITS_BASE + 0x088)
#define GITS_BASER0  (ITS_BASE + 0x100)
#define GITS_BASER1  (ITS_BASE + 0x108)

#define GICR_CTLR      0x00u
#define GICR_TYPER     0x08u
#define GICR_PROPBASER 0x70u
#define GICR_PENDBASER 0x78u
#define PENDBASER_PTZ  (1ul << 62)
#define VALID          (1ul << 63)

/* RAM behind the image, zero at reset. */
#define CONFIG  0x42000000ul
#define PENDING 0x42010000ul
#define QUEUE   0x42020000ul
#define DEVICES 0x42030000ul
#define TARGETS 0x42040000ul
#define EVENTS  0x42050000ul

#define DEVICE     2u
#define EVENT      1u
#define COLLECTION 0u
#define LPI        8193u

enum { INT = 3, SYNC = 5, MAPD = 8, MAPC = 9, MAPTI = 10, INV = 12 };

static volatile u32 messages;
static u64 writer;

static void on_lpi(u32 intid)
{
    (void)intid;
    messages++;
}

static void command(u64 first, u64 second, u64 third)
{
    volatile u64 *slot = (volatile u64 *)(QUEUE + writer);

    slot[0] = first;
    slot[1] = second;
    slot[2] = third;
    slot[3] = 0;
    dsb();
    writer += 32;
    write64(GITS_CWRITER, writer);
}

static void redistributor(void)
{
    u64 base = RD_BASE(0);

    *(volatile u8 *)(CONFIG + LPI - 8192) = (u8)((bug("lpi-priority") ? 0xf8 : PRIORITY) | 2 | !bug("lpi-disabled"));
    if (bug("inv-missing"))
        *(volatile u8 *)(CONFIG + LPI - 8192) = 0;
    dsb();
    if (!bug("propbaser"))
        write64(base + GICR_PROPBASER, CONFIG | 13);
    write64(base + GICR_PENDBASER, PENDBASER_PTZ | PENDING);
    if (!bug("enable-lpis"))
        write32(base + GICR_CTLR, 1);
    dsb();
}

static void its(void)
{
    write64(GITS_BASER0, VALID | DEVICES | 2 << 8);
    write64(GITS_BASER1, VALID | TARGETS | 2 << 8);
    write64(GITS_CBASER, VALID | QUEUE);
    write64(GITS_CWRITER, 0);
    if (!bug("its-off"))
        write32(GITS_CTLR, 1);
    dsb();
}

static void map(void)
{
    u64 target = (read64(RD_BASE(0) + GICR_TYPER) >> 8 & 0xffff) << 16;

    if (!bug("mapd-missing"))
        command(MAPD | (u64)DEVICE << 32, 4, VALID | EVENTS);
    if (!bug("mapc-missing"))
        command(MAPC, 0, VALID | target | COLLECTION);
    if (!bug("mapti-missing"))
        command(MAPTI | (u64)DEVICE << 32, (u64)LPI << 32 | EVENT, COLLECTION);
    if (bug("inv-missing")) { /* enabled in memory, of which nobody tells the redistributor */
        *(volatile u8 *)(CONFIG + LPI - 8192) = PRIORITY | 3;
        dsb();
    } else {
        command(INV | (u64)DEVICE << 32, EVENT, 0);
    }
    command(SYNC, 0, target);
}

void lpi(void)
{
    distributor_init();
    interface_init();
    set_handler(LPI, on_lpi);
    redistributor();
    its();
    map();
    take_interrupts();
    for (u32 n = 1; n <= 2; n++) {
        command(INT | (u64)DEVICE << 32, bug("int-event") ? EVENT + 1 : EVENT, 0);
        wait_for(&messages, n);
    }
}
