/* Disabled at each of the three places - the interrupt, the group at the CPU interface, the group at the
 * distributor - what is pending waits and is taken at enable, once; ICPENDR takes back an edge, but not a level
 * that is still high. IHI 0069, GICD_ICENABLER, ICC_IGRPEN1_EL1, GICD_CTLR, GICD_ICPENDR; IHI 0048, 4.3. */
#include "gictest.h"
#include "rt.h"
#include "timer.h"
#include "uart.h"

#define SPI SPI_FREE
#define PPI INTID_VTIMER

static bool pending(u32 intid)
{
    return gic_bit_read(intid, GIC_ISPENDR);
}

static bool waits_then_comes(u32 intid, void (*release)(void))
{
    bool good;

    window();
    good = took_nothing(cpu_id()) && pending(intid);
    release();
    window();
    return good && took_only(cpu_id(), intid, 1) && !pending(intid);
}

static void enable_spi(void) { gic_bit_write(SPI, GIC_ISENABLER); }
static void enable_ppi(void) { gic_bit_write(PPI, GIC_ISENABLER); }
static void enable_group(void) { gic_cpu_forward(true); }
static void enable_distributor(void) { gic_forward(true); }

static u64 pended_while_disabled(u64 argument)
{
    (void)argument;
    spi_setup(SPI, true, cpu_id());
    gic_disable(SPI);
    gic_bit_write(SPI, GIC_ISPENDR);
    return waits_then_comes(SPI, enable_spi);
}

static u64 disabled_while_pending(u64 argument)
{
    (void)argument;
    spi_setup(SPI, true, cpu_id());
    gic_bit_write(SPI, GIC_ISPENDR);
    delay_us(10);
    gic_disable(SPI);
    return waits_then_comes(SPI, enable_spi);
}

static void timer_off_and_take(u32 intid)
{
    virtual_timer.set_ctl(0);
    take(intid);
}

/* A level: the timer's condition holds all the while. */
static u64 ppi_disabled_while_pending(u64 argument)
{
    bool good;

    gic_enable(PPI, timer_off_and_take);
    virtual_timer.set_cval(0);
    virtual_timer.set_ctl(CTL_ENABLE);
    delay_us(10);
    gic_disable(PPI);
    good = waits_then_comes(PPI, enable_ppi);
    gic_disable(PPI);
    return good && argument == 0;
}

static u64 group_disabled(u64 argument)
{
    (void)argument;
    spi_setup(SPI, true, cpu_id());
    gic_cpu_forward(false);
    gic_bit_write(SPI, GIC_ISPENDR);
    return waits_then_comes(SPI, enable_group);
}

static u64 group_disabled_while_pending(u64 argument)
{
    (void)argument;
    spi_setup(SPI, true, cpu_id());
    gic_bit_write(SPI, GIC_ISPENDR);
    delay_us(10);
    gic_cpu_forward(false);
    return waits_then_comes(SPI, enable_group);
}

static u64 distributor_disabled(u64 argument)
{
    (void)argument;
    spi_setup(SPI, true, cpu_id());
    gic_forward(false);
    gic_bit_write(SPI, GIC_ISPENDR);
    return waits_then_comes(SPI, enable_distributor);
}

static u64 distributor_disabled_while_pending(u64 argument)
{
    (void)argument;
    spi_setup(SPI, true, cpu_id());
    gic_bit_write(SPI, GIC_ISPENDR);
    delay_us(10);
    gic_forward(false);
    return waits_then_comes(SPI, enable_distributor);
}

static u64 distributor_disabled_for_sgi(u64 argument)
{
    bool good;

    (void)argument;
    gic_forward(false);
    gic_sgi_self(4);
    window();
    good = took_nothing(cpu_id());
    gic_forward(true);
    window();
    return good && took_only(cpu_id(), 4, 1);
}

/* Several at once, and again: nothing is lost and nothing comes twice. */
static u64 often(u64 argument)
{
    bool good = true;

    for (u32 n = 0; n < 16; n++)
        spi_setup(SPI + n, true, cpu_id());
    for (u32 round = 0; round < 4; round++) {
        forget();
        for (u32 n = 0; n < 16; n++)
            gic_disable(SPI + n);
        for (u32 n = 0; n < 16; n++)
            gic_bit_write(SPI + n, GIC_ISPENDR);
        window();
        good &= took_nothing(cpu_id());
        write32(GICD_BASE + GIC_ISENABLER + SPI / 32 * 4, 0xffff); /* all in one write */
        window();
        good &= taken[cpu_id()].count == 16;
        for (u32 n = 0; n < 16; n++)
            good &= times_taken(cpu_id(), SPI + n) == 1;
    }
    for (u32 n = 0; n < 16; n++)
        gic_disable(SPI + n);
    return good && argument == 0;
}

static void disable_itself(u32 intid)
{
    gic_disable(intid);
    take(intid);
}

