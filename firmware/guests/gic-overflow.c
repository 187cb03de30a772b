/* More interrupts at once than a virtual CPU interface has list registers (at most 16): pending ones come in
 * order of priority, none lost and none twice; active ones stay so until DIR, whatever the order. */
#include "gictest.h"
#include "rt.h"
#include "timer.h"

#define SPI     SPI_FREE
#define MANY    40u
#define ACTIVE  20u
#define LEVELS  15u /* that every GIC has, see gic-priority */

/* A permutation of 0 to MANY - 1. */
static u32 scrambled(u32 n)
{
    return n * 27 % MANY;
}

static u8 priority_of(u32 n)
{
    return (u8)(n * 11 % LEVELS * 0x10);
}

static void setup(u32 count, u32 cpu)
{
    irq_disable();
    for (u32 n = 0; n < count; n++) {
        spi_setup(SPI + n, true, cpu);
        gic_set_priority(SPI + n, priority_of(n));
    }
}

static bool active(u32 n) { return gic_bit_read(SPI + n, GIC_ISACTIVER); }

/* Each of SPI + first to SPI + last - 1 once. */
static bool each_once(u32 cpu, u32 first, u32 last)
{
    bool good = taken[cpu].count == last - first;

    for (u32 n = first; n < last; n++)
        good &= times_taken(cpu, SPI + n) == 1;
    return good;
}

static bool in_order(u32 cpu)
{
    bool good = true;

    for (u32 n = 1; n < taken[cpu].count; n++)
        good &= taken[cpu].priority[n - 1] <= taken[cpu].priority[n];
    return good;
}

static u64 pending_all(u64 argument)
{
    (void)argument;
    setup(MANY, cpu_id());
    for (u32 n = 0; n < MANY; n++)
        gic_bit_write(SPI + scrambled(n), GIC_ISPENDR);
    delay_us(20);
    irq_enable();
    wait_taken(cpu_id(), MANY);
    irq_disable();
    return each_once(cpu_id(), 0, MANY) && in_order(cpu_id());
}

/* The same by PMR: IRQs are open all the while, and the priority mask lets them in level by level. */
static u64 level_by_level(u64 argument)
{
    u32 expected = 0;
    bool good = true;

    (void)argument;
    setup(MANY, cpu_id());
    gic_set_mask(0);
    irq_enable();
    for (u32 n = 0; n < MANY; n++)
        gic_bit_write(SPI + scrambled(n), GIC_ISPENDR);
    for (u32 level = 0; level < LEVELS; level++) {
        for (u32 n = 0; n < MANY; n++)
            expected += priority_of(n) == level * 0x10;
        gic_set_mask((u8)(level * 0x10 + 0x10));
        good &= wait_taken(cpu_id(), expected);
    }
    gic_set_mask(0xff);
    irq_disable();
    return good && each_once(cpu_id(), 0, MANY) && in_order(cpu_id());
}

/* By hand: HPPIR and IAR give the pending ones in order, each once, then 1023. */
static u64 acknowledged_by_hand(u64 argument)
{
    u32 last = 0;
    u64 seen = 0;
    bool good = true;

    (void)argument;
    setup(MANY, cpu_id());
    for (u32 n = 0; n < MANY; n++)
        gic_bit_write(SPI + scrambled(n), GIC_ISPENDR);
    delay_us(20);
    for (u32 n = 0; n < MANY; n++) {
        u32 ack = gic_ack(), k = gic_intid(ack) - SPI;

        if (k >= MANY)
            return false;
        good &= !(seen >> k & 1) && gic_running() == priority_of(k) && priority_of(k) >= last;
        seen |= 1ul << k;
        last = priority_of(k);
        gic_eoi(ack);
    }
    return good && gic_intid(gic_ack()) == INTID_SPURIOUS;
}

/* Acknowledge, drop, and leave active: ``ack`` gets what DIR needs, by SPI. */
static bool make_active(u32 count, u32 *ack)
{
    bool good = true;

    gic_set_eoimode(1);
    for (u32 n = 0; n < count; n++)
        gic_bit_write(SPI + n, GIC_ISPENDR);
    delay_us(20);
    for (u32 n = 0; n < count; n++) {
        u32 value = gic_ack(), k = gic_intid(value) - SPI;

        if (k >= count)
            return false;
        ack[k] = value;
        gic_eoi(value);
    }
    for (u32 n = 0; n < count; n++)
        good &= active(n);
    return good && gic_running() >= PRIORITY_IDLE_LEAST;
}

