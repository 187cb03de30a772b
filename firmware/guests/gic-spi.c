/* SPIs to each CPU: edges made by register, and the level of a device that comes again until it is cleared there.
 * IHI 0069, GICD_IROUTER, GICD_ICFGR; IHI 0048, 4.3.12 (GICD_ITARGETSR) and 4.3.13. */
#include "gictest.h"
#include "rt.h"
#include "timer.h"
#include "uart.h"

#define SPI     SPI_FREE
#define MANY    32u
#define AGAIN   4u
#define WAIT_US 1000u
#define SOON_US 2u

static bool only_on(u32 cpu, u32 intid, u32 times)
{
    bool good = true;

    for (u32 other = 0; other < cpus; other++)
        good &= took_only(other, intid, other == cpu ? times : 0);
    return good;
}

/* To each CPU from each CPU: where it is made pending does not matter. */
static u64 edge_to_each(u64 argument)
{
    (void)argument;
    for (u32 cpu = 0; cpu < cpus; cpu++) {
        forget();
        spi_setup(SPI, true, cpu);
        gic_bit_write(SPI, GIC_ISPENDR);
        if (!wait_taken(cpu, 1) || !only_on(cpu, SPI, 1))
            return false;
    }
    return true;
}

static u64 many_edges(u64 argument)
{
    bool good;

    (void)argument;
    for (u32 n = 0; n < MANY; n++)
        spi_setup(SPI + n, true, cpu_id());
    for (u32 n = 0; n < MANY; n++)
        gic_bit_write(SPI + n, GIC_ISPENDR);
    good = wait_taken(cpu_id(), MANY);
    for (u32 n = 0; n < MANY; n++)
        good &= times_taken(cpu_id(), SPI + n) == 1;
    return good;
}

static u64 edges_merge(u64 argument)
{
    (void)argument;
    spi_setup(SPI, true, cpu_id());
    irq_disable();
    for (u32 n = 0; n < 3; n++)
        gic_bit_write(SPI, GIC_ISPENDR);
    irq_enable();
    wait_taken(cpu_id(), 1);
    return only_on(cpu_id(), SPI, 1);
}

static u64 config_reads_back(u64 argument)
{
    u64 reg = GICD_BASE + GIC_ICFGR + SPI / 16 * 4;
    bool good;

    (void)argument;
    spi_setup(SPI, true, cpu_id());
    good = read32(reg) >> (SPI % 16 * 2 + 1) & 1;
    spi_setup(SPI, false, cpu_id());
    return good && !(read32(reg) >> (SPI % 16 * 2 + 1) & 1);
}

static void clear_and_take(u32 intid)
{
    uart_clear_tx();
    take(intid);
}

static void clear_late(u32 intid)
{
    take(intid);
    if (taken[cpu_id()].count == AGAIN)
        uart_clear_tx();
}

static void uart_setup(irq_function handler)
{
    uart_mask_tx();
    spi_setup(INTID_UART, false, cpu_id());
    gic_attach(INTID_UART, handler);
}

static bool uart_done(bool good)
{
    uart_mask_tx();
    gic_disable(INTID_UART);
    return good;
}

static u64 level_once(u64 argument)
{
    (void)argument;
    uart_setup(clear_and_take);
    uart_raise_tx();
    wait_taken(cpu_id(), 1);
    return uart_done(only_on(cpu_id(), INTID_UART, 1));
}

static u64 level_again(u64 argument)
{
    (void)argument;
    uart_setup(clear_late);
    uart_raise_tx();
    wait_taken(cpu_id(), AGAIN);
    return uart_done(only_on(cpu_id(), INTID_UART, AGAIN));
}

/* Raised again after the first was served: sampled anew. */
static u64 level_raised_anew(u64 argument)
{
    bool good = true;

    (void)argument;
    uart_setup(clear_and_take);
    for (u32 n = 1; n <= AGAIN; n++) {
        uart_raise_tx();
        good &= wait_taken(cpu_id(), n);
    }
    return uart_done(good && only_on(cpu_id(), INTID_UART, AGAIN));
}

