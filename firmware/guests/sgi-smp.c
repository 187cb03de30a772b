/* SGIs between two CPUs: to one by its affinity, to all others, back and forth, and as a wake-up. */
#include "gic.h"
#include "mmu.h"
#include "psci.h"
#include "rt.h"
#include "smp.h"
#include "timer.h"

#define ROUNDS 200u

static volatile u32 received[2][16];
static volatile u32 wrong_cpu;

static void on_sgi(u32 intid)
{
    received[cpu_id()][intid]++;
}

/* Each ping on CPU 1 is answered with a pong to CPU 0. */
static void on_ping(u32 intid)
{
    on_sgi(intid);
    gic_sgi(9, 1);
}

static u64 prepare(u64 argument)
{
    (void)argument;
    gic_cpu_init();
    for (u32 intid = 0; intid < 16; intid++)
        gic_enable(intid, intid == 8 ? on_ping : on_sgi);
    irq_enable();
    return cpu_id();
}

static void clear(void)
{
    for (u32 intid = 0; intid < 16; intid++)
        received[0][intid] = received[1][intid] = 0;
}

static void check_targeted(void)
{
    u32 good = 0;

    for (u32 intid = 0; intid < 16; intid++) {
        clear();
        if (intid == 8)
            continue;
        gic_sgi(intid, 2);
        good += wait_value(&received[1][intid], 1, 10000) && received[0][intid] == 0;
    }
    check_equal(good, 15, "an SGI to CPU 1 arrives there and only there");
    clear();
    gic_sgi(3, 3);
    check(wait_value(&received[1][3], 1, 10000) && wait_value(&received[0][3], 1, 10000),
          "an SGI to both arrives at both");
    clear();
    gic_sgi_others(4);
    check(wait_value(&received[1][4], 1, 10000), "an SGI to all others arrives at CPU 1");
    delay_us(50);
    check_equal(received[0][4], 0, "and not at the sender");
}

static u64 send_from_there(u64 intid)
{
    gic_sgi_others((u32)intid);
    return cpu_id();
}

static void check_from_other(void)
{
    clear();
    check_equal(smp_call(1, send_from_there, 6), 1, "CPU 1 sends to all others");
    check(wait_value(&received[0][6], 1, 10000) && received[1][6] == 0, "and CPU 0 receives it");
}

static void check_ping_pong(void)
{
    u32 good = 0;

    clear();
    for (u32 n = 1; n <= ROUNDS; n++) {
        gic_sgi(8, 2);
        good += wait_value(&received[0][9], n, 10000);
    }
    check_equal(good, ROUNDS, "200 pings are answered by 200 pongs");
    check_equal(received[1][8], ROUNDS, "none was lost or doubled");
}

/* CPU 1 sleeps in WFI with interrupts masked until an SGI is pending. */
static volatile u32 asleep;

static u64 sleep_for_sgi(u64 argument)
{
    irq_disable();
    asleep = 1;
    while (read_sysreg(ICC_HPPIR1_EL1) == INTID_SPURIOUS)
        wfi();
    argument = read_sysreg(ICC_HPPIR1_EL1);
    irq_enable();
    return argument;
}

static void check_wake_up(void)
{
    u32 good = 0;

    for (u32 n = 0; n < 20; n++) {
        asleep = 0;
        smp_send(1, sleep_for_sgi, 0);
        wait_value(&asleep, 1, 10000);
        delay_us(20);
        gic_sgi(2, 2);
        good += smp_wait(1) == 2;
    }
    check_equal(good, 20, "an SGI wakes the other CPU from WFI, 20 times");
}

/* An SPI goes where IROUTER says. */
static volatile u32 spi_cpu;

static void on_spi(u32 intid)
{
    (void)intid;
    spi_cpu = cpu_id() + 1;
}

static void check_spi_route(void)
{
    gic_set_edge(200, true);
    gic_enable(200, on_spi);
    gic_bit_write(200, GIC_ISPENDR);
    check(wait_value(&spi_cpu, 1, 10000) && spi_cpu == 1, "an SPI routed to CPU 0 arrives there");
    spi_cpu = 0;
    write64(GICD_BASE + GICD_IROUTER + 8 * 200, 1);
    gic_bit_write(200, GIC_ISPENDR);
    check(wait_value(&spi_cpu, 2, 10000) && spi_cpu == 2, "routed to CPU 1, it arrives there");
    gic_disable(200);
}

/* Private interrupts are private: each CPU has its own timer. */
static volatile u32 timer_fired[2];

static void on_timer(u32 intid)
{
    (void)intid;
    virtual_timer.set_ctl(0);
    timer_fired[cpu_id()]++;
}

static u64 arm_timer(u64 us)
{
    gic_enable(INTID_VTIMER, on_timer);
    virtual_timer.set_cval(virtual_count() + ticks_of_us(us));
    virtual_timer.set_ctl(CTL_ENABLE);
    return 0;
}

static void check_timers(void)
{
    smp_call(1, arm_timer, 100);
    check(wait_value(&timer_fired[1], 1, 10000) && timer_fired[0] == 0, "the timer of CPU 1 interrupts CPU 1");
    arm_timer(100);
    check(wait_value(&timer_fired[0], 1, 10000) && timer_fired[1] == 1, "the timer of CPU 0 interrupts CPU 0");
}

int main(void)
{
    mmu_on();
    gic_init();
    prepare(0);
    smp_start(1);
    check_equal(smp_call(1, prepare, 0), 1, "CPU 1 has its own redistributor");
    check_targeted();
    check_from_other();
    check_ping_pong();
    check_wake_up();
    check_spi_route();
    check_timers();
    irq_disable();
    smp_stop(1);
    return 0;
}
