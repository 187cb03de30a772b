/* SGIs and SPIs on one CPU: priorities, preemption, masks, the two end-of-interrupt modes, pending and
 * active state by register, a level-sensitive device, group 0. IHI 0069 chapters 4, 8 and 12. */
#include "gic.h"
#include "rt.h"
#include "timer.h"

#define SPI 200u /* no device is connected to it */

#define UART_DR   (UART_BASE + 0x00)
#define UART_IMSC (UART_BASE + 0x38)
#define UART_ICR  (UART_BASE + 0x44)
#define UART_TX   (1u << 5)

#define PRIORITY_IDLE 0xffu

static volatile u32 log[32], logged;
static volatile u32 running_priority;

static void on_irq(u32 intid)
{
    running_priority = (u32)read_sysreg(ICC_RPR_EL1);
    log[logged++ % ARRAY_SIZE(log)] = intid;
}

/* Let what is pending come, and stop again. */
static void open_window(void)
{
    irq_enable();
    delay_us(10);
    irq_disable();
}

static void clear_log(void)
{
    logged = 0;
}

static bool log_is(u32 count, u32 first, u32 second, u32 third)
{
    u32 want[3] = {first, second, third};

    if (logged != count)
        return false;
    for (u32 n = 0; n < count; n++)
        if (log[n] != want[n])
            return false;
    return true;
}

static void check_all_sgis(void)
{
    u32 good = 0;

    for (u32 intid = 0; intid < 16; intid++) {
        clear_log();
        gic_sgi(intid, 1);
        open_window();
        good += log_is(1, intid, 0, 0);
    }
    check_equal(good, 16, "each of the 16 SGIs reaches its own CPU once");
    clear_log();
    for (u32 n = 0; n < 3; n++)
        gic_sgi(7, 1);
    open_window();
    check(log_is(1, 7, 0, 0), "an SGI sent again while pending is taken once");
    clear_log();
    gic_sgi(5, 2);
    open_window();
    check_equal(logged, 0, "an SGI for an absent CPU goes nowhere");
    gic_sgi_others(5);
    open_window();
    check_equal(logged, 0, "an SGI for all others does not reach the sender");
}

static void check_spurious(void)
{
    check_equal(read_sysreg(ICC_HPPIR1_EL1), INTID_SPURIOUS, "HPPIR1 reads 1023 with nothing pending");
    check_equal(read_sysreg(ICC_IAR1_EL1), INTID_SPURIOUS, "IAR1 reads 1023 with nothing pending");
    check_equal(read_sysreg(ICC_RPR_EL1), PRIORITY_IDLE, "the running priority stays idle");
}

static void check_order(void)
{
    clear_log();
    gic_set_priority(1, 0xc0);
    gic_set_priority(2, 0x80);
    gic_set_priority(3, 0x40);
    for (u32 intid = 1; intid <= 3; intid++)
        gic_sgi(intid, 1);
    check(gic_wait_pending(3, 100), "the highest priority is the highest pending");
    open_window();
    check(log_is(3, 3, 2, 1), "pending interrupts are taken in order of priority");
    check_equal(running_priority, 0xc0, "the running priority is that of the interrupt");
    check_equal(read_sysreg(ICC_RPR_EL1), PRIORITY_IDLE, "and idle after the last end of interrupt");
}

/* SGI 1 raises SGI 2 from within its handler, with interrupts open. */
static void raise_inner(u32 intid)
{
    log[logged++] = intid;
    gic_sgi(2, 1);
    open_window();
    log[logged++] = 100 + intid;
}

static bool preempts(u8 outer, u8 inner)
{
    clear_log();
    gic_set_priority(1, outer);
    gic_set_priority(2, inner);
    gic_sgi(1, 1);
    open_window();
    return log_is(3, 1, 2, 101);
}

static void check_preemption(void)
{
    gic_attach(1, raise_inner);
    check(preempts(0xa0, 0x40), "a higher priority preempts a running handler");
    check(!preempts(0xa0, 0xa0) && log_is(3, 1, 101, 2), "the same priority waits for its end");
    check(!preempts(0x80, 0xc0) && log_is(3, 1, 101, 2), "a lower priority waits for its end");
    gic_attach(1, on_irq);
}

static void check_bpr(void)
{
    u64 least;

    write_sysreg(ICC_BPR1_EL1, 0);
    isb();
    least = read_sysreg(ICC_BPR1_EL1);
    check(least >= 1 && least <= 4, "BPR1 does not go below its minimum");
    gic_attach(1, raise_inner);
    write_sysreg(ICC_BPR1_EL1, 5);
    isb();
    check_equal(read_sysreg(ICC_BPR1_EL1), 5, "BPR1 keeps what it is given");
    check(!preempts(0x90, 0x80) && log_is(3, 1, 101, 2), "BPR1 = 5: priorities of one group do not preempt");
    check(preempts(0xa0, 0x80), "BPR1 = 5: another group does");
    write_sysreg(ICC_BPR1_EL1, 4);
    isb();
    check(preempts(0x90, 0x80), "BPR1 = 4: the same two priorities preempt");
    gic_attach(1, on_irq);
    write_sysreg(ICC_BPR1_EL1, 0);
    isb();
}

