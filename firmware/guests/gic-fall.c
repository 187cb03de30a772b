/* Lines that fall before their interrupt is acknowledged. A level-sensitive interrupt is pending while its line is high
 * and no longer (IHI 0069 4.1.2; IHI 0048 3.2.2): once a timer that has fired while IRQs are masked is switched off, masked or set
 * to a later time, HPPIR does not name it, ISR_EL1.I is 0, IAR gives 1023 and no handler runs. On a GICv3, nothing
 * between the write and the look leaves the guest for a hypervisor. */
#include "gictest.h"
#include "rt.h"
#include "timer.h"
#include "uart.h"

#define WAIT_US   1000u
#define SOON_US   2u
#define LATER_US  1000000u
#define ISR_I     (1ul << 7)
#define FLICKERS  4u

static const struct timer *const timers[2] = {&virtual_timer, &physical_timer};

static void by_enable(const struct timer *t) { t->set_ctl(0); }
static void by_mask(const struct timer *t) { t->set_ctl(CTL_ENABLE | CTL_IMASK); }
static void by_cval(const struct timer *t) { t->set_cval(t->count() + ticks_of_us(LATER_US)); }
static void by_tval(const struct timer *t) { t->set_tval(ticks_of_us(LATER_US)); }

static const struct way {
    const char *name;
    void (*lower)(const struct timer *t);
} ways[] = {
    {"ENABLE = 0", by_enable}, {"IMASK = 1", by_mask}, {"a later CVAL", by_cval}, {"a later TVAL", by_tval},
};
#define WAYS (sizeof ways / sizeof ways[0])

/* An argument of a check: which timer, and in which way its line falls. */
static u64 pair(u32 which, u32 way) { return which * WAYS + way; }
static const struct timer *timer_of(u64 argument) { return timers[argument / WAYS]; }
static void lower(u64 argument) { ways[argument % WAYS].lower(timer_of(argument)); }

/* Instructions that do nothing, and read no clock. */
static void spin(u64 rounds) { __asm__ volatile("1: subs %0, %0, #1\n\tb.ne 1b" : "+r"(rounds) : : "cc"); }

static void off_and_take(u32 intid)
{
    timers[intid == INTID_PTIMER]->set_ctl(0);
    take(intid);
}

/* IRQs masked, both timers off, their interrupts enabled. */
static void prepare(void)
{
    irq_disable();
    for (u32 n = 0; n < 2; n++) {
        timers[n]->set_ctl(0);
        gic_enable(timers[n]->intid, off_and_take);
    }
}

/* Fired, and its line is high. */
static bool fire(const struct timer *t)
{
    t->set_tval(ticks_of_us(SOON_US));
    t->set_ctl(CTL_ENABLE);
    return gic_wait_pending(t->intid, WAIT_US) && read_sysreg(isr_el1) & ISR_I;
}

static bool nothing_is_pending(void)
{
    bool good = !(read_sysreg(isr_el1) & ISR_I);

    good &= gic_highest() == INTID_SPURIOUS;
    return good && gic_ack() == INTID_SPURIOUS && gic_running() >= PRIORITY_IDLE_LEAST;
}

static u64 is_not_pending(u64 argument)
{
    bool good;

    prepare();
    good = fire(timer_of(argument));
    lower(argument);
    good &= nothing_is_pending();
    spin(100);
    good &= nothing_is_pending();
    irq_enable();
    spin(100);
    irq_disable();
    good &= took_nothing(cpu_id()) && !gic_bit_read(timer_of(argument)->intid, GIC_ISPENDR);
    timer_of(argument)->set_ctl(0);
    return good;
}

/* Nobody looks in between: what the guest sees first is its handler. */
static u64 is_not_taken(u64 argument)
{
    prepare();
    timer_of(argument)->set_cval(0);
    timer_of(argument)->set_ctl(CTL_ENABLE);
    spin(100);
    lower(argument);
    irq_enable();
    spin(1000);
    irq_disable();
    timer_of(argument)->set_ctl(0);
    return took_nothing(cpu_id());
}

static u64 comes_when_it_rises_again(u64 argument)
{
    const struct timer *t = timer_of(argument);
    bool good;

    prepare();
    good = fire(t);
    for (u32 n = 0; n < FLICKERS; n++) {
        lower(argument);
        good &= nothing_is_pending();
        t->set_cval(0);
        t->set_ctl(CTL_ENABLE);
        good &= gic_highest() == t->intid;
    }
    window();
    return good && took_only(cpu_id(), t->intid, 1);
}