/* Cleared and raised again within the handler: the line is high at the end, so it comes again. */
static void raise_within(u32 intid)
{
    uart_clear_tx();
    if (took_nothing(cpu_id()))
        uart_raise_tx();
    take(intid);
}

static u64 level_raised_within(u64 argument)
{
    (void)argument;
    uart_setup(raise_within);
    uart_raise_tx();
    wait_taken(cpu_id(), 2);
    return uart_done(only_on(cpu_id(), INTID_UART, 2));
}

static u64 level_follows_the_line(u64 argument)
{
    bool good;

    (void)argument;
    irq_disable();
    uart_setup(take);
    uart_clear_tx();
    good = !gic_bit_read(INTID_UART, GIC_ISPENDR);
    good &= uart_raise_tx() && gic_bit_read(INTID_UART, GIC_ISPENDR);
    uart_clear_tx();
    good &= !gic_bit_read(INTID_UART, GIC_ISPENDR);
    delay_us(10);
    irq_enable();
    delay_us(20);
    return uart_done(good && only_on(cpu_id(), INTID_UART, 0));
}

/* By hand, EOImode 0: the end with the line high makes it pending at once. */
static u64 pending_after_the_end(u64 argument)
{
    bool good = true;

    (void)argument;
    irq_disable();
    uart_setup(take);
    uart_raise_tx();
    for (u32 n = 0; n < AGAIN; n++) {
        u32 ack;

        good &= gic_wait_pending(INTID_UART, n ? SOON_US : WAIT_US);
        ack = gic_ack();
        good &= gic_intid(ack) == INTID_UART && gic_highest() == INTID_SPURIOUS;
        if (n == AGAIN - 1)
            uart_clear_tx();
        gic_eoi(ack);
    }
    delay_us(10);
    good &= gic_highest() == INTID_SPURIOUS;
    irq_enable();
    return uart_done(good && only_on(cpu_id(), INTID_UART, 0));
}

/* The same with EOImode 1: not after the priority drop, but after the deactivation. */
static u64 pending_after_deactivation(u64 argument)
{
    u32 ack, again;
    bool good;

    (void)argument;
    irq_disable();
    uart_setup(take);
    gic_set_eoimode(1);
    uart_raise_tx();
    good = gic_wait_pending(INTID_UART, WAIT_US);
    ack = gic_ack();
    gic_eoi(ack);
    delay_us(10);
    good &= gic_highest() == INTID_SPURIOUS;
    gic_dir(ack);
    good &= gic_wait_pending(INTID_UART, SOON_US);
    again = gic_ack();
    uart_clear_tx();
    gic_eoi(again);
    gic_dir(again);
    good &= gic_intid(again) == INTID_UART;
    delay_us(10);
    good &= gic_highest() == INTID_SPURIOUS;
    gic_set_eoimode(0);
    irq_enable();
    return uart_done(good);
}

int main(void)
{
    gictest_start();
    open_all();
    each("an edge made here arrives at each CPU that it is sent to, and only there", edge_to_each, 0);
    each("32 SPIs sent here all arrive, once", many_edges, 0);
    each("an edge made again while it is pending is taken once", edges_merge, 0);
    each("ICFGR makes an SPI edge-triggered and level-sensitive", config_reads_back, 0);
    each("a level cleared in the handler is taken once", level_once, 0);
    each("a level that stays comes again, until it is cleared, 4 times", level_again, 0);
    each("a level raised anew is taken anew, 4 times", level_raised_anew, 0);
    each("a level cleared and raised within the handler is taken once more", level_raised_within, 0);
    each("the pending bit follows the line, and what was cleared in time is not taken", level_follows_the_line, 0);
    each("EOIR with the line high makes it pending again at once, 4 times", pending_after_the_end, 0);
    each("EOImode 1: DIR with the line high does so, EOIR does not", pending_after_deactivation, 0);
    gictest_stop();
    return 0;
}
