/* GICv2: an SGI is pending once for each CPU that sent it, and IAR tells which one (IHI 0048, 4.4.4); SPENDSGIR and
 * CPENDSGIR set and clear these by hand (4.3.16, 4.3.17). CPUs are told apart by their interface number. */
#include "gictest.h"
#include "rt.h"
#include "timer.h"

#define SGI     7u
#define WAIT_US 1000u

#define GICC_HPPIR      (GICC_BASE + 0x18)
#define GICD_ITARGETSR  (GICD_BASE + 0x800)
#define GICD_CPENDSGIR  (GICD_BASE + 0xf10)
#define GICD_SPENDSGIR  (GICD_BASE + 0xf20)
#define IAR_SOURCE(ack) ((ack) >> 10 & 7)

static u32 interface_of[MAX_CPUS];

/* The number of this CPU's interface: ITARGETSR0 has its bit, or 0 where it is the only one. */
static u64 find_interface(u64 argument)
{
    u32 bits = read32(GICD_ITARGETSR) & 0xff, number = 0;

    (void)argument;
    while (bits >> number > 1)
        number++;
    return number;
}

static u32 all_sources(void)
{
    u32 sources = 0;

    for (u32 cpu = 0; cpu < cpus; cpu++)
        sources |= 1u << interface_of[cpu];
    return sources;
}

/* Acknowledge and end what is pending: the senders of SGI as a mask. A second one of the same sender spoils it. */
static u32 drain(u32 mode)
{
    u32 sources = 0;

    delay_us(10);
    gic_set_eoimode(mode);
    for (u32 n = 0; n < 2 * MAX_CPUS; n++) {
        u32 ack = gic_ack(), source = 1u << IAR_SOURCE(ack);

        if (gic_intid(ack) == INTID_SPURIOUS)
            break;
        if (gic_intid(ack) != SGI || (sources & source))
            sources |= 1u << 31;
        sources |= source;
        gic_eoi(ack);
        if (mode)
            gic_dir(ack);
    }
    gic_set_eoimode(0);
    return sources;
}

static u64 drained(u64 mode) { return drain((u32)mode); }

static u64 send(u64 cpu_mask)
{
    gic_sgi(SGI, (u32)cpu_mask);
    return 0;
}

/* How many CPUs, as receivers, get from each other CPU and themselves what is sent ``times`` times. */
static u32 receivers(u32 times, u32 mode)
{
    u32 good = 0;

    for (u32 to = 0; to < cpus; to++) {
        for (u32 from = 0; from < cpus; from++)
            for (u32 n = 0; n < times; n++)
                on_cpu(from, send, 1u << to);
        good += on_cpu(to, drained, mode) == all_sources();
    }
    return good;
}

/* From two CPUs only: this one's neighbours. */
static void check_two_sources(void)
{
    u32 good = 0;

    for (u32 to = 0; to < cpus; to++) {
        u32 one = next_cpu(to), two = next_cpu(one);

        on_cpu(one, send, 1u << to);
        on_cpu(two, send, 1u << to);
        good += on_cpu(to, drained, 0) == (1u << interface_of[one] | 1u << interface_of[two]);
    }
    check_equal(good, cpus, "the same SGI from two CPUs is taken twice, with the number of each");
}

static u32 sources_pending(u64 reg)
{
    return read32(reg + (SGI & ~3u)) >> SGI % 4 * 8 & 0xff;
}

static u64 set_by_hand(u64 argument)
{
    u32 sources = all_sources();
    bool good;

    write8(GICD_SPENDSGIR + SGI, (u8)sources);
    dsb();
    good = sources_pending(GICD_SPENDSGIR) == sources && sources_pending(GICD_CPENDSGIR) == sources &&
           gic_bit_read(SGI, GIC_ISPENDR);
    return good && drain(0) == sources && sources_pending(GICD_SPENDSGIR) == 0 && !gic_bit_read(SGI, GIC_ISPENDR) &&
           argument == 0;
}

static u64 one_cleared_by_hand(u64 argument)
{
    u32 sources = all_sources(), gone = 1u << interface_of[next_cpu(cpu_id())];

    (void)argument;
    write8(GICD_SPENDSGIR + SGI, (u8)sources);
    dsb();
    write8(GICD_CPENDSGIR + SGI, (u8)gone);
    dsb();
    return sources_pending(GICD_SPENDSGIR) == (sources & ~gone) && drain(0) == (sources & ~gone);
}

static u64 all_cleared_by_hand(u64 argument)
{
    (void)argument;
    write8(GICD_SPENDSGIR + SGI, (u8)all_sources());
    dsb();
    write8(GICD_CPENDSGIR + SGI, (u8)all_sources());
    dsb();
    return !gic_bit_read(SGI, GIC_ISPENDR) && drain(0) == 0;
}

/* The bits of SGIs in ISPENDR and ICPENDR are read-only (4.3.7, 4.3.8). */
static u64 read_only_bits(u64 argument)
{
    bool good;

    (void)argument;
    gic_bit_write(SGI, GIC_ISPENDR);
    good = !gic_bit_read(SGI, GIC_ISPENDR) && drain(0) == 0;
    gic_sgi_self(SGI);
    gic_bit_write(SGI, GIC_ICPENDR);
    return good && drain(0) == 1u << interface_of[cpu_id()];
}

static u64 from_itself(u64 argument)
{
    gic_sgi_self(SGI);
    return drain(0) == 1u << interface_of[cpu_id()] && argument == 0;
}

/* HPPIR names the sender too (4.4.7). */
static u64 highest_has_source(u64 argument)
{
    u32 highest;

    gic_sgi_self(SGI);
    gic_wait_pending(SGI, WAIT_US);
    highest = read32(GICC_HPPIR);
    drain(0);
    return highest == (SGI | interface_of[cpu_id()] << 10) && argument == 0;
}

int main(void)
{
    gictest_start();
    if (gic_version != 2)
        nothing_to_do("a GICv2");
    for (u32 cpu = 0; cpu < cpus; cpu++)
        interface_of[cpu] = (u32)on_cpu(cpu, find_interface, 0);
    each("an SGI to itself carries its own number", from_itself, 0);
    judge_on_v3(count_cpus(highest_has_source, 0), "HPPIR has the number too"); /* QEMU's has not */
    check_two_sources();
    check_equal(receivers(1, 0), cpus, "the same SGI from every CPU is taken once from each");
    check_equal(receivers(3, 0), cpus, "also when each sent it 3 times before");
    check_equal(receivers(1, 1), cpus, "EOImode 1: EOIR and DIR take the number too");
    each("SPENDSGIR makes it pending from each CPU, which both registers show", set_by_hand, 0);
    each("CPENDSGIR takes back one of them", one_cleared_by_hand, 0);
    each("and all of them", all_cleared_by_hand, 0);
    each("ISPENDR and ICPENDR do not change an SGI", read_only_bits, 0);
    gictest_stop();
    return 0;
}
