#include "gic.h"

#include "rt.h"
#include "timer.h"

#define GICD_CTLR     (GICD_BASE + 0x000)
#define GICD_TYPER    (GICD_BASE + 0x004)
#define GICD_CTLR_RWP (1u << 31)
#define GICD_CTLR_ENABLE (0x13u) /* ARE_NS or ARE, group 1, group 0 */

#define GICR_CTLR_RWP (1u << 3)
#define GICR_TYPER    0x008u
#define GICR_WAKER    0x014u
#define GICR_SGI      0x10000u
#define TYPER_VLPIS   (1ul << 1)
#define TYPER_LAST    (1ul << 4)
#define WAKER_SLEEP   (1u << 1)
#define WAKER_ASLEEP  (1u << 2)

#define MAX_INTID     288u

static u64 redistributors[MAX_CPUS];
static irq_function handlers[MAX_INTID];
volatile u32 gic_spurious;

static void wait_distributor(void)
{
    while (read32(GICD_CTLR) & GICD_CTLR_RWP)
        ;
}

static void wait_redistributor(void)
{
    while (read32(redistributors[cpu_id()]) & GICR_CTLR_RWP)
        ;
}

/* Walk the redistributors until GICR_TYPER's affinity is ours. */
static u64 find_redistributor(void)
{
    u64 mpidr = read_sysreg(mpidr_el1);
    u64 affinity = (mpidr & 0xffffff) | (mpidr >> 8 & 0xff000000);
    u64 base = GICR_BASE, typer;

    do {
        typer = read64(base + GICR_TYPER);
        if (typer >> 32 == affinity)
            return base;
        base += typer & TYPER_VLPIS ? 0x40000 : 0x20000;
    } while (!(typer & TYPER_LAST));
    die("a redistributor carries this CPU's affinity");
}

u64 gic_frame(u32 intid)
{
    return intid < 32 ? redistributors[cpu_id()] + GICR_SGI : GICD_BASE;
}

static void gic_wait(u32 intid)
{
    if (intid < 32)
        wait_redistributor();
    else
        wait_distributor();
}

static u64 bit_register(u32 intid, u32 offset)
{
    return gic_frame(intid) + offset + intid / 32 * 4;
}

void gic_bit_write(u32 intid, u32 offset)
{
    write32(bit_register(intid, offset), 1u << intid % 32);
    gic_wait(intid);
}

bool gic_bit_read(u32 intid, u32 offset)
{
    return read32(bit_register(intid, offset)) >> intid % 32 & 1;
}

void gic_set_priority(u32 intid, u8 priority)
{
    write8(gic_frame(intid) + GIC_IPRIORITYR + intid, priority);
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

void gic_enable(u32 intid, irq_function handler)
{
    gic_attach(intid, handler);
    gic_set_group(intid, 1);
    gic_set_priority(intid, PRIORITY_DEFAULT);
    if (intid >= 32)
        write64(GICD_BASE + GICD_IROUTER + 8 * intid, read_sysreg(mpidr_el1) & 0xff00fffffful);
    gic_bit_write(intid, GIC_ISENABLER);
}

void gic_disable(u32 intid)
{
    gic_bit_write(intid, GIC_ICENABLER);
}

static void write_sgi1r(u64 value)
{
    dsb();
    write_sysreg(ICC_SGI1R_EL1, value);
    isb();
}

void gic_sgi(u32 intid, u32 aff0_mask)
{
    write_sgi1r((u64)intid << 24 | aff0_mask);
}

void gic_sgi_others(u32 intid)
{
    write_sgi1r((u64)intid << 24 | 1ul << 40);
}

bool gic_wait_pending(u32 intid, u64 us)
{
    u64 start = virtual_count(), ticks = ticks_of_us(us);

    while (read_sysreg(ICC_HPPIR1_EL1) != intid)
        if (virtual_count() - start > ticks)
            return false;
    return true;
}

void gic_cpu_init(void)
{
    u64 base = redistributors[cpu_id()] = find_redistributor();

    write32(base + GICR_WAKER, read32(base + GICR_WAKER) & ~WAKER_SLEEP);
    while (read32(base + GICR_WAKER) & WAKER_ASLEEP)
        ;
    write_sysreg(ICC_SRE_EL1, 7);
    isb();
    write_sysreg(ICC_PMR_EL1, 0xff);
    write_sysreg(ICC_CTLR_EL1, 0);
    write_sysreg(ICC_BPR1_EL1, 0);
    write_sysreg(ICC_IGRPEN1_EL1, 1);
    isb();
}

void gic_init(void)
{
    write32(GICD_CTLR, GICD_CTLR_ENABLE);
    wait_distributor();
    gic_cpu_init();
}

void gic_dispatch(struct context *ctx)
{
    u32 intid = (u32)read_sysreg(ICC_IAR1_EL1);

    (void)ctx;
    if (intid >= 1020) {
        gic_spurious++;
        return;
    }
    if (intid >= MAX_INTID || !handlers[intid])
        die("every interrupt has a handler (INTID %u has none)", intid);
    handlers[intid](intid);
    write_sysreg(ICC_EOIR1_EL1, intid);
    isb();
}
