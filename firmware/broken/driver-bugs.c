/* A driver of the GIC and of the timers with one bug, which the command line (/chosen/bootargs) names; without a name,
 * or with "right:NAME", there is none and the guest passes. With a bug it waits for ever, storms, or faults. */
#include "driver_bugs.h"

#include "fdt.h"

#define GICD_CTLR_ARE    (1u << 4)
#define GICD_CTLR_GROUPS 3u
#define GICR_WAKER       0x14u
#define WAKER_SLEEP      (1u << 1)
#define WAKER_ASLEEP     (1u << 2)

u32 version;

static const char *planted = "";
static void (*handlers[256])(u32 intid), (*lpi_handler)(u32 intid);

/* Each bug, its subject, and the GIC for which it is (0: both). */
static const struct row {
    const char *name;
    void (*subject)(void);
    u32 gic;
} rows[] = {
    {"pmr-closed", timer_ticks, 0},
    {"pmr-low", timer_ticks, 0},
    {"priority-lowest", timer_ticks, 0},
    {"igroupr", timer_ticks, 0},
    {"igrpen", timer_ticks, 0},
    {"isenabler", timer_ticks, 0},
    {"gicd-ctlr", timer_ticks, 0},
    {"waker", timer_ticks, 3},
    {"gicd-for-ppi", timer_ticks, 3},
    {"rd-base", timer_ticks, 3},
    {"wrong-cpu", timer_ticks, 3},
    {"wrong-intid", timer_ticks, 0},
    {"daif", timer_ticks, 0},
    {"vector-misaligned", timer_ticks, 0},
    {"vbar-unset", timer_ticks, 0},
    {"timer-off", timer_ticks, 0},
    {"timer-imask", timer_ticks, 0},
    {"timer-physical", timer_ticks, 0},
    {"cval-not-moved", timer_ticks, 0},
    {"cval-interval", timer_ticks, 0},
    {"cval-physical", timer_ticks, 0},
    {"tval-wide", timer_ticks, 0},
    {"eoi-missing", timer_ticks, 0},
    {"eoi-wrong-intid", timer_ticks, 0},
    {"dir-missing", timer_ticks, 0},
    {"iar-missing", timer_ticks, 0},
    {"iar-group", timer_ticks, 0},
    {"handler-spins", timer_ticks, 0},
    {"masked-again", timer_ticks, 0},
    {"isactiver", timer_ticks, 0},
    {"sre", timer_ticks, 2},
    {"gicc", timer_ticks, 3},
    {"timer-stopped", timer_stopped, 0},
    {"eoi-behind", behind, 0},
    {"eoi-twice", nested, 3},
    {"eoi-order", nested, 3},
    {"bpr", nested, 0},
    {"no-preemption", nested, 0},
    {"route-off", device, 0},
    {"route-nobody", device, 0},
    {"spi-number", device, 0},
    {"uart-imsc", device, 0},
    {"uart-not-cleared", device, 0},
    {"uart-edge", device, 0},
    {"pend-cleared", device, 0},
    {"eoi-other-cpu", device, 0},
    {"sgi-nobody", ipi, 0},
    {"sgi-self", ipi, 0},
    {"sgi-affinity", ipi, 3},
    {"sgi-group", ipi, 3},
    {"sgi-eoi-cpu", ipi, 2},
    {"cpu-off", ipi, 0},
    {"cpu-interface", ipi, 0},
    {"enable-lpis", lpi, 3},
    {"propbaser", lpi, 3},
    {"lpi-disabled", lpi, 3},
    {"lpi-priority", lpi, 3},
    {"inv-missing", lpi, 3},
    {"mapd-missing", lpi, 3},
    {"mapti-missing", lpi, 3},
    {"mapc-missing", lpi, 3},
    {"its-off", lpi, 3},
    {"int-event", lpi, 3},
    {"lpi-eoi-missing", lpi, 3},
};

