/* An SPI sent elsewhere while it is pending goes there; while it is active it stays where it is, and the next one
 * goes there. IHI 0048, 4.3.12: a change of the targets has effect on a pending interrupt, and none on an active
 * one; IHI 0069, GICD_IROUTER<n>. With one CPU the new target is the old one.
 *
 * QEMU's GICv2 keeps the pending and the active state of an edge-triggered SPI by CPU, so that what is said of
 * those is not judged on a GICv2. A level it moves as it should. */
#include "gictest.h"
#include "rt.h"
#include "timer.h"
#include "uart.h"

#define SPI     SPI_FREE
#define MANY    24u
#define TURNS   32u
#define WAIT_US 1000u

static u64 open_here(u64 argument) { irq_enable(); return argument; }

/* All of ``count`` at ``cpu``, once each, and nothing elsewhere. */
static bool all_on(u32 cpu, u32 first, u32 count)
{
    bool good = total_taken() == count;

    for (u32 n = 0; n < count; n++)
        good &= times_taken(cpu, first + n) == 1;
    return good;
}

/* Less patience where it may well not come. */
static bool wait_there(u32 cpu, u32 count)
{
    return wait_value(&taken[cpu].count, count, gic_version == 3 ? PATIENCE_US : WAIT_US);
}

static u64 pend(u64 intid)
{
    gic_bit_write((u32)intid, GIC_ISPENDR);
    delay_us(5);
    return 0;
}

static u64 highest_is(u64 intid) { return gic_wait_pending((u32)intid, WAIT_US); }

/* Pending at ``from``, whose IRQs are masked, these are sent to ``to``: they come there, and nowhere else. */
static bool come_at(u32 from, u32 to, u32 first, u32 count)
{
    bool good;

    for (u32 n = 0; n < count; n++)
        gic_route(first + n, to);
    on_cpu(to, open_here, 0);
    good = wait_there(to, count);
    delay_us(20);
    good &= all_on(to, first, count);
    on_cpu(from, open_here, 0);
    delay_us(20);
    good &= all_on(to, first, count);
    close_all();
    return good;
}

static bool edges_move(u32 from, u32 to, u32 count)
{
    forget();
    for (u32 n = 0; n < count; n++)
        spi_setup(SPI + n, true, from);
    for (u32 n = 0; n < count; n++)
        on_cpu(from, pend, SPI + n);
    return come_at(from, to, SPI, count);
}

static void uart_off_and_take(u32 intid)
{
    uart_mask_tx();
    take(intid);
}

static bool level_moves(u32 from, u32 to)
{
    bool good;

    forget();
    uart_mask_tx();
    spi_setup(INTID_UART, false, from);
    gic_attach(INTID_UART, uart_off_and_take);
    uart_raise_tx();
    good = on_cpu(from, highest_is, INTID_UART) != 0;
    good &= come_at(from, to, INTID_UART, 1);
    gic_disable(INTID_UART);
    return good;
}

static u32 count_edges(u32 count)
{
    u32 good = 0;

    for (u32 from = 0; from < cpus; from++)
        good += edges_move(from, next_cpu(from), count);
    return good;
}

static u32 count_levels(void)
{
    u32 good = 0;

    for (u32 from = 0; from < cpus; from++)
        good += level_moves(from, next_cpu(from));
    return good;
}

static u64 acknowledge(u64 argument)
{
    u32 ack = gic_wait_pending(SPI, WAIT_US) ? gic_ack() : INTID_SPURIOUS;

    (void)argument;
    return gic_intid(ack);
}

static u64 end(u64 intid)
{
    gic_eoi((u32)intid);
    return gic_running() >= PRIORITY_IDLE_LEAST;
}

static u64 sees_nothing(u64 argument)
{
    (void)argument;
    return gic_highest() == INTID_SPURIOUS;
}

static u64 is_active(u64 intid) { return gic_bit_read((u32)intid, GIC_ISACTIVER); }

/* Active at ``from``, sent to ``to``, and pending again: that one waits for the end, and then comes at ``to``. */
static bool stays(u32 from, u32 to)
{
    bool good;

    forget();
    close_all();
    spi_setup(SPI, true, from);
    gic_bit_write(SPI, GIC_ISPENDR);
    good = on_cpu(from, acknowledge, 0) == SPI;
    gic_route(SPI, to);
    good &= on_cpu(from, is_active, SPI) && on_cpu(to, is_active, SPI);
    gic_bit_write(SPI, GIC_ISPENDR);
    delay_us(20);
    for (u32 cpu = 0; cpu < cpus; cpu++)
        good &= on_cpu(cpu, sees_nothing, 0) != 0;
    good &= on_cpu(from, end, SPI) && on_cpu(to, acknowledge, 0) == SPI;
    good &= from == to || on_cpu(from, sees_nothing, 0);
    good &= on_cpu(to, end, SPI) && !on_cpu(to, is_active, SPI);
    return good;
}

static void check_active(void)
{
    u32 good = 0;

    for (u32 from = 0; from < cpus; from++)
        good += stays(from, next_cpu(from));
    judge_on_v3(good, "sent on while active, an SPI stays; pending again, it waits and comes at the new CPU");
}

/* From CPU to CPU, all open, each time made pending after the change. */
static void check_turns(void)
{
    u32 good = 0;

    close_all();
    spi_setup(SPI, true, 0);
    open_all();
    for (u32 n = 0; n < TURNS; n++) {
        forget();
        gic_route(SPI, n % cpus);
        gic_bit_write(SPI, GIC_ISPENDR);
        good += wait_taken(n % cpus, 1) && all_on(n % cpus, SPI, 1);
    }
    check_equal(good, TURNS, "32 times sent on and made pending: taken once each time, at the new CPU");
    close_all();
}

/* Pending and masked everywhere, sent round all CPUs and back: it is taken once, where it was sent last. */
static void check_round(void)
{
    u32 good = 0;

    for (u32 last = 0; last < cpus; last++) {
        forget();
        spi_setup(SPI, true, last);
        gic_bit_write(SPI, GIC_ISPENDR);
        for (u32 n = 1; n <= cpus; n++)
            gic_route(SPI, (last + n) % cpus);
        open_all();
        good += wait_value(&taken[last].count, 1, PATIENCE_US) && all_on(last, SPI, 1);
        close_all();
    }
    check_equal(good, cpus, "sent round all CPUs while pending, it is taken once, where it ended");
}

static void check_disabled(void)
{
    u32 good = 0;

    for (u32 from = 0; from < cpus; from++) {
        u32 to = next_cpu(from);

        forget();
        spi_setup(SPI, true, from);
        gic_disable(SPI);
        gic_bit_write(SPI, GIC_ISPENDR);
        gic_route(SPI, to);
        open_all();
        gic_bit_write(SPI, GIC_ISENABLER);
        good += wait_there(to, 1) && all_on(to, SPI, 1);
        close_all();
    }
    judge_on_v3(good, "sent on while disabled and pending, it comes at the new CPU when enabled");
}

int main(void)
{
    gictest_start();
    check_equal(count_levels(), cpus, "sent on while pending, a level is taken at the new CPU only");
    judge_on_v3(count_edges(1), "sent on while pending, an edge is taken at the new CPU only");
    judge_on_v3(count_edges(MANY), "and so are 24 at once");
    check_active();
    check_turns();
    check_round();
    check_disabled();
    gictest_stop();
    return 0;
}
