/* CVAL, TVAL and CTL of one timer (DDI 0487 D12.2): when the condition is met, when the line is high,
 * and what each view reads. The line is level sensitive, so most cases end with "no second interrupt". */
#include "timer_checks.h"

#include "gic.h"
#include "rt.h"

#define FAR_AHEAD_US 1000000u

static const struct timer *t;
static volatile u32 fired;
static u64 fired_at;

/* Take the interrupt and mask it at the timer: the level drops before the end of interrupt. */
static void on_fire(u32 intid)
{
    (void)intid;
    fired_at = t->count();
    t->set_ctl(t->get_ctl() | CTL_IMASK);
    fired++;
}

static void quiet(void)
{
    irq_disable();
    t->set_ctl(0);
    fired = 0;
    irq_enable();
}

static bool condition_met(void)
{
    return t->get_ctl() & CTL_ISTATUS;
}

/* Exactly one interrupt within ``us``, and no other right after. */
static bool fires_once(u64 us)
{
    if (!wait_value(&fired, 1, us))
        return false;
    delay_us(20);
    return fired == 1;
}

static bool stays_quiet(u64 us)
{
    delay_us(us);
    return fired == 0;
}

static u64 arm_cval(u64 cval)
{
    quiet();
    t->set_cval(cval);
    t->set_ctl(CTL_ENABLE);
    return cval;
}

/* Returns the CVAL that the write of TVAL made. */
static u64 arm_tval(s32 tval)
{
    quiet();
    t->set_tval((u32)tval);
    t->set_ctl(CTL_ENABLE);
    return t->get_cval();
}

static void check_cval(void)
{
    u64 deadline = arm_cval(t->count() + ticks_of_us(50));

    check(fires_once(500), "%s: CVAL in the future fires once", t->name);
    check(fired_at >= deadline, "%s: the count has reached CVAL when it fires", t->name);
    arm_cval(t->count() - 1);
    check(fires_once(100), "%s: CVAL in the past fires at once", t->name);
    arm_cval(0);
    check(fires_once(100), "%s: CVAL zero fires at once", t->name);
    arm_cval(~0ul);
    check(!condition_met(), "%s: CVAL of all ones is not met", t->name);
    check(stays_quiet(100), "%s: CVAL of all ones never fires", t->name);
    arm_cval(1ul << 63);
    check(!condition_met() && stays_quiet(20), "%s: CVAL compares unsigned (2^63 is the far future)", t->name);
    quiet();
    t->set_cval(0x123456789abcdef0ul);
    check_equal(t->get_cval(), 0x123456789abcdef0ul, "%s: CVAL keeps 64 bits", t->name);
}

static void check_tval_fires(void)
{
    u64 before = t->count(), deadline = arm_tval((s32)ticks_of_us(50));

    check(deadline >= before + ticks_of_us(50), "%s: a write of TVAL sets CVAL to count + TVAL", t->name);
    check(fires_once(500) && fired_at >= deadline, "%s: TVAL in the future fires once", t->name);
    arm_tval(0);
    check(fires_once(100), "%s: TVAL zero fires at once", t->name);
    arm_tval(-1);
    check(fires_once(100), "%s: TVAL -1 fires at once", t->name);
    arm_tval(-1000);
    check(fires_once(100), "%s: TVAL -1000 fires at once", t->name);
}

/* CVAL after a write of ``tval`` lies between two counts taken around it. */
static bool tval_sign_extends(s32 tval)
{
    u64 offset = (u64)(s64)tval, before, cval;

    quiet();
    before = t->count();
    t->set_tval((u32)tval);
    cval = t->get_cval();
    return cval - (before + offset) <= t->count() - before;
}

static void check_tval_extremes(void)
{
    u64 cval;

    check(tval_sign_extends(-5), "%s: TVAL -5 is sign-extended into CVAL", t->name);
    check(tval_sign_extends(INT32_MIN), "%s: TVAL INT32_MIN is sign-extended into CVAL", t->name);
    check(tval_sign_extends(INT32_MAX), "%s: TVAL INT32_MAX is added to the count", t->name);
    quiet();
    t->set_tval(0x5a5a5a5affffffffull);
    cval = t->get_cval();
    check(t->count() - cval < ticks_of_us(1000), "%s: the upper half of a TVAL write is ignored", t->name);
    /* With a count below 2^31 the sum wraps below zero: the comparison stays unsigned and 64 bits wide. */
    cval = arm_tval(INT32_MIN);
    check(condition_met() == (t->count() >= cval), "%s: TVAL INT32_MIN follows the unsigned comparison", t->name);
    arm_tval(INT32_MAX);
    check(!condition_met() && stays_quiet(20), "%s: TVAL INT32_MAX is the future", t->name);
    quiet();
}

/* TVAL read = low 32 bits of CVAL - count, with ``delta`` = CVAL - count at some time in between. */
static bool tval_reads(u64 cval)
{
    u64 before, after;
    u32 tval;

    t->set_cval(cval);
    before = t->count();
    tval = (u32)t->get_tval();
    after = t->count();
    return (u32)((u32)(cval - before) - tval) <= (u32)(after - before);
}

