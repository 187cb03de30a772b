/* SGIs as messages: every CPU pings every CPU and is answered, one pair at a time and all at once, awake and asleep. */
#include "gictest.h"
#include "mmu.h"
#include "rt.h"
#include "smp.h"
#include "timer.h"

#define PING  1u
#define PONG  9u
#define ROUNDS 10u /* of each pair */

/* What goes along with a ping, and comes back with the pong. One box for each receiver. */
static volatile struct box {
    u32 sender;
    u64 question, answer;
} boxes[MAX_CPUS];

static volatile u32 pings[MAX_CPUS], pongs[MAX_CPUS];

/* Round trips between two different CPUs and of a CPU to itself, in ticks of the counter. */
static struct figure {
    u64 least, most, sum, count;
} apart = {.least = ~0ul}, alone = {.least = ~0ul};

static void on_ping(u32 intid)
{
    volatile struct box *mine = &boxes[cpu_id()];

    (void)intid;
    pings[cpu_id()]++;
    mine->answer = ~mine->question;
    dsb();
    gic_sgi(PONG, 1u << mine->sender);
}

static void on_pong(u32 intid)
{
    (void)intid;
    dsb();
    pongs[cpu_id()]++;
}

static void record(struct figure *figure, u64 ticks)
{
    figure->least = ticks < figure->least ? ticks : figure->least;
    figure->most = ticks > figure->most ? ticks : figure->most;
    figure->sum += ticks;
    figure->count++;
}

/* One round trip from this CPU; whether it brought back what it should. */
static bool ping(u32 to, u64 question, struct figure *figure)
{
    u32 me = cpu_id(), before = pongs[me];
    u64 start;

    boxes[to].sender = me;
    boxes[to].question = question;
    dsb();
    start = virtual_count();
    gic_sgi(PING, 1u << to);
    if (!wait_value(&pongs[me], before + 1, PATIENCE_US))
        return false;
    if (figure)
        record(figure, virtual_count() - start);
    return boxes[to].answer == ~question;
}

/* Where it runs: ROUNDS pings to each CPU. The number of good ones. */
static u64 ping_each(u64 argument)
{
    u32 good = 0;

    for (u32 to = 0; to < cpus; to++)
        for (u32 n = 0; n < ROUNDS; n++)
            good += ping(to, argument + n, to == cpu_id() ? &alone : &apart);
    return good;
}

/* All CPUs at once, each to the next one only, as a box has one sender. */
static u64 ping_next(u64 argument)
{
    u32 good = 0;

    for (u32 n = 0; n < 4 * ROUNDS; n++)
        good += ping(next_cpu(cpu_id()), argument + n, NULL);
    return good;
}

/* Asleep in WFI until so many pings came. */
static volatile u32 sleep_until;

static u64 doze(u64 argument)
{
    while (pings[cpu_id()] < sleep_until) {
        irq_disable();
        if (pings[cpu_id()] < sleep_until)
            wfi();
        irq_enable();
    }
    return argument;
}

static u32 sum_of(const volatile u32 *counts)
{
    u32 sum = 0;

    for (u32 cpu = 0; cpu < cpus; cpu++)
        sum += counts[cpu];
    return sum;
}

static void clear(void)
{
    for (u32 cpu = 0; cpu < cpus; cpu++)
        pings[cpu] = pongs[cpu] = 0;
    dsb();
}

static void check_pairs(void)
{
    u32 wanted = cpus * ROUNDS, good = 0;

    clear();
    for (u32 cpu = 0; cpu < cpus; cpu++)
        good += on_cpu(cpu, ping_each, 1000 * cpu) == wanted;
    check_equal(good, cpus, "every CPU pings every CPU, itself too, and gets its own answer each time");
    check_equal(sum_of(pings), cpus * wanted, "no ping was lost or doubled");
    check_equal(sum_of(pongs), cpus * wanted, "no pong was");
}

static void check_ring(void)
{
    u32 good = 0;

    clear();
    for (u32 cpu = 1; cpu < cpus; cpu++)
        smp_send(cpu, ping_next, 77 * cpu);
    good += ping_next(0) == 4 * ROUNDS;
    for (u32 cpu = 1; cpu < cpus; cpu++)
        good += smp_wait(cpu) == 4 * ROUNDS;
    check_equal(good, cpus, "all CPUs ping the next one at the same time, and each gets its answers");
    good = 0;
    for (u32 cpu = 0; cpu < cpus; cpu++)
        good += pings[cpu] == 4 * ROUNDS && pongs[cpu] == 4 * ROUNDS;
    check_equal(good, cpus, "each took as many as it sent");
}

/* CPU 0 pings all others in turn, which sleep in between. */
static void check_sleepers(void)
{
    u32 good = 0;

    clear();
    sleep_until = ROUNDS;
    for (u32 cpu = 1; cpu < cpus; cpu++)
        smp_send(cpu, doze, 0);
    delay_us(20);
    for (u32 n = 0; n < ROUNDS; n++)
        for (u32 cpu = 1; cpu < cpus; cpu++)
            good += ping(cpu, n, NULL);
    check_equal(good, (cpus - 1) * ROUNDS, "CPUs asleep in WFI answer, too");
    for (u32 cpu = 1; cpu < cpus; cpu++)
        smp_wait(cpu);
    check_equal(sum_of(pings), (cpus - 1) * ROUNDS, "and wake for nothing else");
}

static void note_figure(const char *what, const struct figure *figure)
{
    if (figure->count)
        note("%s: at least %lu ns, %lu ns on average, at most %lu ns", what, ns_of_ticks(figure->least),
             ns_of_ticks(figure->sum / figure->count), ns_of_ticks(figure->most));
}

int main(void)
{
    gictest_start();
    gic_attach(PING, on_ping);
    gic_attach(PONG, on_pong);
    open_all();
    check_pairs();
    check_ring();
    check_sleepers();
    gictest_stop();
    check_equal(gic_spurious, 0, "no spurious interrupt");
    note_figure("to itself and back", &alone);
    note_figure("to another CPU and back", &apart);
    return 0;
}