static void check_pmr(void)
{
    clear_log();
    gic_set_priority(1, 0x80);
    write_sysreg(ICC_PMR_EL1, 0x80);
    isb();
    gic_sgi(1, 1);
    open_window();
    check_equal(logged, 0, "PMR equal to the priority masks it");
    check_equal(read_sysreg(ICC_IAR1_EL1), INTID_SPURIOUS, "IAR1 reads 1023 for what PMR masks");
    check(gic_bit_read(1, GIC_ISPENDR), "it stays pending");
    write_sysreg(ICC_PMR_EL1, 0x90);
    isb();
    open_window();
    check(log_is(1, 1, 0, 0), "a PMR above the priority lets it through");
    write_sysreg(ICC_PMR_EL1, 0xff);
    write_sysreg(ICC_IGRPEN1_EL1, 0);
    isb();
    clear_log();
    gic_sgi(1, 1);
    open_window();
    check_equal(logged, 0, "IGRPEN1 = 0 keeps group 1 back");
    write_sysreg(ICC_IGRPEN1_EL1, 1);
    isb();
    open_window();
    check(log_is(1, 1, 0, 0), "IGRPEN1 = 1 releases it");
    gic_set_priority(1, PRIORITY_DEFAULT);
    gic_set_priority(2, PRIORITY_DEFAULT);
}

/* Priority drop and deactivation apart. IRQs stay masked: the CPU interface is driven by hand. */
static void check_eoimode(void)
{
    write_sysreg(ICC_CTLR_EL1, ICC_CTLR_EOIMODE);
    isb();
    gic_sgi(1, 1);
    check(gic_wait_pending(1, 100), "EOImode 1: the SGI is pending");
    check_equal(read_sysreg(ICC_IAR1_EL1), 1, "EOImode 1: it is acknowledged");
    dsb();
    check_equal(read_sysreg(ICC_RPR_EL1), PRIORITY_DEFAULT, "EOImode 1: the acknowledge raises the running priority");
    write_sysreg(ICC_EOIR1_EL1, 1);
    isb();
    check_equal(read_sysreg(ICC_RPR_EL1), PRIORITY_IDLE, "EOImode 1: EOIR1 drops the priority");
    check(gic_bit_read(1, GIC_ISACTIVER), "EOImode 1: the interrupt stays active");
    gic_sgi(1, 1);
    delay_us(5);
    check_equal(read_sysreg(ICC_HPPIR1_EL1), INTID_SPURIOUS,
                "EOImode 1: pending again, an active one is not signalled");
    gic_sgi(2, 1);
    check(gic_wait_pending(2, 100), "EOImode 1: another interrupt of the same priority is");
    check_equal(read_sysreg(ICC_IAR1_EL1), 2, "EOImode 1: and can be acknowledged");
    write_sysreg(ICC_EOIR1_EL1, 2);
    write_sysreg(ICC_DIR_EL1, 2);
    write_sysreg(ICC_DIR_EL1, 1);
    isb();
    check(!gic_bit_read(1, GIC_ISACTIVER), "EOImode 1: DIR deactivates");
    check(gic_wait_pending(1, 100), "EOImode 1: and the pending one is signalled");
    write_sysreg(ICC_CTLR_EL1, 0);
    isb();
    clear_log();
    open_window();
    check(log_is(1, 1, 0, 0), "EOImode 0 takes it");
    check(!gic_bit_read(1, GIC_ISACTIVER), "EOImode 0: EOIR1 deactivates");
}

static void check_spi_pending(void)
{
    clear_log();
    gic_set_edge(SPI, true);
    gic_enable(SPI, on_irq);
    gic_bit_write(SPI, GIC_ISPENDR);
    check(gic_bit_read(SPI, GIC_ISPENDR), "ISPENDR makes an SPI pending");
    open_window();
    check(log_is(1, SPI, 0, 0), "it is taken once");
    check(!gic_bit_read(SPI, GIC_ISPENDR), "and no longer pending");
    clear_log();
    gic_bit_write(SPI, GIC_ISPENDR);
    gic_bit_write(SPI, GIC_ICPENDR);
    open_window();
    check_equal(logged, 0, "ICPENDR takes it back");
    gic_disable(SPI);
    gic_bit_write(SPI, GIC_ISPENDR);
    open_window();
    check_equal(logged, 0, "a disabled SPI is not taken");
    check(gic_bit_read(SPI, GIC_ISPENDR), "but stays pending");
    gic_bit_write(SPI, GIC_ISENABLER);
    open_window();
    check(log_is(1, SPI, 0, 0), "and is taken when enabled");
}

static void repend_once(u32 intid)
{
    if (logged == 0)
        gic_bit_write(intid, GIC_ISPENDR);
    log[logged++] = intid;
}

