/* Message-signalled interrupts with a GICv2: a store to the frame of the GICv2m makes an SPI pending, as an edge
 * (Arm DEN 0029, Server Base System Architecture, appendix on GICv2m). */
#include "fdt.h"
#include "gictest.h"
#include "rt.h"
#include "timer.h"

#define MSI_TYPER     (V2M_BASE + 0x008)
#define MSI_SETSPI_NS (V2M_BASE + 0x040)
#define MANY          16u

static u32 first, count;

static void send(u32 intid)
{
    dsb();
    write32(MSI_SETSPI_NS, intid);
    dsb();
}

static bool only_here(u32 intid, u32 times)
{
    return total_taken() == times && took_only(cpu_id(), intid, times);
}

/* Each SPI of the frame, from this CPU to this CPU. */
static u64 every_spi(u64 argument)
{
    bool good = true;

    (void)argument;
    for (u32 n = 0; n < count; n++) {
        forget();
        spi_setup(first + n, true, cpu_id());
        send(first + n);
        good &= wait_taken(cpu_id(), 1) && only_here(first + n, 1);
        gic_disable(first + n);
    }
    return good;
}

static u64 to_next(u64 argument)
{
    u32 next = next_cpu(cpu_id());

    (void)argument;
    spi_setup(first, true, next);
    send(first);
    return wait_taken(next, 1) && total_taken() == 1 && took_only(next, first, 1);
}

static u64 merges(u64 argument)
{
    (void)argument;
    irq_disable();
    spi_setup(first, true, cpu_id());
    for (u32 n = 0; n < 3; n++)
        send(first);
    argument = gic_bit_read(first, GIC_ISPENDR);
    irq_enable();
    return wait_taken(cpu_id(), 1) && argument && only_here(first, 1);
}

static u64 waits_for_enable(u64 argument)
{
    (void)argument;
    spi_setup(first, true, cpu_id());
    gic_disable(first);
    send(first);
    delay_us(10);
    argument = took_nothing(cpu_id()) && gic_bit_read(first, GIC_ISPENDR);
    gic_bit_write(first, GIC_ISENABLER);
    return wait_taken(cpu_id(), 1) && argument && only_here(first, 1);
}

static void send_within(u32 intid)
{
    if (took_nothing(cpu_id()))
        send(intid);
    take(intid);
}

static u64 comes_again(u64 argument)
{
    (void)argument;
    spi_setup(first, true, cpu_id());
    gic_attach(first, send_within);
    send(first);
    return wait_taken(cpu_id(), 2) && only_here(first, 2);
}

static u64 taken_back(u64 argument)
{
    (void)argument;
    irq_disable();
    spi_setup(first, true, cpu_id());
    send(first);
    argument = gic_bit_read(first, GIC_ISPENDR);
    gic_bit_write(first, GIC_ICPENDR);
    delay_us(10);
    irq_enable();
    delay_us(10);
    return argument && took_nothing(cpu_id());
}

static u64 in_order(u64 argument)
{
    volatile struct taken *mine = &taken[cpu_id()];
    bool good;

    (void)argument;
    irq_disable();
    for (u32 n = 0; n < MANY; n++) {
        spi_setup(first + n, true, cpu_id());
        gic_set_priority(first + n, (u8)(n % 15 * 0x10));
    }
    for (u32 n = 0; n < MANY; n++)
        send(first + n);
    delay_us(10);
    irq_enable();
    good = wait_taken(cpu_id(), MANY);
    for (u32 n = 1; n < MANY; n++)
        good &= mine->priority[n - 1] <= mine->priority[n];
    for (u32 n = 0; n < MANY; n++) {
        good &= times_taken(cpu_id(), first + n) == 1;
        gic_disable(first + n);
    }
    return good;
}

int main(void)
{
    gictest_start();
    if (gic_version != 2 || !fdt_count("compatible", "arm,gic-v2m-frame"))
        nothing_to_do("a GICv2 with a GICv2m");
    first = read32(MSI_TYPER) >> 16 & 0x3ff;
    count = read32(MSI_TYPER) & 0x3ff;
    note("SPIs %u to %u", first, first + count - 1);
    check(first >= 32 && count >= MANY && first + count <= 1020, "MSI_TYPER names a range of SPIs");
    open_all();
    each("a message for each of them is taken once here, where it is sent", every_spi, 0);
    each("a message for the next CPU is taken there only", to_next, 0);
    each("a message sent again while pending is taken once", merges, 0);
    each("a message for a disabled SPI waits until it is enabled", waits_for_enable, 0);
    each("a message sent within the handler is taken after it", comes_again, 0);
    each("ICPENDR takes a message back", taken_back, 0);
    each("16 messages are taken in order of priority, each once", in_order, 0);
    gictest_stop();
    return 0;
}
