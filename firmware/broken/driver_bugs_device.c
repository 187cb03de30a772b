/* Bugs of a driver of the UART, whose interrupt is level-sensitive, and of one that sends SGIs to CPU 1. */
#include "driver_bugs.h"

#include "psci.h"
#include "uart.h"

#define SGI   1u /* from CPU 0 to CPU 1 */
#define REPLY 2u /* and back */
#define SGI1R(intid, aff1, list) ((u64)(intid) << 24 | (u64)(aff1) << 16 | (list))

static volatile u32 sent, received, ready;

/* The UART ------------------------------------------------------------------------------------------------------ */

static void configure_level(void)
{
    u64 word = GICD_BASE + ICFGR + INTID_UART / 16 * 4;
    u32 edge = 2u << INTID_UART % 16 * 2;

    write32(word, bug("uart-edge") ? read32(word) | edge : read32(word) & ~edge);
}

/* The transmitter is ready again as soon as a byte is written, so each handler finds one more interrupt to clear. */
static void transmitted(u32 intid)
{
    (void)intid;
    sent++;
    if (bug("uart-not-cleared"))
        return;
    if (!bug("uart-edge"))
        uart_clear_tx();
    if (sent < 3)
        uart_putc('\r');
    else
        uart_mask_tx();
}

/* CPU 1 ends what CPU 0 has acknowledged: EOIR is for the CPU interface that it is written on. */
static void ends_for_another(u64 argument)
{
    (void)argument;
    interface_init();
    for (;;) {
        while (!ended_by_cpu1)
            yield();
        write_eoir(ended_by_cpu1);
        ended_by_cpu1 = 0;
    }
}

void device(void)
{
    distributor_init();
    interface_init();
    if (bug("eoi-other-cpu"))
        cpu_start(1, ends_for_another, 0);
    set_handler(INTID_UART, transmitted);
    configure_level();
    enable_interrupt(bug("spi-number") ? INTID_UART - 32 : INTID_UART, PRIORITY);
    if (bug("pend-cleared")) {
        write32(word_of(INTID_UART, ISPENDR), bit_of(INTID_UART));
        write32(word_of(INTID_UART, ICPENDR), bit_of(INTID_UART));
    } else {
        uart_putc('\r');
        if (!bug("uart-imsc"))
            uart_unmask_tx();
    }
    take_interrupts();
    wait_for(&sent, 3);
}

/* SGIs ---------------------------------------------------------------------------------------------------------- */

static void send(u32 intid, u32 cpu)
{
    u32 list = bug("sgi-nobody") ? 0 : bug("sgi-self") ? 1u << cpu_id() : 1u << cpu;

    dsb();
    if (version == 2)
        write32(GICD_SGIR, list << 16 | intid);
    else if (bug("sgi-group"))
        write_sysreg(S3_0_C12_C11_7, SGI1R(intid, 0, list)); /* ICC_SGI0R_EL1 */
    else
        write_sysreg(ICC_SGI1R_EL1, SGI1R(intid, bug("sgi-affinity") ? 1 : 0, list));
    isb();
}

static void on_sgi(u32 intid)
{
    (void)intid;
    if (cpu_id() == 1)
        send(REPLY, 0);
}

static void on_reply(u32 intid)
{
    (void)intid;
    received++;
}

static void second_cpu(u64 argument)
{
    (void)argument;
    if (!bug("cpu-interface"))
        interface_init();
    enable_interrupt(SGI, PRIORITY);
    irq_enable();
    ready = 1;
    sev();
    for (;;)
        wfi();
}

void ipi(void)
{
    distributor_init();
    interface_init();
    set_handler(SGI, on_sgi);
    set_handler(REPLY, on_reply);
    take_interrupts();
    if (!bug("cpu-off")) {
        cpu_start(1, second_cpu, 0);
        while (!ready)
            wfe();
    }
    for (u32 n = 1; n <= 2; n++) {
        send(SGI, 1);
        while (received < n)
            yield();
    }
}
