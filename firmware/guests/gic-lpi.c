/* LPIs by way of the ITS: each command, to each CPU. CPU 0 sends the commands; what they generate is looked at where
 * it should arrive. IHI 0069, "Locality-specific Peripheral Interrupts and the ITS", "ITS commands". */
#include "gictest.h"
#include "its.h"
#include "rt.h"
#include "timer.h"

#define DEVICE  0u
#define SECOND  1u
#define OTHER   2u
#define LPI     LPI_FIRST
#define EVENTS  8u /* of DEVICE: event n is LPI + n */
#define WIDE    (LPI_FIRST + 100u)
#define OTHERS  (LPI_FIRST + 64u)
#define BURST   80u /* with their SYNCs more than the queue holds */
#define WAIT_US 1000u

static u64 lpis_on(u64 argument)
{
    its_cpu_init();
    return argument;
}

/* Events of DEVICE mapped to ``cpu``, enabled, at the default priority. */
static void map_to(u32 cpu)
{
    for (u32 n = 0; n < EVENTS; n++) {
        lpi_configure(LPI + n, PRIORITY_DEFAULT, true);
        its_mapti(DEVICE, n, LPI + n, cpu);
        its_inv(DEVICE, n);
    }
    its_sync_all(cpus);
}

static void unmap(void)
{
    for (u32 n = 0; n < EVENTS; n++)
        its_discard(DEVICE, n);
    its_sync_all(cpus);
}

static void send(u32 device, u32 event)
{
    its_int(device, event);
    its_sync_all(cpus);
}

/* Only ``cpu`` took ``lpi``, so many times, and nobody anything else. It gets the time for it. */
static bool only_on(u32 cpu, u32 lpi, u32 times)
{
    bool good = wait_total(times);

    delay_us(20);
    for (u32 other = 0; other < cpus; other++)
        good &= took_only(other, lpi, other == cpu ? times : 0);
    forget();
    return good;
}

/* On how many CPUs ``holds``; each has the events of DEVICE mapped to it, IRQs are open on all. */
static void targeted(const char *sentence, bool (*holds)(u32 cpu))
{
    u32 good = 0;

    for (u32 cpu = 0; cpu < cpus; cpu++) {
        map_to(cpu);
        forget();
        open_all();
        good += holds(cpu);
        close_all();
        unmap();
    }
    check_equal(good, cpus, "%s", sentence);
}

static bool by_int(u32 cpu)
{
    bool good = true;

    for (u32 n = 0; n < EVENTS; n++) {
        send(DEVICE, n);
        good &= only_on(cpu, LPI + n, 1);
    }
    return good;
}

static bool burst(u32 cpu)
{
    bool good = true;

    for (u32 n = 1; good && n <= BURST; n++) {
        its_int(DEVICE, 0);
        its_sync(cpu);
        good = wait_value(&taken[cpu].count, n, PATIENCE_US);
    }
    return good && wait_total(BURST);
}

static bool same_event_of_another(u32 cpu)
{
    bool good;

    lpi_configure(OTHERS, PRIORITY_DEFAULT, true);
    its_mapti(SECOND, 0, OTHERS, next_cpu(cpu));
    its_inv(SECOND, 0);
    send(DEVICE, 0);
    good = only_on(cpu, LPI, 1);
    send(SECOND, 0);
    good &= only_on(next_cpu(cpu), OTHERS, 1);
    its_discard(SECOND, 0);
    return good;
}

static bool by_mapi(u32 cpu)
{
    bool good;

    lpi_configure(WIDE, PRIORITY_DEFAULT, true);
    its_mapi(ITS_WIDE_DEVICE, WIDE, cpu);
    its_inv(ITS_WIDE_DEVICE, WIDE);
    send(ITS_WIDE_DEVICE, WIDE);
    good = only_on(cpu, WIDE, 1);
    its_discard(ITS_WIDE_DEVICE, WIDE);
    return good;
}

static bool moved(u32 cpu)
{
    bool good;

    its_movi(DEVICE, 0, next_cpu(cpu));
    send(DEVICE, 0);
    good = only_on(next_cpu(cpu), LPI, 1);
    send(DEVICE, 1);
    return good && only_on(cpu, LPI + 1, 1);
}

static u64 highest_is(u64 lpi) { return gic_wait_pending((u32)lpi, WAIT_US); }
static u64 nothing_pends(u64 argument) { return gic_highest() == INTID_SPURIOUS && argument == 0; }

/* Pending at ``cpu``, whose IRQs are masked. */
static bool hold(u32 cpu, u32 event)
{
    close_all();
    send(DEVICE, event);
    return on_cpu(cpu, highest_is, LPI + event) != 0;
}

