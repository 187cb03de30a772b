/* Bugs of a timer's driver, and of two handlers of which one preempts the other. */
#include "driver_bugs.h"

#define TICKS     3u
#define INTERVAL  ticks_of_us(10)

static volatile u32 ticks, served;

static u64 next_tick(void)
{
    if (bug("cval-interval"))
        return INTERVAL;
    return (bug("cval-physical") ? physical_count() : virtual_count()) + INTERVAL;
}

static void arm(void)
{
    if (bug("tval-wide")) /* TVAL is a signed number of 32 bits: this one is negative */
        virtual_timer.set_tval(INTERVAL | 1ul << 31);
    else
        virtual_timer.set_cval(next_tick());
}

static void tick(u32 intid)
{
    ticks++;
    if (!bug("cval-not-moved"))
        arm();
    if (bug("masked-again")) { /* a handler in a thread would unmask it */
        write32(word_of(intid, ICENABLER), bit_of(intid));
        dsb();
    }
}

static void start(void)
{
    if (bug("timer-physical")) {
        physical_timer.set_cval(physical_count() + INTERVAL);
        physical_timer.set_ctl(CTL_ENABLE);
        return;
    }
    arm();
    if (!bug("timer-off"))
        virtual_timer.set_ctl(bug("timer-imask") ? CTL_ENABLE | CTL_IMASK : CTL_ENABLE);
}

void timer_ticks(void)
{
    u32 intid = bug("wrong-intid") ? INTID_PTIMER : INTID_VTIMER;

    distributor_init();
    interface_init();
    set_handler(intid, tick);
    enable_interrupt(intid, bug("priority-lowest") ? 0xff : PRIORITY);
    if (bug("isactiver"))
        write32(word_of(intid, ISACTIVER), bit_of(intid));
    take_interrupts();
    start();
    while (ticks < TICKS)
        wfi();
    virtual_timer.set_ctl(0);
}

/* The timer fires while IRQs are masked; the driver stops it before it lets them in. */
void timer_stopped(void)
{
    distributor_init();
    interface_init();
    set_handler(INTID_VTIMER, tick);
    enable_interrupt(INTID_VTIMER, PRIORITY);
    start();
    delay_us(20);
    if (bug("timer-stopped"))
        virtual_timer.set_ctl(0);
    take_interrupts();
    while (!ticks)
        wfi();
}

/* The handler of LOW_SPI lets a tick of higher priority in, and waits for it. */
static void low(u32 intid)
{
    (void)intid;
    virtual_timer.set_cval(virtual_count() + INTERVAL);
    virtual_timer.set_ctl(CTL_ENABLE);
    irq_enable();
    while (!ticks)
        ;
    irq_disable();
    served++;
}

static void high(u32 intid)
{
    (void)intid;
    ticks++;
    virtual_timer.set_ctl(0);
    if (bug("eoi-order")) /* the tick's own end follows that of the one that it interrupted */
        end(LOW_SPI);
}

static void pend_low(void)
{
    write32(word_of(LOW_SPI, ISPENDR), bit_of(LOW_SPI));
    dsb();
}

static void once(u32 intid)
{
    (void)intid;
    served++;
}

/* A tick of the same priority comes after the end of another interrupt. */
void behind(void)
{
    distributor_init();
    interface_init();
    set_handler(LOW_SPI, once);
    set_handler(INTID_VTIMER, high);
    enable_interrupt(LOW_SPI, PRIORITY);
    enable_interrupt(INTID_VTIMER, PRIORITY);
    take_interrupts();
    pend_low();
    wait_for(&served, 1);
    start();
    wait_for(&ticks, 1);
}

void nested(void)
{
    distributor_init();
    interface_init();
    if (bug("bpr")) {
        if (version == 3)
            write_sysreg(ICC_BPR1_EL1, 7);
        else
            write32(GICC_BASE + 0x08, 6);
    }
    set_handler(LOW_SPI, low);
    set_handler(INTID_VTIMER, high);
    enable_interrupt(LOW_SPI, PRIORITY);
    enable_interrupt(INTID_VTIMER, bug("no-preemption") ? PRIORITY : 0x90);
    take_interrupts();
    for (u32 n = 1; n <= 2; n++) {
        ticks = 0;
        pend_low();
        wait_for(&served, n);
    }
}
