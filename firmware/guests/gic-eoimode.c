/* The two end-of-interrupt modes on every CPU, driven by hand with IRQs masked: with EOImode 0 EOIR drops the
 * priority and deactivates, with EOImode 1 it drops only and DIR deactivates, in any order and, for an SPI, on any
 * CPU. IHI 0069, "Interrupt lifecycle", ICC_CTLR_EL1.EOImode, ICC_DIR_EL1; IHI 0048, 3.2.1, GICC_DIR. */
#include "gictest.h"
#include "rt.h"
#include "timer.h"

#define SPI     SPI_FREE
#define WAIT_US 1000u
#define DEPTH   8u

static bool idle(void)
{
    return gic_running() >= PRIORITY_IDLE_LEAST;
}

static bool active(u32 intid)
{
    return gic_bit_read(intid, GIC_ISACTIVER);
}

/* Make ``intid`` pending here and acknowledge it. */
static bool take_by_hand(u32 intid, u32 *ack)
{
    if (intid < SGI_COUNT)
        gic_sgi_self(intid);
    else
        gic_bit_write(intid, GIC_ISPENDR);
    if (!gic_wait_pending(intid, WAIT_US))
        return false;
    *ack = gic_ack();
    return gic_intid(*ack) == intid;
}

static void prepare(u32 mode)
{
    irq_disable();
    gic_set_eoimode(mode);
    for (u32 n = 0; n < SGI_COUNT; n++)
        gic_set_priority(n, PRIORITY_DEFAULT);
    for (u32 n = 0; n < 2 * DEPTH; n++)
        spi_setup(SPI + n, true, cpu_id());
}

static u64 mode_0_deactivates(u64 intid)
{
    u32 ack = 0;
    bool good;

    prepare(0);
    good = take_by_hand((u32)intid, &ack) && active((u32)intid) && gic_running() == PRIORITY_DEFAULT;
    gic_eoi(ack);
    return good && !active((u32)intid) && idle();
}

static u64 mode_1_only_drops(u64 intid)
{
    u32 ack = 0;
    bool good;

    prepare(1);
    good = take_by_hand((u32)intid, &ack) && active((u32)intid) && gic_running() == PRIORITY_DEFAULT;
    gic_eoi(ack);
    good &= active((u32)intid) && idle();
    gic_dir(ack);
    return good && !active((u32)intid);
}

/* Pending again while active: signalled after DIR, not before, though the priority is dropped. */
static u64 mode_1_holds_back(u64 intid)
{
    u32 first = 0, second = 0;
    bool good;

    prepare(1);
    good = take_by_hand((u32)intid, &first);
    gic_eoi(first);
    if (intid < SGI_COUNT)
        gic_sgi_self((u32)intid);
    else
        gic_bit_write((u32)intid, GIC_ISPENDR);
    delay_us(10);
    good &= gic_highest() == INTID_SPURIOUS && gic_intid(gic_ack()) == INTID_SPURIOUS;
    gic_dir(first);
    good &= gic_wait_pending((u32)intid, WAIT_US);
    second = gic_ack();
    gic_eoi(second);
    gic_dir(second);
    return good && gic_intid(second) == intid && !active((u32)intid) && idle();
}

/* Others of the same priority are not held back by what is active, once its priority is dropped. */
static u64 many_active(u64 argument)
{
    u32 ack[DEPTH];
    bool good = true;

    (void)argument;
    prepare(1);
    for (u32 n = 0; n < DEPTH; n++) {
        good &= take_by_hand(SPI + n, &ack[n]);
        gic_eoi(ack[n]);
        good &= idle();
    }
    for (u32 n = 0; n < DEPTH; n++)
        good &= active(SPI + n);
    for (u32 n = 0; n < DEPTH; n++) { /* 0, 3, 6, 1, ...: each once, in no order */
        u32 k = n * 3 % DEPTH;

        gic_dir(ack[k]);
        for (u32 i = 0; i < DEPTH; i++)
            good &= active(SPI + i) == (i * 3 % DEPTH > n); /* 3 is its own inverse modulo 8 */
    }
    return good;
}

static u64 nested(u64 mode)
{
    u32 ack[DEPTH];
    bool good = true;

    prepare((u32)mode);
    for (u32 n = 0; n < DEPTH; n++)
        gic_set_priority(SPI + n, (u8)(0xe0 - 0x20 * n));
    for (u32 n = 0; n < DEPTH; n++)
        good &= take_by_hand(SPI + n, &ack[n]) && gic_running() == 0xe0 - 0x20 * n;
    for (u32 n = DEPTH; n-- > 0;) {
        good &= gic_running() == 0xe0 - 0x20 * n;
        gic_eoi(ack[n]);
        good &= active(SPI + n) == (mode == 1);
    }
    good &= idle();
    for (u32 n = 0; mode && n < DEPTH; n++) {
        gic_dir(ack[n]);
        good &= !active(SPI + n);
    }
    return good;
}