static bool moved_while_pending(u32 cpu)
{
    bool good = hold(cpu, 0);

    its_movi(DEVICE, 0, next_cpu(cpu));
    its_sync_all(cpus);
    good &= on_cpu(next_cpu(cpu), highest_is, LPI) != 0;
    good &= cpu == next_cpu(cpu) || on_cpu(cpu, nothing_pends, 0);
    open_all();
    return good && only_on(next_cpu(cpu), LPI, 1);
}

/* Everything pending at ``cpu`` goes to the next, to which its collection is mapped before. */
static bool all_moved(u32 cpu)
{
    u32 next = next_cpu(cpu);
    bool good = true;

    close_all();
    for (u32 n = 0; n < EVENTS; n++)
        its_int(DEVICE, n);
    its_sync_all(cpus);
    delay_us(20);
    its_mapc(cpu, next);
    its_sync_all(cpus);
    if (next != cpu)
        its_movall(cpu, next);
    its_sync_all(cpus);
    good &= cpu == next || on_cpu(cpu, nothing_pends, 0);
    open_all();
    good &= wait_total(EVENTS);
    for (u32 n = 0; n < EVENTS; n++)
        good &= times_taken(next, LPI + n) == 1;
    forget();
    send(DEVICE, 2);
    good &= only_on(next, LPI + 2, 1);
    its_mapc(cpu, cpu);
    its_sync_all(cpus);
    send(DEVICE, 3);
    return good && only_on(cpu, LPI + 3, 1);
}

static bool cleared(u32 cpu)
{
    bool good = hold(cpu, 0);

    its_clear(DEVICE, 0);
    its_sync_all(cpus);
    good &= on_cpu(cpu, nothing_pends, 0) != 0;
    open_all();
    good &= only_on(cpu, LPI, 0);
    send(DEVICE, 0);
    return good && only_on(cpu, LPI, 1);
}

static bool discarded(u32 cpu)
{
    bool good = hold(cpu, 0);

    its_discard(DEVICE, 0);
    its_sync_all(cpus);
    good &= on_cpu(cpu, nothing_pends, 0) != 0;
    open_all();
    good &= only_on(cpu, LPI, 0);
    its_mapti(DEVICE, 0, LPI + 20, cpu);
    lpi_configure(LPI + 20, PRIORITY_DEFAULT, true);
    its_inv(DEVICE, 0);
    send(DEVICE, 0);
    return good && only_on(cpu, LPI + 20, 1);
}

static bool merges(u32 cpu)
{
    bool good = hold(cpu, 0);

    send(DEVICE, 0);
    send(DEVICE, 0);
    open_all();
    return good && only_on(cpu, LPI, 1);
}

/* Disabled: kept, and taken when enabled. ``update`` makes the GIC read the configuration anew. */
static bool waits_for_enable(u32 cpu, void (*update)(u32 cpu))
{
    bool good;

    lpi_configure(LPI, PRIORITY_DEFAULT, false);
    update(cpu);
    send(DEVICE, 0);
    good = only_on(cpu, LPI, 0);
    lpi_configure(LPI, PRIORITY_DEFAULT, true);
    update(cpu);
    good &= only_on(cpu, LPI, 1);
    send(DEVICE, 0);
    return good && only_on(cpu, LPI, 1);
}

static void update_by_inv(u32 cpu)
{
    its_inv(DEVICE, 0);
    its_sync(cpu);
}

static void update_by_invall(u32 cpu)
{
    its_invall(cpu);
    its_sync(cpu);
}

static bool enabled_by_inv(u32 cpu) { return waits_for_enable(cpu, update_by_inv); }
static bool enabled_by_invall(u32 cpu) { return waits_for_enable(cpu, update_by_invall); }

static bool disabled_while_pending(u32 cpu)
{
    bool good = hold(cpu, 0);

    lpi_configure(LPI, PRIORITY_DEFAULT, false);
    update_by_inv(cpu);
    good &= on_cpu(cpu, nothing_pends, 0) != 0;
    open_all();
    good &= only_on(cpu, LPI, 0);
    lpi_configure(LPI, PRIORITY_DEFAULT, true);
    update_by_inv(cpu);
    return good && only_on(cpu, LPI, 1);
}

/* Event n gets priority 0x10 * (EVENTS - n), so the last is the highest. */
static bool in_order(u32 cpu)
{
    bool good;

    close_all();
    for (u32 n = 0; n < EVENTS; n++)
        lpi_configure(LPI + n, (u8)(0x10 * (EVENTS - n)), true);
    update_by_invall(cpu);
    for (u32 n = 0; n < EVENTS; n++)
        its_int(DEVICE, n);
    its_sync_all(cpus);
    good = on_cpu(cpu, highest_is, LPI + EVENTS - 1) != 0;
    open_all();
    good &= wait_total(EVENTS) && taken[cpu].count == EVENTS;
    for (u32 n = 0; n < EVENTS; n++)
        good &= taken[cpu].intid[n] == LPI + EVENTS - 1 - n && taken[cpu].priority[n] == 0x10 * (n + 1);
    return good;
}