static bool equal(const char *a, const char *b)
{
    return strlen(a) == strlen(b) && !memcmp(a, b, strlen(a));
}

bool bug(const char *name)
{
    return equal(planted, name);
}

/* Distributor --------------------------------------------------------------------------------------------------- */

void distributor_init(void)
{
    u32 groups = GICD_CTLR_GROUPS;

    if (bug("gicd-ctlr"))
        groups = version == 3 ? 1 : 2;
    write32(GICD_CTLR, groups | (version == 3 ? GICD_CTLR_ARE : 0));
    dsb();
}

u64 frame_of(u32 intid)
{
    if (version == 2 || intid >= 32 || bug("gicd-for-ppi"))
        return GICD_BASE;
    if (bug("rd-base"))
        return RD_BASE(cpu_id());
    return SGI_BASE(bug("wrong-cpu") ? 1 : cpu_id());
}

u64 word_of(u32 intid, u32 array)
{
    return frame_of(intid) + array + intid / 32 * 4;
}

void enable_bit(u32 intid)
{
    write32(word_of(intid, ISENABLER), bit_of(intid));
    dsb();
}

/* A GICv3 driver uses group 1, a GICv2 one without Security Extensions group 0: both come as IRQs. */
static void set_group(u32 intid)
{
    u64 word = word_of(intid, IGROUPR);
    bool one = (version == 3) != (bug("igroupr") || bug("iar-group"));

    write32(word, one ? read32(word) | bit_of(intid) : read32(word) & ~bit_of(intid));
}

static void route(u32 intid)
{
    u64 to = bug("route-off") ? 1 : bug("route-nobody") ? 5 : 0;

    if (version == 3)
        write64(GICD_BASE + IROUTER + 8 * intid, to);
    else
        write8(GICD_BASE + ITARGETSR + intid, (u8)(bug("route-nobody") ? 0 : 1 << to));
}

void enable_interrupt(u32 intid, u8 priority)
{
    set_group(intid);
    write8(frame_of(intid) + IPRIORITYR + intid, priority);
    if (intid >= 32)
        route(intid);
    if (!bug("isenabler"))
        enable_bit(intid);
}

/* CPU interface ------------------------------------------------------------------------------------------------- */

static void wake_redistributor(void)
{
    u64 waker = RD_BASE(cpu_id()) + GICR_WAKER;

    if (bug("waker")) { /* waits for the bit that says that it sleeps */
        write32(waker, WAKER_SLEEP);
        while (!(read32(waker) & WAKER_ASLEEP))
            ;
    }
    write32(waker, 0);
    while (read32(waker) & WAKER_ASLEEP)
        ;
}

static u32 mask(void)
{
    return bug("pmr-low") ? 0x80 : bug("priority-lowest") ? 0xff : 0xf0;
}

static void system_registers(void)
{
    write_sysreg(ICC_SRE_EL1, 7);
    isb();
    if (!bug("pmr-closed"))
        write_sysreg(ICC_PMR_EL1, mask());
    write_sysreg(ICC_CTLR_EL1, bug("dir-missing") ? ICC_CTLR_EOIMODE : 0);
    if (bug("iar-group"))
        write_sysreg(ICC_IGRPEN0_EL1, 1);
    if (!bug("igrpen"))
        write_sysreg(ICC_IGRPEN1_EL1, 1);
    isb();
}

static void memory_mapped(void)
{
    if (!bug("pmr-closed"))
        write32(GICC_PMR, mask());
    if (!bug("igrpen"))
        write32(GICC_CTLR, bug("iar-group") ? 3 : bug("dir-missing") ? 0x201 : 1); /* EnableGrp1; EOImode */
    dsb();
}

void interface_init(void)
{
    if (version == 3)
        wake_redistributor();
    if ((version == 3 || bug("sre")) && !bug("gicc"))
        system_registers();
    else
        memory_mapped();
}

u32 acknowledge(void)
{
    u32 ack = version == 3 ? (u32)read_sysreg(ICC_IAR1_EL1) : read32(GICC_IAR);

    dsb();
    return ack;
}

