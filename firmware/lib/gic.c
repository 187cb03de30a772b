#include "gic.h"

#include "fdt.h"
#include "gic_driver.h"
#include "rt.h"
#include "timer.h"

#define MAX_INTID 288u

u32 gic_version;
volatile u32 gic_spurious;

static const struct gic_driver *driver;
static irq_function handlers[MAX_INTID], lpi_handler;

/* Without a tree: ID_AA64PFR0_EL1.GIC tells whether there are system registers. */
static u32 find_version(void)
{
    if (fdt_count("compatible", "arm,gic-v3"))
        return 3;
    if (fdt_count("compatible", "arm,cortex-a15-gic") || fdt_count("compatible", "arm,gic-400"))
        return 2;
    return read_sysreg(id_aa64pfr0_el1) >> 24 & 15 ? 3 : 2;
}

void gic_init(void)
{
    gic_version = find_version();
    driver = gic_version == 3 ? &gic_v3 : &gic_v2;
    gic_forward(true);
    gic_cpu_init();
}

void gic_cpu_init(void) { driver->cpu_init(); }
u64 gic_frame(u32 intid) { return driver->frame(intid); }

static u64 bit_register(u32 intid, u32 offset)
{
    return gic_frame(intid) + offset + intid / 32 * 4;
}

void gic_bit_write(u32 intid, u32 offset)
{
    write32(bit_register(intid, offset), 1u << intid % 32);
    driver->wait(intid);
}

bool gic_bit_read(u32 intid, u32 offset)
{
    return read32(bit_register(intid, offset)) >> intid % 32 & 1;
}

void gic_set_priority(u32 intid, u8 priority)
{
    write8(gic_frame(intid) + GIC_IPRIORITYR + intid, priority);
}

u8 gic_priority(u32 intid)
{
    return (u8)(read32(gic_frame(intid) + GIC_IPRIORITYR + (intid & ~3u)) >> intid % 4 * 8);
}

void gic_set_group(u32 intid, u32 group)
{
    u64 reg = bit_register(intid, GIC_IGROUPR);
    u32 bit = 1u << intid % 32;

    write32(reg, group ? read32(reg) | bit : read32(reg) & ~bit);
}

void gic_set_edge(u32 intid, bool edge)
{
    u64 reg = gic_frame(intid) + GIC_ICFGR + intid / 16 * 4;
    u32 bit = 2u << intid % 16 * 2;

    write32(reg, edge ? read32(reg) | bit : read32(reg) & ~bit);
}

void gic_attach(u32 intid, irq_function handler)
{
    handlers[intid] = handler;
}

void gic_attach_lpis(irq_function handler)
{
    lpi_handler = handler;
}

void gic_enable(u32 intid, irq_function handler)
{
    gic_attach(intid, handler);
    gic_set_group(intid, driver->group);
    gic_set_priority(intid, PRIORITY_DEFAULT);
    if (intid >= 32)
        gic_route(intid, cpu_id());
    gic_bit_write(intid, GIC_ISENABLER);
}

void gic_disable(u32 intid)
{
    gic_bit_write(intid, GIC_ICENABLER);
}

void gic_route(u32 intid, u32 cpu) { driver->route(intid, cpu); }
void gic_forward(bool enable) { driver->forward(enable); }
void gic_sgi(u32 intid, u32 cpu_mask) { driver->sgi(intid, cpu_mask); }
void gic_sgi_others(u32 intid) { driver->sgi_others(intid); }
void gic_sgi_self(u32 intid) { driver->sgi_self(intid); }

/* The DSB makes the acknowledgement visible to the registers of distributor and redistributor
 * (IHI 0069, "Observability of the effects of accesses to the GIC registers"). */
u32 gic_ack(void)
{
    u32 ack = driver->ack();

    dsb();
    return ack;
}

u32 gic_intid(u32 ack)
{
    return gic_version == 3 ? ack : ack & 0x3ff;
}

void gic_eoi(u32 ack) { driver->eoi(ack); }
void gic_dir(u32 ack) { driver->dir(ack); }
u32 gic_highest(void) { return driver->highest(); }
u32 gic_running(void) { return driver->running(); }
void gic_set_mask(u8 priority) { driver->set_mask(priority); }
void gic_set_eoimode(u32 mode) { driver->set_eoimode(mode); }
void gic_cpu_forward(bool enable) { driver->cpu_forward(enable); }
void gic_set_subpriority(u32 bits) { driver->set_subpriority(bits); }

bool gic_wait_pending(u32 intid, u64 us)
{
    u64 start = virtual_count(), ticks = ticks_of_us(us);

    while (gic_highest() != intid)
        if (virtual_count() - start > ticks)
            return gic_highest() == intid; /* the time may have passed after the look */
    return true;
}

static irq_function handler_of(u32 intid)
{
    if (intid >= INTID_LPI)
        return lpi_handler;
    return intid < MAX_INTID ? handlers[intid] : NULL;
}

void gic_dispatch(struct context *ctx)
{
    u32 ack = driver->ack(), intid = gic_intid(ack);
    irq_function handler = handler_of(intid);

    (void)ctx;
    if (intid >= 1020 && intid < INTID_LPI) {
        gic_spurious++;
        return;
    }
    if (!handler)
        die("every interrupt has a handler (INTID %u has none)", intid);
    handler(intid);
    driver->eoi(ack);
}
