/* The active state set and cleared by hand: what is pending while active is not taken until inactive. SPIs on each
 * CPU, and PPIs, whose state is banked. IHI 0069, GICD_ISACTIVER, GICR_ISACTIVER0; IHI 0048, 4.3.9 and 4.3.10. */
#include "gictest.h"
#include "rt.h"
#include "timer.h"

#define SPI     SPI_FREE
#define PPI     INTID_PTIMER
#define WAIT_US 1000u

static bool active(u32 intid)
{
    return gic_bit_read(intid, GIC_ISACTIVER);
}

/* Pending: the SPI by register, the PPI by its timer, as QEMU's GICv2 has no ISPENDR for PPIs. */
static void raise(u32 intid)
{
    if (intid == PPI) {
        physical_timer.set_cval(0);
        physical_timer.set_ctl(CTL_ENABLE);
    } else {
        gic_bit_write(intid, GIC_ISPENDR);
    }
}

static void lower(u32 intid)
{
    if (intid == PPI)
        physical_timer.set_ctl(0);
}

static void take_and_lower(u32 intid)
{
    lower(intid);
    take(intid);
}

/* Enabled here, neither pending nor active. */
static void prepare(u32 intid)
{
    irq_disable();
    lower(intid);
    if (intid >= 32) {
        spi_setup(intid, true, cpu_id());
        return;
    }
    gic_disable(intid);
    gic_bit_write(intid, GIC_ICACTIVER);
    gic_enable(intid, take_and_lower);
}

static u64 set_and_cleared(u64 intid)
{
    bool good;

    prepare((u32)intid);
    good = !active((u32)intid);
    gic_bit_write((u32)intid, GIC_ISACTIVER);
    good &= active((u32)intid) && gic_bit_read((u32)intid, GIC_ICACTIVER);
    window();
    good &= took_nothing(cpu_id());
    gic_bit_write((u32)intid, GIC_ICACTIVER);
    return good && !active((u32)intid) && !gic_bit_read((u32)intid, GIC_ICACTIVER);
}

/* Active first, then pending. */
static u64 pending_waits(u64 intid)
{
    bool good;

    prepare((u32)intid);
    gic_bit_write((u32)intid, GIC_ISACTIVER);
    raise((u32)intid);
    window();
    good = took_nothing(cpu_id()) && gic_bit_read((u32)intid, GIC_ISPENDR) && active((u32)intid);
    gic_bit_write((u32)intid, GIC_ICACTIVER);
    window();
    return good && took_only(cpu_id(), (u32)intid, 1) && !active((u32)intid);
}

/* Pending first, then active. */
static u64 is_held_back(u64 intid)
{
    bool good;

    prepare((u32)intid);
    raise((u32)intid);
    gic_bit_write((u32)intid, GIC_ISACTIVER);
    delay_us(10);
    window();
    good = took_nothing(cpu_id());
    gic_bit_write((u32)intid, GIC_ICACTIVER);
    window();
    return good && took_only(cpu_id(), (u32)intid, 1);
}

/* The active state by register does not touch the running priority: others come. */
static u64 others_come(u64 intid)
{
    bool good;

    prepare((u32)intid);
    gic_bit_write((u32)intid, GIC_ISACTIVER);
    good = gic_running() >= PRIORITY_IDLE_LEAST;
    gic_sgi_self(3);
    window();
    good &= took_only(cpu_id(), 3, 1);
    gic_bit_write((u32)intid, GIC_ICACTIVER);
    return good;
}

static bool seen_active, seen_pending;

static void look(u32 intid)
{
    seen_active = active(intid);
    take_and_lower(intid);
}

static u64 active_in_its_handler(u64 intid)
{
    prepare((u32)intid);
    gic_attach((u32)intid, look);
    seen_active = false;
    raise((u32)intid);
    window();
    return seen_active && took_only(cpu_id(), (u32)intid, 1) && !active((u32)intid);
}

/* An edge within the handler is kept and comes after its end. */
static void pend_once_more(u32 intid)
{
    if (took_nothing(cpu_id()))
        gic_bit_write(intid, GIC_ISPENDR);
    seen_pending |= took_nothing(cpu_id()) && gic_bit_read(intid, GIC_ISPENDR);
    take(intid);
}

