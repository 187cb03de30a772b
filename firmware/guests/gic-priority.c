/* Priorities on every CPU: order, masks, grouping, and as many nested interrupts as there are sure to be levels.
 * A GIC has at least 16 priorities, so that all of these are multiples of 0x10 (IHI 0069 and IHI 0048,
 * "Interrupt prioritization"). 0xf0 is left out: where it is the lowest, PMR masks it always. */
#include "gictest.h"
#include "rt.h"
#include "timer.h"

#define LEVELS 15u
#define WAIT_US 1000u

/* The priority of nesting level n, the lowest first. */
static u8 level(u32 n)
{
    return (u8)(0xe0 - 0x10 * n);
}

/* A permutation of the SGIs 0 to 14, so that the order of INTIDs is not that of priorities. */
static u32 scrambled(u32 n)
{
    return n * 7 % LEVELS;
}

static void set_levels(void)
{
    for (u32 n = 0; n < LEVELS; n++) {
        gic_set_priority(n, level(n));
        gic_attach(n, take);
    }
}

static bool idle(void)
{
    return gic_running() >= PRIORITY_IDLE_LEAST;
}

static void raise_all(void)
{
    for (u32 n = 0; n < LEVELS; n++)
        gic_sgi_self(scrambled(n));
    gic_wait_pending(LEVELS - 1, WAIT_US);
}

static u64 taken_in_order(u64 argument)
{
    volatile struct taken *mine = &taken[cpu_id()];
    bool good;

    (void)argument;
    set_levels();
    raise_all();
    window();
    good = mine->count == LEVELS;
    for (u32 n = 0; good && n < LEVELS; n++)
        good = mine->intid[n] == LEVELS - 1 - n && mine->priority[n] == level(LEVELS - 1 - n);
    return good && idle();
}

static u64 highest_is_acknowledged(u64 argument)
{
    bool good = true;

    (void)argument;
    set_levels();
    raise_all();
    for (u32 n = LEVELS; n-- > 0;) {
        u32 highest, ack;

        good &= gic_wait_pending(n, WAIT_US);
        highest = gic_highest();
        ack = gic_ack();
        good &= highest == n && gic_intid(ack) == n;
        gic_eoi(ack);
    }
    return good && gic_highest() == INTID_SPURIOUS && gic_intid(gic_ack()) == INTID_SPURIOUS && idle();
}

/* By hand: acknowledged one above the other, then ended in reverse; RPR follows at each step. */
static u64 nested_by_hand(u64 levels)
{
    u32 ack[LEVELS];
    bool good = idle();

    set_levels();
    for (u32 n = 0; n < levels; n++) {
        gic_sgi_self(n);
        good &= gic_wait_pending(n, WAIT_US);
        ack[n] = gic_ack();
        good &= gic_intid(ack[n]) == n && gic_running() == level(n);
    }
    for (u32 n = (u32)levels; n-- > 0;) {
        good &= gic_running() == level(n);
        gic_eoi(ack[n]);
    }
    return good && idle();
}

/* By handlers: each raises the next with IRQs open. One CPU at a time does this. */
static struct nest {
    u32 depth, entered, left;
    bool in_order;
} nest;

static void go_deeper(u32 intid)
{
    nest.in_order &= nest.entered == intid && gic_running() == level(intid);
    nest.entered++;
    if (intid + 1 < nest.depth) {
        gic_sgi_self(intid + 1);
        window();
    }
    nest.left++;
    nest.in_order &= nest.entered == nest.depth && nest.left == nest.depth - intid && gic_running() == level(intid);
}

static u64 nested_by_handlers(u64 levels)
{
    set_levels();
    nest = (struct nest){.depth = (u32)levels, .in_order = true};
    for (u32 n = 0; n < levels; n++)
        gic_attach(n, go_deeper);
    gic_sgi_self(0);
    window();
    return nest.in_order && nest.left == levels && idle();
}

/* SGI 1 raises SGI 2 from within its handler; did SGI 2 come before the handler was over? */
static u32 preempted;

static void raise_inner(u32 intid)
{
    u32 before = taken[cpu_id()].count;

    (void)intid;
    gic_sgi_self(2);
    window();
    preempted = taken[cpu_id()].count - before;
}

