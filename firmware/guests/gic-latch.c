/* Interrupts of timers that are made pending by ISPENDR while they are active: the latch brings them once more, as soon as they are
 * inactive (IHI 0069 4.1.2: from active and pending to pending), whatever the line does. On a GICv3, nothing between
 * the end of the interrupt and the second one leaves the guest for a hypervisor. */
#include "gictest.h"
#include "rt.h"
#include "timer.h"

#define WAIT_US 1000u

static const struct timer *const timers[2] = {&virtual_timer, &physical_timer};

static void spin(u64 rounds) { __asm__ volatile("1: subs %0, %0, #1\n\tb.ne 1b" : "+r"(rounds) : : "cc"); }

static const struct timer *timer_of(u32 intid) { return timers[intid == INTID_PTIMER]; }

/* Handlers: each lowers its line at some point; the first time it latches. */
static void latch(u32 intid)
{
    if (took_nothing(cpu_id()))
        gic_bit_write(intid, GIC_ISPENDR);
}

static void off_then_latch(u32 intid)
{
    timer_of(intid)->set_ctl(0);
    latch(intid);
    take(intid);
}

static void latch_then_off(u32 intid)
{
    latch(intid);
    timer_of(intid)->set_ctl(0);
    take(intid);
}

/* The line stays high over the first end, and falls in the second handler. */
static void latch_and_off_next_time(u32 intid)
{
    if (!took_nothing(cpu_id()))
        timer_of(intid)->set_ctl(0);
    latch(intid);
    take(intid);
}

/* The line falls and rises again. */
static void latch_and_raise(u32 intid)
{
    timer_of(intid)->set_ctl(0);
    if (took_nothing(cpu_id())) {
        gic_bit_write(intid, GIC_ISPENDR);
        timer_of(intid)->set_ctl(CTL_ENABLE);
    }
    take(intid);
}

static void latch_and_clear(u32 intid)
{
    timer_of(intid)->set_ctl(0);
    latch(intid);
    gic_bit_write(intid, GIC_ICPENDR);
    take(intid);
}

static void prepare(u32 intid, irq_function handler)
{
    irq_disable();
    timer_of(intid)->set_ctl(0);
    gic_enable(intid, handler);
    timer_of(intid)->set_cval(0);
}

/* Taken so many times within a few instructions; no more come later, nor when something makes the guest exit. */
static bool taken_soon(u32 intid, irq_function handler, u32 times)
{
    bool good;

    prepare(intid, handler);
    timer_of(intid)->set_ctl(CTL_ENABLE);
    irq_enable();
    spin(50);
    irq_disable();
    good = took_only(cpu_id(), intid, times);
    window();
    return good && took_only(cpu_id(), intid, times) && !gic_bit_read(intid, GIC_ISPENDR);
}

static u64 comes_once_more(u64 intid) { return taken_soon((u32)intid, off_then_latch, 2); }
static u64 comes_if_the_line_falls_later(u64 intid) { return taken_soon((u32)intid, latch_then_off, 2); }
static u64 comes_once_with_the_line(u64 intid) { return taken_soon((u32)intid, latch_and_off_next_time, 2); }
static u64 comes_once_with_a_new_level(u64 intid) { return taken_soon((u32)intid, latch_and_raise, 2); }
static u64 is_cleared(u64 intid) { return taken_soon((u32)intid, latch_and_clear, 1); }

/* Step by step, with IRQs masked: pending appears at the deactivation, which is DIR's with EOImode 1. */
static u64 pends_at_deactivation(u64 intid)
{
    const struct timer *t = timer_of((u32)intid);
    bool good;
    u32 ack;

    prepare((u32)intid, off_then_latch);
    gic_set_eoimode(1);
    t->set_ctl(CTL_ENABLE);
    good = gic_wait_pending((u32)intid, WAIT_US);
    ack = gic_ack();
    t->set_ctl(0);
    gic_bit_write((u32)intid, GIC_ISPENDR);
    gic_eoi(ack);
    good &= gic_highest() == INTID_SPURIOUS && gic_running() >= PRIORITY_IDLE_LEAST;
    gic_dir(ack);
    good &= gic_highest() == intid;
    ack = gic_ack();
    good &= gic_intid(ack) == intid && gic_highest() == INTID_SPURIOUS;
    gic_eoi(ack);
    gic_dir(ack);
    good &= gic_highest() == INTID_SPURIOUS;
    gic_set_eoimode(0);
    return good;
}