/* DIR deactivates and leaves the running priority alone: that is EOIR's. */
static u64 dir_drops_nothing(u64 argument)
{
    u32 outer = 0, inner = 0;
    bool good;

    (void)argument;
    prepare(1);
    good = take_by_hand(SPI, &outer);
    gic_eoi(outer);
    gic_set_priority(SPI + 1, 0x40);
    good &= take_by_hand(SPI + 1, &inner);
    gic_dir(outer);
    good &= gic_running() == 0x40 && !active(SPI) && active(SPI + 1);
    gic_eoi(inner);
    gic_dir(inner);
    return good && idle() && !active(SPI + 1);
}

static u64 deactivate(u64 intid)
{
    u32 before = gic_running();

    gic_set_eoimode(1);
    gic_dir((u32)intid);
    return gic_running() == before;
}

static u64 take_and_drop(u64 argument)
{
    u32 ack = 0;
    bool good;

    (void)argument;
    prepare(1);
    good = take_by_hand(SPI, &ack);
    gic_eoi(ack);
    return good && active(SPI) && idle();
}

static u64 is_inactive(u64 intid)
{
    return !active((u32)intid);
}

/* For an SPI it does not matter which CPU writes DIR: its active state is one for all. QEMU's GICv2 keeps one by
 * CPU, though, so that there it has no effect. */
static void check_dir_elsewhere(void)
{
    u32 good = 0;

    for (u32 cpu = 0; cpu < cpus; cpu++) {
        u32 other = next_cpu(cpu);

        good += on_cpu(cpu, take_and_drop, 0) && on_cpu(other, deactivate, SPI) && on_cpu(cpu, is_inactive, SPI);
    }
    judge_on_v3(good, "EOImode 1: DIR on the next CPU deactivates an SPI");
    good = 0;
    for (u32 cpu = 0; cpu < cpus; cpu++) {
        u32 other = next_cpu(cpu);

        good += on_cpu(cpu, take_and_drop, 0) && on_cpu(other, deactivate, SPI) && on_cpu(cpu, take_and_drop, 0);
    }
    judge_on_v3(good, "EOImode 1: after which the SPI can be taken again");
}

static u64 takes_the_repended(u64 argument)
{
    u32 ack;

    (void)argument;
    if (!gic_wait_pending(SPI, WAIT_US))
        return false;
    ack = gic_ack();
    gic_eoi(ack);
    gic_dir(ack);
    return gic_intid(ack) == SPI && !active(SPI) && idle();
}

static u64 pend_and_see_nothing(u64 argument)
{
    (void)argument;
    gic_bit_write(SPI, GIC_ISPENDR);
    delay_us(10);
    return gic_highest() == INTID_SPURIOUS;
}

static void check_repended_elsewhere(void)
{
    u32 good = 0;

    for (u32 cpu = 0; cpu < cpus; cpu++) {
        u32 other = next_cpu(cpu);

        good += on_cpu(cpu, take_and_drop, 0) && on_cpu(cpu, pend_and_see_nothing, 0) &&
                on_cpu(other, deactivate, SPI) && on_cpu(cpu, takes_the_repended, 0);
    }
    judge_on_v3(good, "EOImode 1: DIR on the next CPU releases what became pending meanwhile");
}

static u64 back_to_mode_0(u64 argument)
{
    gic_set_eoimode(0);
    return mode_0_deactivates(argument);
}

int main(void)
{
    gictest_start();
    each("EOImode 0: EOIR drops the priority of an SGI and deactivates it", mode_0_deactivates, 1);
    each("EOImode 0: and of an SPI", mode_0_deactivates, SPI);
    each("EOImode 0: 8 nested SPIs unwind", nested, 0);
    each("EOImode 1: EOIR drops the priority of an SGI, DIR deactivates it", mode_1_only_drops, 1);
    each("EOImode 1: and of an SPI", mode_1_only_drops, SPI);
    each("EOImode 1: an SGI sent while active waits for DIR", mode_1_holds_back, 1);
    each("EOImode 1: an SPI made pending while active waits for DIR", mode_1_holds_back, SPI);
    each("EOImode 1: 8 SPIs are active at once and deactivated in another order", many_active, 0);
    each("EOImode 1: 8 nested SPIs unwind and are deactivated in the order they came", nested, 1);
    each("EOImode 1: DIR of one leaves the running priority of another", dir_drops_nothing, 0);
    check_dir_elsewhere();
    check_repended_elsewhere();
    each("back in EOImode 0, EOIR deactivates again", back_to_mode_0, SPI);
    gictest_stop();
    return 0;
}