static u64 pending_in_its_handler(u64 intid)
{
    prepare((u32)intid);
    gic_attach((u32)intid, pend_once_more);
    seen_pending = false;
    raise((u32)intid);
    window();
    return seen_pending && took_only(cpu_id(), (u32)intid, 2) && !active((u32)intid);
}

/* EOImode 1: after the priority drop ICACTIVER does what DIR would. */
static u64 cleared_in_place_of_dir(u64 intid)
{
    u32 ack;
    bool good;

    prepare((u32)intid);
    gic_set_eoimode(1);
    raise((u32)intid);
    good = gic_wait_pending((u32)intid, WAIT_US);
    ack = gic_ack();
    lower((u32)intid);
    gic_eoi(ack);
    good &= gic_intid(ack) == intid && active((u32)intid);
    gic_bit_write((u32)intid, GIC_ICACTIVER);
    gic_set_eoimode(0);
    good &= !active((u32)intid);
    raise((u32)intid);
    window();
    return good && took_only(cpu_id(), (u32)intid, 1);
}

/* A disabled interrupt can be active and is so when enabled. */
static u64 active_while_disabled(u64 intid)
{
    bool good;

    prepare((u32)intid);
    gic_disable((u32)intid);
    gic_bit_write((u32)intid, GIC_ISACTIVER);
    raise((u32)intid);
    good = active((u32)intid);
    gic_bit_write((u32)intid, GIC_ISENABLER);
    window();
    good &= took_nothing(cpu_id()) && active((u32)intid);
    gic_bit_write((u32)intid, GIC_ICACTIVER);
    window();
    return good && took_only(cpu_id(), (u32)intid, 1);
}

static u64 set_here(u64 intid)
{
    prepare((u32)intid);
    gic_bit_write((u32)intid, GIC_ISACTIVER);
    return true;
}

static u64 reads_active(u64 intid) { return active((u32)intid); }

static u64 clear_here(u64 intid)
{
    gic_bit_write((u32)intid, GIC_ICACTIVER);
    return !active((u32)intid);
}

/* How many CPUs see ``intid`` active when it was set on ``cpu``. */
static u32 seen_by(u32 cpu, u32 intid)
{
    u32 seen = 0;

    on_cpu(cpu, set_here, intid);
    for (u32 other = 0; other < cpus; other++)
        seen += on_cpu(other, reads_active, intid) != 0;
    return seen;
}

static void check_shared_and_banked(void)
{
    u32 shared = 0, banked = 0, cleared = 0;

    for (u32 cpu = 0; cpu < cpus; cpu++) {
        shared += seen_by(cpu, SPI) == cpus;
        cleared += on_cpu(next_cpu(cpu), clear_here, SPI) && !on_cpu(cpu, reads_active, SPI);
        banked += seen_by(cpu, PPI) == 1 && on_cpu(cpu, clear_here, PPI);
    }
    check_equal(shared, cpus, "an SPI made active on any CPU is active for all");
    check_equal(cleared, cpus, "and can be made inactive on the next");
    check_equal(banked, cpus, "a PPI made active on a CPU is active there only");
}

static void both(const char *sentence, u64 (*holds)(u64 intid))
{
    check_equal(count_cpus(holds, SPI), cpus, "SPI: %s", sentence);
    check_equal(count_cpus(holds, PPI), cpus, "PPI: %s", sentence);
}

int main(void)
{
    gictest_start();
    both("ISACTIVER and ICACTIVER set and clear what both read", set_and_cleared);
    both("what becomes pending while active is taken when inactive", pending_waits);
    both("what becomes active while pending is held back until inactive", is_held_back);
    both("an active state set by hand leaves other interrupts alone", others_come);
    both("an interrupt is active in its handler and inactive after it", active_in_its_handler);
    both("EOImode 1: ICACTIVER in place of DIR deactivates", cleared_in_place_of_dir);
    both("active and pending while disabled: not taken when enabled, but when inactive", active_while_disabled);
    each("SPI: an edge within its handler is kept and taken afterwards", pending_in_its_handler, SPI);
    check_shared_and_banked();
    gictest_stop();
    return 0;
}