static void check_tval_view(void)
{
    u64 now;

    quiet();
    now = t->count();
    check(tval_reads(now + ticks_of_us(FAR_AHEAD_US)), "%s: TVAL reads the ticks that are left", t->name);
    check(tval_reads(now), "%s: TVAL goes negative after CVAL", t->name);
    check(tval_reads(now + (1ul << 32)), "%s: TVAL reads only 32 bits of the distance", t->name);
    check(tval_reads(0) && tval_reads(~0ul), "%s: TVAL wraps for a CVAL at either end", t->name);
    t->set_cval(t->count() - 1000);
    check_equal(t->get_tval() >> 32, 0, "%s: TVAL reads zero in its upper half", t->name);
}

static void check_imask(void)
{
    quiet();
    t->set_cval(t->count());
    t->set_ctl(CTL_ENABLE | CTL_IMASK);
    check(condition_met(), "%s: IMASK leaves ISTATUS set", t->name);
    check(stays_quiet(50), "%s: IMASK keeps the interrupt back", t->name);
    t->set_ctl(CTL_ENABLE);
    check(fires_once(100), "%s: clearing IMASK delivers it", t->name);
    check(condition_met(), "%s: ISTATUS stays set while CVAL is in the past", t->name);
}

static void check_enable(void)
{
    quiet();
    t->set_cval(t->count());
    check(stays_quiet(50), "%s: a disabled timer does not fire", t->name);
    t->set_ctl(CTL_ENABLE);
    check(fires_once(100), "%s: it fires when it is enabled late", t->name);
    /* The deadline is still past; CTL alone makes it fire again. */
    fired = 0;
    t->set_ctl(0);
    check(stays_quiet(20), "%s: disabling lowers the line", t->name);
    t->set_ctl(CTL_ENABLE);
    check(fires_once(100), "%s: writing CTL alone arms it again", t->name);
    arm_cval(t->count() + ticks_of_us(30));
    t->set_ctl(0);
    check(stays_quiet(100), "%s: disabling before the deadline cancels it", t->name);
}

static void check_ctl_bits(void)
{
    quiet();
    t->set_cval(t->count() + ticks_of_us(FAR_AHEAD_US));
    t->set_ctl(~0ul);
    check_equal(t->get_ctl(), CTL_ENABLE | CTL_IMASK, "%s: CTL keeps ENABLE and IMASK only", t->name);
    check(!condition_met(), "%s: ISTATUS cannot be written", t->name);
    t->set_cval(0);
    check_equal(t->get_ctl(), CTL_ENABLE | CTL_IMASK | CTL_ISTATUS,
                "%s: moving CVAL to the past sets ISTATUS", t->name);
    t->set_cval(~0ul);
    check_equal(t->get_ctl(), CTL_ENABLE | CTL_IMASK, "%s: moving CVAL ahead clears ISTATUS", t->name);
}

/* The line is a level: what was never taken is gone when the level drops. */
static void check_level(void)
{
    quiet();
    irq_disable();
    t->set_cval(0);
    t->set_ctl(CTL_ENABLE);
    check(gic_wait_pending(t->intid, 100), "%s: the interrupt is pending while masked in PSTATE", t->name);
    t->set_cval(t->count() + ticks_of_us(FAR_AHEAD_US));
    delay_us(5);
    check(!gic_bit_read(t->intid, GIC_ISPENDR), "%s: it is not pending after CVAL moved ahead", t->name);
    irq_enable();
    check(stays_quiet(20), "%s: nothing is delivered for a level that dropped", t->name);
    quiet();
}

/* A handler that leaves the level high is entered again. */
static volatile u32 entered;

static void leave_high_twice(u32 intid)
{
    (void)intid;
    if (++entered == 3)
        t->set_ctl(0);
}

static void check_level_repeats(void)
{
    quiet();
    entered = 0;
    gic_attach(t->intid, leave_high_twice);
    t->set_cval(0);
    t->set_ctl(CTL_ENABLE);
    check(wait_value(&entered, 3, 200), "%s: a level left high interrupts again after its end", t->name);
    delay_us(20);
    check_equal(entered, 3, "%s: and stops when it drops", t->name);
    gic_attach(t->intid, on_fire);
    quiet();
}

static void check_rearm_in_sequence(void)
{
    u32 good = 0;

    for (u32 n = 1; n <= 10; n++) {
        u64 deadline = arm_cval(t->count() + ticks_of_us(3 * n));

        good += fires_once(200) && fired_at >= deadline;
    }
    check_equal(good, 10, "%s: ten one-shots in a row fire once each, none early", t->name);
    quiet();
}

void timer_checks(const struct timer *timer)
{
    t = timer;
    gic_init();
    gic_enable(t->intid, on_fire);
    irq_enable();
    while (t->count() < 2000)
        ; /* so that small negative TVALs do not reach below a count of zero */
    check_cval();
    check_tval_fires();
    check_tval_extremes();
    check_tval_view();
    check_imask();
    check_enable();
    check_ctl_bits();
    check_level();
    check_level_repeats();
    check_rearm_in_sequence();
    irq_disable();
}