volatile u32 ended_by_cpu1;

void write_eoir(u32 ack)
{
    if (version == 3)
        write_sysreg(ICC_EOIR1_EL1, ack);
    else
        write32(GICC_EOIR, ack);
    isb();
}

void end(u32 ack)
{
    if (bug("eoi-missing") || (bug("eoi-behind") && ack == LOW_SPI) || (bug("lpi-eoi-missing") && ack >= 8192))
        return;
    if (bug("sgi-eoi-cpu"))
        ack &= 0x3ff;
    if (bug("eoi-other-cpu")) {
        ended_by_cpu1 = ack;
        return;
    }
    write_eoir(bug("eoi-wrong-intid") ? INTID_PTIMER : ack);
    if (bug("eoi-twice") && ack == INTID_VTIMER)
        write_eoir(ack);
}

/* Interrupts ---------------------------------------------------------------------------------------------------- */

void set_handler(u32 intid, void (*handler)(u32 intid))
{
    if (intid < ARRAY_SIZE(handlers))
        handlers[intid] = handler;
    else
        lpi_handler = handler;
}

/* Preemption is the handler's own affair: what the vectors have saved must outlive it. */
static void dispatch(struct context *context)
{
    u32 ack, intid;

    (void)context;
    if (bug("iar-missing"))
        return;
    if (bug("handler-spins")) /* as a vector that branches to itself */
        for (;;)
            ;
    ack = acknowledge();
    intid = version == 3 ? ack : ack & 0x3ff;
    if (intid >= 1020 && intid < 1024)
        return;
    if (intid < ARRAY_SIZE(handlers) ? !handlers[intid] : !lpi_handler)
        die("INTID %u has a handler", intid);
    (intid < ARRAY_SIZE(handlers) ? handlers[intid] : lpi_handler)(intid);
    end(ack);
}

/* A table that is aligned to 256 bytes, which is not enough: bits 10 to 0 of VBAR_EL1 are RES0. */
__asm__(".section .text.misaligned_vectors, \"ax\"\n"
        ".balign 0x800\n"
        ".global misaligned_vectors\n"
        ".type misaligned_vectors, %function\n"
        ".rept 192\n\tudf #0\n.endr\n"
        "misaligned_vectors: .rept 16\n\tb exception_entry\n.balign 0x80\n.endr\n"
        ".size misaligned_vectors, . - misaligned_vectors\n"
        ".text\n");
extern char misaligned_vectors[];

void take_interrupts(void)
{
    irq_handler = fiq_handler = dispatch;
    if (bug("vbar-unset"))
        write_sysreg(vbar_el1, 0);
    if (bug("vector-misaligned"))
        write_sysreg(vbar_el1, misaligned_vectors);
    isb();
    if (bug("iar-group"))
        fiq_enable();
    if (!bug("daif"))
        irq_enable();
}

void wait_for(const volatile u32 *count, u32 want)
{
    while (*count < want)
        wfi();
}

int main(void)
{
    const char *arguments = fdt_string("bootargs"), *name = arguments;
    const struct row *row = &rows[0];
    bool right = strlen(name) > 6 && !memcmp(name, "right:", 6);

    version = fdt_count("compatible", "arm,gic-v3") ? 3 : 2;
    note("GICv%u, %u CPUs", version, fdt_cpus());
    if (right)
        name += 6;
    for (u32 n = 0; n < ARRAY_SIZE(rows); n++)
        if (equal(rows[n].name, name) && (!rows[n].gic || rows[n].gic == version))
            row = &rows[n];
    if (*name && !equal(row->name, name))
        die("--append names a bug for this GIC: %s", arguments);
    if (*name && !right)
        planted = row->name;
    note("%s of the driver: %s", right ? "the right twin" : "the bug", *name ? name : "none");
    row->subject();
    check(true, "the interrupts came");
    return 0;
}