/* Disabled over the end of interrupt, the latch waits until it is enabled. */
static u64 waits_while_disabled(u64 intid)
{
    const struct timer *t = timer_of((u32)intid);
    bool good;
    u32 ack;

    prepare((u32)intid, off_then_latch);
    t->set_ctl(CTL_ENABLE);
    good = gic_wait_pending((u32)intid, WAIT_US);
    ack = gic_ack();
    t->set_ctl(0);
    gic_bit_write((u32)intid, GIC_ISPENDR);
    gic_disable((u32)intid);
    gic_eoi(ack);
    spin(50);
    good &= gic_highest() == INTID_SPURIOUS;
    gic_bit_write((u32)intid, GIC_ISENABLER);
    good &= gic_highest() == intid;
    good &= gic_intid(ack = gic_ack()) == intid;
    gic_eoi(ack);
    return good && gic_highest() == INTID_SPURIOUS;
}

/* A timer that fires while its interrupt is active by a latch alone. */
static u64 the_line_rises_meanwhile(u64 intid)
{
    const struct timer *t = timer_of((u32)intid);
    bool good;
    u32 ack;

    prepare((u32)intid, off_then_latch);
    gic_bit_write((u32)intid, GIC_ISPENDR);
    good = gic_highest() == intid;
    ack = gic_ack();
    t->set_ctl(CTL_ENABLE);
    spin(50);
    good &= gic_highest() == INTID_SPURIOUS;
    gic_eoi(ack);
    good &= gic_highest() == intid;
    t->set_ctl(0);
    return good && gic_highest() == INTID_SPURIOUS && gic_ack() == INTID_SPURIOUS;
}

/* The same for an SPI of which only software knows, edge-triggered or level-sensitive. */
static void latch_and_take(u32 intid)
{
    latch(intid);
    take(intid);
}

static u64 an_spi_comes_once_more(u64 edge)
{
    bool good;

    irq_disable();
    spi_setup(SPI_FREE, edge, cpu_id());
    gic_attach(SPI_FREE, latch_and_take);
    gic_bit_write(SPI_FREE, GIC_ISPENDR);
    irq_enable();
    spin(50);
    irq_disable();
    good = took_only(cpu_id(), SPI_FREE, 2);
    window();
    return good && took_only(cpu_id(), SPI_FREE, 2);
}

static void both(const char *sentence, u64 (*holds)(u64 intid))
{
    for (u32 which = 0; which < 2; which++) {
        note("%s timer", timers[which]->name);
        judge_on_v3(count_cpus(holds, timers[which]->intid), sentence);
    }
}

int main(void)
{
    gictest_start();
    both("latched in its handler, the line low: it comes once more", comes_once_more);
    both("latched, then the line falls: once more", comes_if_the_line_falls_later);
    both("latched, the line high until the second time: once more", comes_once_with_the_line);
    both("latched, and the line rises anew: once more", comes_once_with_a_new_level);
    both("ICPENDR in the handler takes the latch back", is_cleared);
    both("EOImode 1: it pends when DIR deactivates it", pends_at_deactivation);
    both("disabled, the latch waits", waits_while_disabled);
    both("active by a latch, the line rises: pending at its end, until the line falls", the_line_rises_meanwhile);
    each("an edge-triggered SPI latched in its handler comes once more", an_spi_comes_once_more, true);
    each("a level-sensitive one too", an_spi_comes_once_more, false);
    gictest_stop();
    return 0;
}
