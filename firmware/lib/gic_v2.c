/* GICv2: distributor and CPU interface in memory, registers of private interrupts banked by CPU (IHI 0048). */
#include "gic.h"
#include "gic_driver.h"
#include "rt.h"

#define GICD_CTLR      (GICD_BASE + 0x000)
#define GICD_ITARGETSR (GICD_BASE + 0x800)
#define GICD_SGIR      (GICD_BASE + 0xf00)
#define SGIR_OTHERS    (1u << 24)
#define SGIR_SELF      (2u << 24)

#define GICC_CTLR      (GICC_BASE + 0x00)
#define GICC_PMR       (GICC_BASE + 0x04)
#define GICC_BPR       (GICC_BASE + 0x08)
#define GICC_IAR       (GICC_BASE + 0x0c)
#define GICC_EOIR      (GICC_BASE + 0x10)
#define GICC_RPR       (GICC_BASE + 0x14)
#define GICC_HPPIR     (GICC_BASE + 0x18)
#define GICC_DIR       (GICC_BASE + 0x1000)
#define CTLR_ENABLE    (1u << 0) /* group 0, which FIQEn = 0 signals as IRQs */
#define CTLR_EOIMODE   (1u << 9)

/* The distributor's bit for each CPU interface, which need not be the number in MPIDR. */
static u32 targets[MAX_CPUS];

/* ITARGETSR0 to 7 read as the reading CPU's own bit (4.3.12); zero where there is only one CPU. */
static u32 own_target(void)
{
    u32 bit = read32(GICD_ITARGETSR) & 0xff;

    return bit ? bit : 1;
}

static u64 frame(u32 intid)
{
    (void)intid;
    return GICD_BASE;
}

/* There is no write-pending bit: a completed write counts. */
static void wait(u32 intid)
{
    (void)intid;
    dsb();
}

static void write_and_wait(u64 address, u32 value)
{
    write32(address, value);
    dsb();
}

static void forward(bool enable)
{
    write_and_wait(GICD_CTLR, enable);
}

static void route(u32 intid, u32 cpu)
{
    write8(GICD_ITARGETSR + intid, (u8)targets[cpu]);
    dsb();
}

/* The DSB before makes what was stored for the receiver visible to it. */
static void write_sgir(u32 value)
{
    dsb();
    write_and_wait(GICD_SGIR, value);
}

static void sgi(u32 intid, u32 cpu_mask)
{
    u32 list = 0;

    for (u32 cpu = 0; cpu < MAX_CPUS; cpu++)
        if (cpu_mask >> cpu & 1)
            list |= targets[cpu];
    write_sgir(list << 16 | intid);
}

static void sgi_others(u32 intid) { write_sgir(SGIR_OTHERS | intid); }
static void sgi_self(u32 intid) { write_sgir(SGIR_SELF | intid); }

static void cpu_init(void)
{
    targets[cpu_id()] = own_target();
    write32(GICC_PMR, 0xff);
    write32(GICC_BPR, 0);
    write_and_wait(GICC_CTLR, CTLR_ENABLE);
}

static u32 ack(void) { return read32(GICC_IAR); }
static void eoi(u32 ack) { write_and_wait(GICC_EOIR, ack); }
static void dir(u32 ack) { write_and_wait(GICC_DIR, ack); }
static u32 highest(void) { return read32(GICC_HPPIR) & 0x3ff; }
static u32 running(void) { return read32(GICC_RPR) & 0xff; }
static void set_mask(u8 priority) { write_and_wait(GICC_PMR, priority); }

static void change_ctlr(u32 bit, bool set)
{
    u32 ctlr = read32(GICC_CTLR);

    write_and_wait(GICC_CTLR, set ? ctlr | bit : ctlr & ~bit);
}

static void set_eoimode(u32 mode) { change_ctlr(CTLR_EOIMODE, mode); }
static void cpu_forward(bool enable) { change_ctlr(CTLR_ENABLE, enable); }

/* BPR = n: the group priority is bits 7 to n + 1 (3.3.3, Table 3-2). */
static void set_subpriority(u32 bits) { write_and_wait(GICC_BPR, bits ? bits - 1 : 0); }

const struct gic_driver gic_v2 = {
    .group = 0, .frame = frame, .wait = wait, .forward = forward, .route = route,
    .sgi = sgi, .sgi_others = sgi_others, .sgi_self = sgi_self,
    .cpu_init = cpu_init, .ack = ack, .eoi = eoi, .dir = dir, .highest = highest, .running = running,
    .set_mask = set_mask, .set_eoimode = set_eoimode, .cpu_forward = cpu_forward, .set_subpriority = set_subpriority,
};