static u64 disabled_in_its_handler(u64 argument)
{
    bool good;

    (void)argument;
    spi_setup(SPI, true, cpu_id());
    gic_attach(SPI, disable_itself);
    gic_bit_write(SPI, GIC_ISPENDR);
    window();
    good = took_only(cpu_id(), SPI, 1) && !gic_bit_read(SPI, GIC_ISACTIVER);
    forget();
    gic_attach(SPI, take);
    gic_bit_write(SPI, GIC_ISPENDR);
    return good && waits_then_comes(SPI, enable_spi);
}

static void disable_and_pend_itself(u32 intid)
{
    gic_disable(intid);
    gic_bit_write(intid, GIC_ISPENDR);
    take(intid);
}

static u64 pended_in_its_handler(u64 argument)
{
    bool good;

    (void)argument;
    spi_setup(SPI, true, cpu_id());
    gic_attach(SPI, disable_and_pend_itself);
    gic_bit_write(SPI, GIC_ISPENDR);
    window();
    good = took_only(cpu_id(), SPI, 1);
    forget();
    gic_attach(SPI, take);
    return good && waits_then_comes(SPI, enable_spi);
}

static u64 enable_bits(u64 argument)
{
    bool good;

    (void)argument;
    spi_setup(SPI, true, cpu_id());
    good = gic_bit_read(SPI, GIC_ISENABLER) && gic_bit_read(SPI, GIC_ICENABLER);
    gic_disable(SPI);
    return good && !gic_bit_read(SPI, GIC_ISENABLER) && !gic_bit_read(SPI, GIC_ICENABLER);
}

static u64 edge_taken_back(u64 argument)
{
    bool good;

    (void)argument;
    spi_setup(SPI, true, cpu_id());
    gic_bit_write(SPI, GIC_ISPENDR);
    good = pending(SPI);
    gic_bit_write(SPI, GIC_ICPENDR);
    good &= !pending(SPI);
    delay_us(10);
    window();
    return good && took_nothing(cpu_id());
}

/* A level-sensitive SPI whose line is low, pending by ISPENDR only. */
static u64 latch_taken_back(u64 argument)
{
    bool good;

    (void)argument;
    spi_setup(SPI, false, cpu_id());
    gic_bit_write(SPI, GIC_ISPENDR);
    good = pending(SPI);
    gic_bit_write(SPI, GIC_ICPENDR);
    good &= !pending(SPI);
    delay_us(10);
    window();
    return good && took_nothing(cpu_id());
}

static u64 latch_is_taken_once(u64 argument)
{
    (void)argument;
    spi_setup(SPI, false, cpu_id());
    gic_bit_write(SPI, GIC_ISPENDR);
    window();
    return took_only(cpu_id(), SPI, 1) && !pending(SPI);
}

static void uart_off_and_take(u32 intid)
{
    uart_mask_tx();
    take(intid);
}

static u64 high_level_stays(u64 argument)
{
    bool good;

    (void)argument;
    spi_setup(INTID_UART, false, cpu_id());
    gic_attach(INTID_UART, uart_off_and_take);
    good = uart_raise_tx() && pending(INTID_UART);
    gic_bit_write(INTID_UART, GIC_ICPENDR);
    good &= pending(INTID_UART);
    window();
    good &= took_only(cpu_id(), INTID_UART, 1) && !pending(INTID_UART);
    gic_disable(INTID_UART);
    return good;
}

int main(void)
{
    gictest_start();
    each("ISENABLER and ICENABLER set and clear what both read", enable_bits, 0);
    each("an SPI made pending while disabled is taken when enabled", pended_while_disabled, 0);
    each("an SPI disabled while pending is taken when enabled", disabled_while_pending, 0);
    each("and so is a PPI", ppi_disabled_while_pending, 0);
    each("an SPI that its handler disables ends, and comes again when enabled", disabled_in_its_handler, 0);
    each("one that its handler disables and makes pending waits for the enable, too", pended_in_its_handler, 0);
    each("4 times 16 SPIs made pending while disabled: none is lost, none comes twice", often, 0);
    each("an SPI made pending while its group is disabled here is taken when enabled", group_disabled, 0);
    each("and so is one that was pending before", group_disabled_while_pending, 0);
    each("an SPI made pending while the distributor is disabled is taken when enabled", distributor_disabled, 0);
    each("and so is one that was pending before", distributor_disabled_while_pending, 0);
    each("and so is an SGI", distributor_disabled_for_sgi, 0);
    each("ICPENDR takes an edge back", edge_taken_back, 0);
    each("a level-sensitive SPI made pending by register is taken once", latch_is_taken_once, 0);
    each("ICPENDR takes that back", latch_taken_back, 0);
    each("ICPENDR does not take back a level that is high", high_level_stays, 0);
    gictest_stop();
    return 0;
}