static u64 many_active(u64 argument)
{
    u32 ack[ACTIVE];
    bool good;

    (void)argument;
    setup(ACTIVE, cpu_id());
    good = make_active(ACTIVE, ack);
    for (u32 n = 0; good && n < ACTIVE; n++) {
        gic_dir(ack[n * 7 % ACTIVE]);
        for (u32 i = 0; i < ACTIVE; i++)
            good &= active(i) == (i * 3 % ACTIVE > n); /* 3 is the inverse of 7 modulo 20 */
    }
    gic_set_eoimode(0);
    return good;
}

static void take_and_deactivate(u32 intid)
{
    gic_eoi(intid);
    gic_dir(intid);
    take(intid);
}

/* EOImode 1: the handler of gic.c ends with EOIR, so this one acknowledges by itself. */
static void irq_mode_1(struct context *ctx)
{
    u32 intid = gic_intid(gic_ack());

    (void)ctx;
    if (intid < INTID_SPURIOUS)
        take_and_deactivate(intid);
}

/* 20 active, then 20 others and the same 20 become pending: the others come, these when deactivated. */
static u64 active_and_pending(u64 argument)
{
    u32 ack[ACTIVE];
    bool good;

    (void)argument;
    setup(MANY, cpu_id());
    good = make_active(ACTIVE, ack);
    irq_handler = irq_mode_1;
    for (u32 n = 0; n < MANY; n++)
        gic_bit_write(SPI + scrambled(n), GIC_ISPENDR);
    irq_enable();
    good &= wait_taken(cpu_id(), MANY - ACTIVE) && each_once(cpu_id(), ACTIVE, MANY);
    for (u32 n = 0; n < ACTIVE; n++)
        good &= active(n) && gic_bit_read(SPI + n, GIC_ISPENDR);
    forget();
    irq_disable();
    for (u32 n = 0; n < ACTIVE; n++)
        gic_dir(ack[n * 7 % ACTIVE]);
    irq_enable();
    good &= wait_taken(cpu_id(), ACTIVE) && each_once(cpu_id(), 0, ACTIVE);
    irq_disable();
    for (u32 n = 0; n < ACTIVE; n++)
        good &= !active(n);
    irq_handler = NULL;
    gic_set_eoimode(0);
    return good;
}

/* 15 nested handlers hold 15 active ones; the outermost makes the others pending, which must wait for its end. */
static volatile u32 depth, deepest;

static void pend_the_others(void)
{
    for (u32 n = LEVELS; n < MANY; n++)
        gic_bit_write(SPI + n, GIC_ISPENDR);
}

static void nest(u32 intid)
{
    depth++;
    if (depth > deepest)
        deepest = depth;
    take(intid);
    if (intid == SPI)
        pend_the_others();
    if (intid + 1 < SPI + LEVELS) {
        gic_bit_write(intid + 1, GIC_ISPENDR);
        window();
    }
    depth--;
}

static u64 nested_over_pending(u64 argument)
{
    bool good;

    (void)argument;
    setup(MANY, cpu_id());
    for (u32 n = 0; n < MANY; n++)
        gic_set_priority(SPI + n, (u8)(n < LEVELS ? 0xe0 - 0x10 * n : 0xe0));
    for (u32 n = 0; n < LEVELS; n++)
        gic_attach(SPI + n, nest);
    depth = deepest = 0;
    gic_bit_write(SPI, GIC_ISPENDR);
    irq_enable();
    good = wait_taken(cpu_id(), MANY);
    irq_disable();
    good &= deepest == LEVELS && depth == 0 && each_once(cpu_id(), 0, MANY);
    for (u32 n = 0; n < LEVELS; n++)
        good &= taken[cpu_id()].intid[n] == SPI + n;
    return good;
}

/* Round the CPUs, from CPU 0, with all of them open. */
static void check_spread(void)
{
    bool good;

    forget();
    setup(MANY, 0);
    for (u32 n = 0; n < MANY; n++)
        gic_route(SPI + n, n % cpus);
    open_all();
    for (u32 n = 0; n < MANY; n++)
        gic_bit_write(SPI + scrambled(n), GIC_ISPENDR);
    good = wait_total(MANY);
    close_all();
    for (u32 n = 0; n < MANY; n++)
        good &= times_taken(n % cpus, SPI + n) == 1;
    check(good, "40 SPIs sent round the CPUs: each is taken once, where it was sent");
}

int main(void)
{
    gictest_start();
    each("40 pending SPIs are taken in order of priority, each once", pending_all, 0);
    each("40 pending SPIs are let in by PMR, level by level", level_by_level, 0);
    each("40 pending SPIs are acknowledged by hand in order of priority, each once", acknowledged_by_hand, 0);
    each("20 SPIs are active at once and deactivated in another order", many_active, 0);
    each("20 are active, 40 pending: 20 come at once, 20 when deactivated", active_and_pending, 0);
    each("15 nested handlers over 25 pending SPIs: these come last, each once", nested_over_pending, 0);
    check_spread();
    gictest_stop();
    return 0;
}
