/* GICv3: distributor and redistributors in memory, the CPU interface in system registers (IHI 0069). */
#include "gic.h"
#include "gic_driver.h"
#include "rt.h"

#define GICD_CTLR     (GICD_BASE + 0x000)
#define GICD_CTLR_RWP (1u << 31)
#define GICD_CTLR_ARE (1u << 4)
#define GICD_CTLR_GROUPS 3u

#define GICR_CTLR_RWP (1u << 3)
#define GICR_TYPER    0x008u
#define GICR_WAKER    0x014u
#define GICR_SGI      0x10000u
#define TYPER_VLPIS   (1ul << 1)
#define TYPER_LAST    (1ul << 4)
#define WAKER_SLEEP   (1u << 1)
#define WAKER_ASLEEP  (1u << 2)

#define SGI1R_IRM     (1ul << 40)

static u64 redistributors[MAX_CPUS];

u64 gic_redistributor(void)
{
    return redistributors[cpu_id()];
}

static void wait_distributor(void)
{
    while (read32(GICD_CTLR) & GICD_CTLR_RWP)
        ;
}

static void wait_redistributor(void)
{
    while (read32(gic_redistributor()) & GICR_CTLR_RWP)
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

static u64 frame(u32 intid)
{
    return intid < 32 ? gic_redistributor() + GICR_SGI : GICD_BASE;
}

static void wait(u32 intid)
{
    if (intid < 32)
        wait_redistributor();
    else
        wait_distributor();
}

static void forward(bool enable)
{
    write32(GICD_CTLR, GICD_CTLR_ARE | (enable ? GICD_CTLR_GROUPS : 0));
    wait_distributor();
}

static void route(u32 intid, u32 cpu)
{
    write64(GICD_BASE + GICD_IROUTER + 8 * intid, cpu);
}

static void write_sgi1r(u64 value)
{
    dsb();
    write_sysreg(ICC_SGI1R_EL1, value);
    isb();
}

static void sgi(u32 intid, u32 cpu_mask)
{
    write_sgi1r((u64)intid << 24 | cpu_mask);
}

static void sgi_others(u32 intid)
{
    write_sgi1r((u64)intid << 24 | SGI1R_IRM);
}

static void sgi_self(u32 intid)
{
    sgi(intid, 1u << cpu_id());
}

static void cpu_init(void)
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

static u32 ack(void) { return (u32)read_sysreg(ICC_IAR1_EL1); }
static void eoi(u32 ack) { write_sysreg(ICC_EOIR1_EL1, ack); isb(); }
static void dir(u32 ack) { write_sysreg(ICC_DIR_EL1, ack); isb(); }
static u32 highest(void) { return (u32)read_sysreg(ICC_HPPIR1_EL1); }
static u32 running(void) { return (u32)read_sysreg(ICC_RPR_EL1) & 0xff; }
static void set_mask(u8 priority) { write_sysreg(ICC_PMR_EL1, priority); isb(); }
static void set_eoimode(u32 mode) { write_sysreg(ICC_CTLR_EL1, mode ? ICC_CTLR_EOIMODE : 0); isb(); }
static void cpu_forward(bool enable) { write_sysreg(ICC_IGRPEN1_EL1, enable); isb(); }

/* BPR1 = n: the group priority is bits 7 to n (ICC_BPR1_EL1, priority grouping). */
static void set_subpriority(u32 bits) { write_sysreg(ICC_BPR1_EL1, bits); isb(); }

const struct gic_driver gic_v3 = {
    .group = 1, .frame = frame, .wait = wait, .forward = forward, .route = route,
    .sgi = sgi, .sgi_others = sgi_others, .sgi_self = sgi_self,
    .cpu_init = cpu_init, .ack = ack, .eoi = eoi, .dir = dir, .highest = highest, .running = running,
    .set_mask = set_mask, .set_eoimode = set_eoimode, .cpu_forward = cpu_forward, .set_subpriority = set_subpriority,
};
