/* Both timers of every CPU at rates of their own, all at once: each CPU takes exactly its own ticks, in WFI and in WFE;
 * and the event stream of CNTKCTL_EL1, which ends a WFE without any interrupt. */
#include "gictest.h"
#include "mmu.h"
#include "rt.h"
#include "smp.h"
#include "timer.h"

/* Rates go by a unit of time, which is shorter in WFE: CPUs that wait there may well stay awake all the time. */
#define WFI_UNIT_US 30u
#define WFI_UNITS   200u
#define WFE_UNIT_US 6u
#define WFE_UNITS   25u

#define CNTKCTL_EVNTEN    (1ul << 2)
#define CNTKCTL_EVNTDIR   (1ul << 3)
#define CNTKCTL_EVNTI(bit) ((u64)(bit) << 4)
#define EVENTS   2u
#define EVENT_US 10u /* between two, at most */

/* One timer of one CPU: it stops itself after ``wanted`` ticks. */
static volatile struct beat {
    u64 first, period, worst; /* in ticks of its counter */
    u32 wanted, count, early, foreign;
} beats[MAX_CPUS][2];

static const struct timer *const timers[2] = {&virtual_timer, &physical_timer};

static void on_tick(u32 intid)
{
    u32 which = intid == INTID_PTIMER;
    const struct timer *t = timers[which];
    volatile struct beat *mine = &beats[cpu_id()][which];
    u64 deadline = t->get_cval(), now = t->count();

    mine->early += now < deadline;
    mine->foreign += deadline != mine->first + mine->count * mine->period;
    mine->worst = now - deadline > mine->worst ? now - deadline : mine->worst;
    t->set_cval(deadline + mine->period);
    if (++mine->count == mine->wanted)
        t->set_ctl(0);
}

static u64 enable_timers(u64 argument)
{
    gic_enable(INTID_VTIMER, on_tick);
    gic_enable(INTID_PTIMER, on_tick);
    return argument;
}

/* No two rates of one machine are the same: 5 units, 6 units, and so on. The timer ticks for as long as ``units``. */
static void start_beat(u32 which, u64 unit_us, u32 units)
{
    u32 each_units = 5 + 2 * cpu_id() + which;
    volatile struct beat *mine = &beats[cpu_id()][which];

    *mine = (struct beat){.period = ticks_of_us(each_units * unit_us), .wanted = units / each_units};
    mine->first = timers[which]->count() + mine->period;
    timers[which]->set_cval(mine->first);
    timers[which]->set_ctl(CTL_ENABLE);
}

static bool beating(void)
{
    volatile struct beat *mine = beats[cpu_id()];

    return mine[0].count < mine[0].wanted || mine[1].count < mine[1].wanted;
}

/* Masked between the test and the WFI, so that the last tick cannot come in between. */
static u64 beat_in_wfi(u64 argument)
{
    irq_disable();
    start_beat(0, WFI_UNIT_US, WFI_UNITS);
    start_beat(1, WFI_UNIT_US, WFI_UNITS);
    while (beating()) {
        wfi();
        irq_enable();
        irq_disable();
    }
    return argument;
}

/* An exception return sets the event register (DDI 0487 D1.6.1), so a tick that comes before the WFE ends it, too. */
static u64 beat_in_wfe(u64 argument)
{
    start_beat(0, WFE_UNIT_US, WFE_UNITS);
    start_beat(1, WFE_UNIT_US, WFE_UNITS);
    irq_enable();
    while (beating())
        wfe();
    irq_disable();
    return argument;
}

static bool all_of(bool (*holds)(const volatile struct beat *beat))
{
    bool good = true;

    for (u32 cpu = 0; cpu < cpus; cpu++)
        good = good && holds(&beats[cpu][0]) && holds(&beats[cpu][1]);
    return good;
}

static bool complete(const volatile struct beat *beat) { return beat->count == beat->wanted; }
static bool punctual(const volatile struct beat *beat) { return beat->early == 0; }
static bool own(const volatile struct beat *beat) { return beat->foreign == 0; }
static bool prompt(const volatile struct beat *beat) { return beat->worst < beat->period; }

static u64 cval_is_the_next(u64 argument)
{
    bool good = true;

    for (u32 which = 0; which < 2; which++) {
        volatile struct beat *mine = &beats[cpu_id()][which];

        good = good && timers[which]->get_cval() == mine->first + mine->wanted * mine->period;
        good = good && timers[which]->get_ctl() == 0;
    }
    return argument + good;
}

static void note_worst(const char *where)
{
    u64 worst = 0;

    for (u32 cpu = 0; cpu < cpus; cpu++)
        for (u32 which = 0; which < 2; which++)
            worst = beats[cpu][which].worst > worst ? beats[cpu][which].worst : worst;
    note("%s: the latest tick came %lu ns after its deadline", where, ns_of_ticks(worst));
}

static void everywhere(u64 (*work)(u64 argument))
{
    for (u32 cpu = 1; cpu < cpus; cpu++)
        smp_send(cpu, work, 0);
    work(0);
    for (u32 cpu = 1; cpu < cpus; cpu++)
        smp_wait(cpu);
}

static void check_beats(const char *where, u64 (*work)(u64 argument))
{
    everywhere(work);
    check(all_of(complete), "%s: both timers of every CPU tick as often as they should", where);
    check(all_of(punctual), "%s: no tick comes before its deadline", where);
    check(all_of(own), "%s: each finds the deadline that this CPU wrote", where);
    check(all_of(prompt), "%s: none comes a period late, so nothing drifts", where);
    check_equal(count_cpus(cval_is_the_next, 0), cpus, "%s: CVAL moved by whole periods, and the timers are off", where);
    note_worst(where);
}

/* The bit whose rising edges are EVENT_US apart or a little less. */
static u32 event_bit(void)
{
    u32 bit = 0;

    while (bit < 15 && 4ul << bit <= ticks_of_us(EVENT_US))
        bit++;
    return bit;
}

/* WFEs, IRQs masked, until the time of EVENTS events is over: nothing but the stream ends the last one. No register
 * changes from one WFE to the next, so a machine that can tell may sleep. Returns whether the end was seen in time. */
static u64 wait_for_events(u64 direction)
{
    u64 apart = 2ul << event_bit(), end = virtual_count() + EVENTS * apart, status = 0, late;

    virtual_timer.set_cval(end);
    virtual_timer.set_ctl(CTL_ENABLE | CTL_IMASK);
    write_sysreg(cntkctl_el1, CNTKCTL_EVNTI(event_bit()) | direction | CNTKCTL_EVNTEN);
    isb();
    __asm__ volatile("1:\twfe\n\tisb\n\tmrs %0, cntv_ctl_el0\n\tand %0, %0, #4\n\tcbz %0, 1b"
                     : "+r"(status) : : "memory");
    late = virtual_count() - end;
    write_sysreg(cntkctl_el1, 0);
    virtual_timer.set_ctl(0);
    return late <= apart + ticks_of_us(EVENT_US) * cpus;
}

static void check_event_stream(void)
{
    each("the event stream ends WFEs at rising edges", wait_for_events, 0);
    each("and at falling edges", wait_for_events, CNTKCTL_EVNTDIR);
}

int main(void)
{
    gictest_start();
    for (u32 cpu = 0; cpu < cpus; cpu++)
        on_cpu(cpu, enable_timers, 0);
    check_beats("in WFI", beat_in_wfi);
    check_beats("in WFE", beat_in_wfe);
    check_event_stream();
    gictest_stop();
    check_equal(gic_spurious, 0, "no spurious interrupt");
    return 0;
}