static bool inner_comes(u8 outer, u8 inner, u32 during, u32 in_all)
{
    forget();
    gic_attach(1, raise_inner);
    gic_attach(2, take);
    gic_set_priority(1, outer);
    gic_set_priority(2, inner);
    gic_sgi_self(1);
    window();
    return preempted == during && taken[cpu_id()].count == in_all;
}

static u64 higher_preempts(u64 argument)
{
    argument = true;
    for (u32 outer = 1; outer < LEVELS; outer++)
        argument &= inner_comes((u8)(0x10 * outer), (u8)(0x10 * outer - 0x10), 1, 1);
    return argument;
}

static u64 same_waits(u64 argument)
{
    argument = true;
    for (u32 n = 0; n < LEVELS; n++)
        argument &= inner_comes(level(n), level(n), 0, 1);
    return argument;
}

static u64 lower_waits(u64 argument)
{
    argument = true;
    for (u32 n = 1; n < LEVELS; n++)
        argument &= inner_comes(level(n), level(n - 1), 0, 1);
    return argument;
}

static u64 same_is_masked(u64 argument)
{
    bool good = true;

    (void)argument;
    set_levels();
    for (u32 n = 0; n < LEVELS; n++) {
        forget();
        gic_set_mask(level(n));
        gic_sgi_self(n);
        window();
        good &= took_nothing(cpu_id()) && gic_intid(gic_ack()) == INTID_SPURIOUS;
        gic_set_mask((u8)(level(n) + 0x10));
        window();
        good &= took_only(cpu_id(), n, 1);
    }
    gic_set_mask(0xff);
    return good;
}

static void mask_within(u32 intid)
{
    gic_set_mask(0x40);
    raise_inner(intid);
}

/* SGI 2 could preempt SGI 1, but for the PMR that SGI 1's handler sets. */
static u64 masked_within_a_handler(u64 argument)
{
    bool good;

    (void)argument;
    gic_attach(1, mask_within);
    gic_attach(2, take);
    gic_set_priority(1, 0xa0);
    gic_set_priority(2, 0x60);
    gic_sgi_self(1);
    window();
    good = preempted == 0 && took_nothing(cpu_id());
    gic_set_mask(0xff);
    window();
    return good && took_only(cpu_id(), 2, 1);
}

/* With ``bits`` bits of subpriority: the lowest and the highest of a group, and the next group. */
static u64 groups_preempt(u64 bits)
{
    u32 size = 1u << bits, lowest = bits == 7 ? level(0) : 2 * size - 0x10;
    bool good;

    gic_set_subpriority((u32)bits);
    good = inner_comes((u8)lowest, (u8)size, 0, 1);         /* the same group */
    good &= inner_comes((u8)size, (u8)(size - 0x10), 1, 1); /* the one above */
    gic_set_subpriority(0);
    return good;
}

/* Within a group the subpriority still orders what is pending. */
static u64 subpriority_orders(u64 bits)
{
    volatile struct taken *mine = &taken[cpu_id()];
    bool good;

    set_levels();
    gic_set_subpriority((u32)bits);
    raise_all();
    window();
    good = mine->count == LEVELS;
    for (u32 n = 0; good && n < LEVELS; n++)
        good = mine->intid[n] == LEVELS - 1 - n;
    gic_set_subpriority(0);
    return good;
}

int main(void)
{
    gictest_start();
    each("15 pending interrupts are taken in order of priority", taken_in_order, 0);
    each("HPPIR names what IAR then acknowledges, and 1023 at the end", highest_is_acknowledged, 0);
    each("8 interrupts are acknowledged one above the other; RPR follows up and down", nested_by_hand, 8);
    each("and so are 15", nested_by_hand, LEVELS);
    each("8 handlers nest and end in reverse order", nested_by_handlers, 8);
    each("and so do 15", nested_by_handlers, LEVELS);
    each("a higher priority preempts, at each of 14 levels", higher_preempts, 0);
    each("the same priority waits for the end, at each of 15", same_waits, 0);
    each("a lower one waits for the end, at each of 14", lower_waits, 0);
    each("PMR masks its own priority and lets the next higher through, at each of 15", same_is_masked, 0);
    each("a PMR set in a handler holds back what could preempt", masked_within_a_handler, 0);
    each("5 bits of subpriority: no preemption within a group, but by the one above", groups_preempt, 5);
    each("6 bits", groups_preempt, 6);
    each("7 bits", groups_preempt, 7);
    each("7 bits: the subpriority orders what is pending", subpriority_orders, 7);
    gictest_stop();
    return 0;
}