/* The line falls while PMR holds the interrupt back: it does not come when PMR lets it. */
static u64 is_gone_behind_the_mask(u64 argument)
{
    bool good;

    prepare();
    good = fire(timer_of(argument));
    gic_set_mask(PRIORITY_DEFAULT);
    irq_enable();
    spin(100);
    lower(argument);
    gic_set_mask(0xff);
    spin(100);
    irq_disable();
    timer_of(argument)->set_ctl(0);
    return good && took_nothing(cpu_id());
}

/* Of two lines one falls: the other is the highest pending interrupt, and alone is taken. */
static u64 the_other_stays(u64 argument)
{
    const struct timer *t = timer_of(argument), *other = timers[t == &virtual_timer];
    bool good;

    prepare();
    gic_set_priority(t->intid, PRIORITY_DEFAULT - 0x10);
    good = fire(other) && fire(t);
    lower(argument);
    good &= gic_highest() == other->intid && read_sysreg(isr_el1) & ISR_I;
    window();
    good &= took_only(cpu_id(), other->intid, 1);
    gic_set_priority(t->intid, PRIORITY_DEFAULT);
    t->set_ctl(0);
    return good;
}

/* Acknowledged while the line is high, ended when it is low, and no more. */
static u64 is_over_with_its_end(u64 argument)
{
    const struct timer *t = timer_of(argument);
    bool good;
    u32 ack;

    prepare();
    good = fire(t);
    ack = gic_ack();
    lower(argument);
    good &= gic_intid(ack) == t->intid && gic_highest() == INTID_SPURIOUS;
    gic_eoi(ack);
    good &= nothing_is_pending();
    window();
    t->set_ctl(0);
    return good && took_nothing(cpu_id());
}

/* The latch that ISPENDR sets keeps it pending without the line, until it is taken or cleared. */
static u64 the_latch_stays(u64 argument)
{
    const struct timer *t = timer_of(argument);
    bool good;

    prepare();
    good = fire(t);
    gic_bit_write(t->intid, GIC_ISPENDR);
    lower(argument);
    good &= gic_highest() == t->intid && read_sysreg(isr_el1) & ISR_I;
    window();
    return good && took_only(cpu_id(), t->intid, 1) && nothing_is_pending();
}

static u64 the_latch_is_cleared(u64 argument)
{
    const struct timer *t = timer_of(argument);
    bool good;

    prepare();
    good = fire(t);
    gic_bit_write(t->intid, GIC_ISPENDR);
    lower(argument);
    gic_bit_write(t->intid, GIC_ICPENDR);
    good &= nothing_is_pending();
    window();
    t->set_ctl(0);
    return good && took_nothing(cpu_id());
}

/* The line of a device, which the GIC is told by somebody else than this CPU. */
static u64 a_device_too(u64 mask_only)
{
    bool good;

    irq_disable();
    spi_setup(INTID_UART, false, cpu_id());
    good = uart_raise_tx() && gic_wait_pending(INTID_UART, WAIT_US);
    if (mask_only)
        uart_mask_tx();
    else
        uart_clear_tx();
    good &= nothing_is_pending();
    window();
    good &= took_nothing(cpu_id());
    gic_disable(INTID_UART);
    uart_mask_tx();
    uart_clear_tx();
    return good;
}

static void by_each_way(u32 which, const char *sentence, u64 (*holds)(u64 argument))
{
    for (u32 way = 0; way < WAYS; way++)
        check_equal(count_cpus(holds, pair(which, way)), cpus, "%s, %s: %s", timers[which]->name, ways[way].name, sentence);
}

int main(void)
{
    gictest_start();
    for (u32 which = 0; which < 2; which++) {
        by_each_way(which, "its interrupt is not pending", is_not_pending);
        by_each_way(which, "nor taken", is_not_taken);
        by_each_way(which, "each time that it rises it is pending", comes_when_it_rises_again);
        by_each_way(which, "it is gone behind PMR", is_gone_behind_the_mask);
        by_each_way(which, "the other timer's interrupt stays", the_other_stays);
        by_each_way(which, "in its handler: it is over with the end", is_over_with_its_end);
        judge_on_v3(count_cpus(the_latch_stays, pair(which, 0)), "a latch of ISPENDR outlives the line");
        judge_on_v3(count_cpus(the_latch_is_cleared, pair(which, 0)), "and ICPENDR ends it");
    }
    each("the UART: cleared at the source, its interrupt is not pending", a_device_too, false);
    each("and masked there, neither", a_device_too, true);
    gictest_stop();
    return 0;
}
