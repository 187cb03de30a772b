/* Actions of one CPU: waits for the virtual counter and the virtual timer, and interrupts. */
#include "bench_actions.h"
#include "gic.h"
#include "rt.h"
#include "timer.h"

#define GICD_TYPER (GICD_BASE + 4)
#define DELAY_US   1000u
#define SHOT_US    20u /* from the programming of a timer to its interrupt */

u32 pending_at_once = 4;
static volatile u64 fired;
static u64 last;

u64 poll_1ms(u64 count)
{
    u64 ticks = ticks_of_us(DELAY_US), good = 0;

    for (u64 n = 0; n < count; n++) {
        u64 start = virtual_count();

        while (virtual_count() - start < ticks)
            ;
        good += virtual_count() - start >= ticks;
    }
    return good;
}

static void on_shot(u32 intid)
{
    (void)intid;
    virtual_timer.set_ctl(0);
    fired++;
}

u64 one_shot_asleep(u64 count)
{
    fired = 0;
    gic_enable(INTID_VTIMER, on_shot);
    for (u64 n = 0; n < count; n++) {
        virtual_timer.set_cval(virtual_count() + ticks_of_us(SHOT_US));
        virtual_timer.set_ctl(CTL_ENABLE);
        while (fired == n) {
            wfi();
            irq_enable();
            irq_disable();
        }
    }
    return fired;
}

u64 one_shot_polled(u64 count)
{
    u64 good = 0;

    for (u64 n = 0; n < count; n++) {
        u64 end = virtual_count() + ticks_of_us(SHOT_US);

        virtual_timer.set_cval(end);
        virtual_timer.set_ctl(CTL_ENABLE | CTL_IMASK);
        while (!(read_sysreg(cntv_ctl_el0) & CTL_ISTATUS))
            ;
        good += virtual_count() >= end;
        virtual_timer.set_ctl(0);
    }
    return good;
}

/* The timer's line stays high until the last interrupt. */
static void on_storm(u32 intid)
{
    (void)intid;
    if (++fired == last)
        virtual_timer.set_ctl(0);
}

u64 storm(u64 count)
{
    fired = 0;
    last = count;
    gic_enable(INTID_VTIMER, on_storm);
    virtual_timer.set_cval(0);
    virtual_timer.set_ctl(CTL_ENABLE);
    irq_enable();
    while (READ_ONCE(fired) < count)
        yield();
    irq_disable();
    return fired;
}

static u32 spis_of_gic(void)
{
    u32 intids = ((read32(GICD_TYPER) & 31) + 1) * 32;

    return (intids > 1020 ? 1020 : intids) - 32;
}

/* Write the word for each of the first ``spis`` SPIs into a register that has ``bits`` for an interrupt. */
static void write_spis(u32 offset, u32 bits, u32 word, u32 spis)
{
    u64 first = GICD_BASE + offset + 32 * bits / 8;

    for (u32 n = 0; n < spis * bits; n += 32)
        write32(first + n / 8, spis * bits - n < 32 ? word & ((1u << (spis * bits - n)) - 1) : word);
}

static void set_up_spis(u32 spis)
{
    write_spis(GIC_IGROUPR, 1, gic_version == 3 ? ~0u : 0, spis);
    write_spis(GIC_IPRIORITYR, 8, PRIORITY_DEFAULT * 0x01010101u, spis);
    write_spis(GIC_ICFGR, 2, 0xaaaaaaaau, spis);
    for (u32 n = 0; n < spis; n++)
        gic_route(32 + n, cpu_id());
    write_spis(GIC_ISENABLER, 1, ~0u, spis);
}

/* Acknowledge and end what is pending, with IRQs masked. */
static u64 drain(u64 most)
{
    u64 good = 0;

    for (u64 n = 0; n < most; n++) {
        u32 ack = gic_ack();

        good += gic_intid(ack) - 32 < pending_at_once;
        gic_eoi(ack);
    }
    return good;
}

u64 acknowledge(u64 count)
{
    u64 good = 0;

    if (pending_at_once < 1 || pending_at_once > spis_of_gic())
        die("the GIC has %u SPIs, not %u", spis_of_gic(), pending_at_once);
    set_up_spis(pending_at_once);
    for (u64 done = 0; done < count; done += pending_at_once) {
        u32 spis = count - done < pending_at_once ? (u32)(count - done) : pending_at_once;

        write_spis(GIC_ISPENDR, 1, ~0u, spis);
        good += drain(spis);
    }
    write_spis(GIC_ICENABLER, 1, ~0u, pending_at_once);
    return good;
}