static void check_spi_active(void)
{
    clear_log();
    gic_attach(SPI, repend_once);
    gic_bit_write(SPI, GIC_ISPENDR);
    open_window();
    check(log_is(2, SPI, SPI, 0), "an SPI made pending while active is taken again");
    gic_attach(SPI, on_irq);
    clear_log();
    gic_bit_write(SPI, GIC_ISACTIVER);
    check(gic_bit_read(SPI, GIC_ISACTIVER), "ISACTIVER makes an SPI active");
    gic_bit_write(SPI, GIC_ISPENDR);
    open_window();
    check_equal(logged, 0, "an active SPI is not taken");
    gic_bit_write(SPI, GIC_ICACTIVER);
    open_window();
    check(log_is(1, SPI, 0, 0), "ICACTIVER lets it through");
    gic_disable(SPI);
}

static void uart_tx_clear(u32 intid)
{
    write32(UART_ICR, UART_TX);
    on_irq(intid);
}

static void uart_tx_clear_late(u32 intid)
{
    on_irq(intid);
    if (logged == 3)
        write32(UART_ICR, UART_TX);
}

/* The transmit interrupt is raised by a character sent: the line feed of a note. */
static void check_uart_level(irq_function handler, u32 want, const char *sentence)
{
    clear_log();
    gic_set_edge(INTID_UART, false); /* its reset value is unknown */
    gic_enable(INTID_UART, handler);
    write32(UART_ICR, UART_TX);
    write32(UART_IMSC, UART_TX);
    write32(UART_DR, ' ');
    irq_enable();
    wait_value(&logged, want, 20000);
    delay_us(10);
    irq_disable();
    write32(UART_IMSC, 0);
    gic_disable(INTID_UART);
    print("a character with an interrupt\n");
    check(logged == want && log[0] == INTID_UART, "%s", sentence);
}

static void check_uart_masked(void)
{
    clear_log();
    gic_enable(INTID_UART, on_irq);
    write32(UART_IMSC, UART_TX);
    write32(UART_ICR, UART_TX);
    open_window();
    check_equal(logged, 0, "a level cleared at the device before it is taken is not taken");
    write32(UART_IMSC, 0);
    gic_disable(INTID_UART);
}

static volatile u32 fiqs, fiq_intid, fiq_vector;

static void on_fiq(struct context *ctx)
{
    fiq_intid = (u32)read_sysreg(ICC_IAR0_EL1);
    fiq_vector = (u32)ctx->vector;
    write_sysreg(ICC_EOIR0_EL1, fiq_intid);
    isb();
    fiqs++;
}

static void check_group0(void)
{
    fiq_handler = on_fiq;
    clear_log();
    gic_set_group(SPI, 0);
    write_sysreg(ICC_IGRPEN0_EL1, 1);
    isb();
    gic_bit_write(SPI, GIC_ISENABLER);
    gic_bit_write(SPI, GIC_ISPENDR);
    open_window();
    check(logged == 0 && fiqs == 0, "a group 0 interrupt does not come as an IRQ");
    check_equal(read_sysreg(ICC_HPPIR0_EL1), SPI, "HPPIR0 names it");
    fiq_enable();
    delay_us(10);
    fiq_disable();
    check(fiqs == 1 && fiq_intid == SPI, "it comes as an FIQ, acknowledged by IAR0");
    check_equal(fiq_vector, VECTOR_EL1H_FIQ, "at the FIQ vector");
    write_sysreg(ICC_IGRPEN0_EL1, 0);
    isb();
    gic_disable(SPI);
    gic_set_group(SPI, 1);
}

static void check_registers(void)
{
    gic_set_priority(SPI, 0x48);
    check_equal(read32(GICD_BASE + GIC_IPRIORITYR + (SPI & ~3u)) & 0xff, 0x48, "a priority reads back");
    check_equal(read32(gic_frame(0) + GIC_ICFGR), 0xaaaaaaaa, "SGIs read as edge-triggered");
    gic_set_edge(SPI, false);
    check(!(read32(GICD_BASE + GIC_ICFGR + SPI / 16 * 4) >> (SPI % 16 * 2 + 1) & 1),
          "an SPI can be made level-sensitive");
    check_equal(read64(GICD_BASE + GICD_IROUTER + 8 * SPI), 0, "IROUTER reads back the affinity");
}

int main(void)
{
    gic_init();
    for (u32 intid = 0; intid < 16; intid++)
        gic_enable(intid, on_irq);
    check_spurious();
    check_all_sgis();
    check_order();
    check_preemption();
    check_bpr();
    check_pmr();
    check_eoimode();
    check_spi_pending();
    check_spi_active();
    check_uart_level(uart_tx_clear, 1, "a device's level interrupts once when the handler clears it");
    check_uart_level(uart_tx_clear_late, 3, "and again and again until it is cleared");
    check_uart_masked();
    check_group0();
    check_registers();
    check_equal(gic_spurious, 0, "no spurious interrupt was taken");
    return 0;
}