/* An LPI has no active state: after the priority drop it can be taken again, and needs no DIR. */
static u64 taken_twice_without_dir(u64 argument)
{
    u32 first, second;

    (void)argument;
    gic_set_eoimode(1);
    if (!gic_wait_pending(LPI, WAIT_US))
        return false;
    first = gic_ack();
    gic_eoi(first);
    if (gic_running() < PRIORITY_IDLE_LEAST)
        return false;
    gic_sgi_self(0); /* tells CPU 0 nothing; any interrupt can come now */
    second = gic_wait_pending(0, WAIT_US) ? gic_ack() : INTID_SPURIOUS;
    gic_eoi(second);
    gic_dir(second);
    return first == LPI && second == 0;
}

static u64 take_by_hand(u64 lpi)
{
    u32 ack = gic_wait_pending((u32)lpi, WAIT_US) ? gic_ack() : INTID_SPURIOUS;

    gic_eoi(ack);
    gic_set_eoimode(0);
    return ack == lpi && gic_running() >= PRIORITY_IDLE_LEAST;
}

static bool no_active_state(u32 cpu)
{
    bool good;

    close_all();
    send(DEVICE, 0);
    good = on_cpu(cpu, taken_twice_without_dir, 0) != 0;
    send(DEVICE, 0);
    return good && on_cpu(cpu, take_by_hand, LPI);
}

static void check_other_device(void)
{
    u32 good = 0;

    open_all();
    for (u32 cpu = 0; cpu < cpus; cpu++) {
        its_mapd(OTHER);
        lpi_configure(OTHERS + 1, PRIORITY_DEFAULT, true);
        its_mapti(OTHER, 31, OTHERS + 1, cpu);
        its_inv(OTHER, 31);
        send(OTHER, 31);
        good += only_on(cpu, OTHERS + 1, 1);
        its_discard(OTHER, 31);
        its_unmapd(OTHER);
        its_sync_all(cpus);
    }
    close_all();
    check_equal(good, cpus, "a device can be mapped, unmapped and mapped again; its last event arrives");
}

/* Which DeviceID a CPU's store has is the system's choice, and under KVM it has no effect: not judged. */
static void note_store(void)
{
    u32 good = 0;

    for (u32 cpu = 0; cpu < cpus; cpu++) {
        map_to(cpu);
        forget();
        open_all();
        its_store_event(1);
        good += only_on(cpu, LPI + 1, 1);
        close_all();
        unmap();
    }
    note("a store to GITS_TRANSLATER is an event of device 0: %u of %u", good, cpus);
}

static void start(void)
{
    its_init();
    gic_attach_lpis(take);
    for (u32 cpu = 0; cpu < cpus; cpu++) {
        on_cpu(cpu, lpis_on, 0);
        its_mapc(cpu, cpu);
    }
    its_mapd(DEVICE);
    its_mapd(SECOND);
    its_mapd(ITS_WIDE_DEVICE);
    its_sync_all(cpus);
}

int main(void)
{
    gictest_start();
    if (!its_present())
        nothing_to_do("a GICv3 with an ITS");
    start();
    targeted("MAPTI, INT: each of 8 events arrives at the CPU of its collection, once", by_int);
    targeted("80 INTs are 80 interrupts, and the queue goes round", burst);
    targeted("the same event of another device is another LPI", same_event_of_another);
    targeted("MAPI: the EventID is the LPI", by_mapi);
    check_other_device();
    targeted("MOVI: the event moves to the next CPU, others stay", moved);
    targeted("MOVI takes along what is pending", moved_while_pending);
    targeted("MAPC and MOVALL: 8 pending ones move to the next CPU, and the collection with them", all_moved);
    targeted("CLEAR takes back what is pending", cleared);
    targeted("DISCARD does too, and the event can be mapped to another LPI", discarded);
    targeted("an INT while pending is taken once", merges);
    targeted("INV: a disabled LPI waits, and is taken when enabled", enabled_by_inv);
    targeted("and so by INVALL", enabled_by_invall);
    targeted("INV: an LPI disabled while pending waits", disabled_while_pending);
    targeted("INVALL: 8 LPIs get new priorities, and are taken in their order", in_order);
    targeted("EOImode 1: after EOIR an LPI can be taken again, without DIR", no_active_state);
    note_store();
    gictest_stop();
    return 0;
}
