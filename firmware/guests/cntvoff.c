/* The two counters: one offset between them, both monotonic, and who may read them from EL0. */
#include "rt.h"
#include "timer.h"
#include "user.h"

#define ROUNDS 1000u

#define CNTKCTL_EL0PCTEN (1ul << 0)
#define CNTKCTL_EL0VCTEN (1ul << 1)
#define CNTKCTL_EL0VTEN  (1ul << 8)
#define CNTKCTL_EL0PTEN  (1ul << 9)

/* ISS of a trapped MRS (direction 1) or MSR (0) of Rt = x0 (DDI 0487, ESR_ELx, EC 0x18). */
#define SYSREG_ISS(op0, op1, crn, crm, op2, direction) \
    ((op0) << 20 | (op2) << 17 | (op1) << 14 | (crn) << 10 | (crm) << 1 | (direction))

/* Each round bounds CNTPCT - CNTVCT from both sides; a constant offset lies within all the bounds. */
static void check_offset(void)
{
    s64 low = INT64_MIN, high = INT64_MAX;

    for (u32 n = 0; n < ROUNDS; n++) {
        u64 before = virtual_count(), physical = physical_count(), after = virtual_count();

        if ((s64)(physical - after) > low)
            low = (s64)(physical - after);
        if ((s64)(physical - before) < high)
            high = (s64)(physical - before);
    }
    check(low <= high, "CNTPCT - CNTVCT is the same in 1000 rounds");
    note("the offset lies between %ld and %ld ticks", low, high);
}

static void check_monotonic(u64 (*count)(void), const char *name)
{
    u64 last = count(), start = last;
    u32 backwards = 0;

    for (u32 n = 0; n < ROUNDS; n++) {
        u64 now = count();

        backwards += now < last;
        last = now;
    }
    check_equal(backwards, 0, "%s never goes back", name);
    check(last > start, "%s advances", name);
}

/* Both count the same ticks over the same time. */
static void check_rates(void)
{
    u64 v0 = virtual_count(), p0 = physical_count(), v1, p1, slack;

    delay_us(200);
    v1 = virtual_count();
    p1 = physical_count();
    slack = ticks_of_us(5);
    check(p1 - p0 <= v1 - v0 + slack && v1 - v0 <= p1 - p0 + slack, "both counters run at the same rate");
}

struct access {
    const char *name;
    const char *stub;
    u64 enable;
    u32 iss;
};

static const struct access accesses[] = {
    {"CNTVCT_EL0", user_cntvct, CNTKCTL_EL0VCTEN, SYSREG_ISS(3, 3, 14, 0, 2, 1)},
    {"CNTPCT_EL0", user_cntpct, CNTKCTL_EL0PCTEN, SYSREG_ISS(3, 3, 14, 0, 1, 1)},
    {"CNTFRQ_EL0", user_cntfrq, CNTKCTL_EL0VCTEN, SYSREG_ISS(3, 3, 14, 0, 0, 1)},
    {"CNTV_CTL_EL0", user_cntv_ctl, CNTKCTL_EL0VTEN, SYSREG_ISS(3, 3, 14, 3, 1, 1)},
    {"CNTP_CTL_EL0", user_cntp_ctl, CNTKCTL_EL0PTEN, SYSREG_ISS(3, 3, 14, 2, 1, 0)},
};

static struct context run_with(const struct access *a, u64 cntkctl)
{
    write_sysreg(cntkctl_el1, cntkctl);
    isb();
    return user_run(a->stub, 0, 0);
}

static void check_el0_access(const struct access *a)
{
    struct context trapped = run_with(a, 0), allowed = run_with(a, a->enable);

    check_equal(ESR_EC(trapped.esr), EC_SYSREG, "EL0 access to %s traps when CNTKCTL_EL1 denies it", a->name);
    check_equal(ESR_ISS(trapped.esr), a->iss, "the syndrome names %s", a->name);
    check_equal(trapped.elr, user_address(a->stub), "and ELR_EL1 the instruction");
    check_equal(ESR_EC(allowed.esr), EC_SVC64, "EL0 access to %s works when CNTKCTL_EL1 allows it", a->name);
}

static void check_el0_values(void)
{
    u64 before = virtual_count();
    struct context user = run_with(&accesses[0], CNTKCTL_EL0VCTEN);

    check(user.x[0] >= before && user.x[0] <= virtual_count(), "EL0 reads the same CNTVCT as EL1");
    before = physical_count();
    user = run_with(&accesses[1], CNTKCTL_EL0PCTEN);
    check(user.x[0] >= before && user.x[0] <= physical_count(), "EL0 reads the same CNTPCT as EL1");
    user = run_with(&accesses[2], CNTKCTL_EL0PCTEN);
    check_equal(user.x[0], frequency(), "EL0 reads the same CNTFRQ as EL1");
}

int main(void)
{
    check_offset();
    check_monotonic(virtual_count, "CNTVCT");
    check_monotonic(physical_count, "CNTPCT");
    check_rates();
    for (u32 n = 0; n < ARRAY_SIZE(accesses); n++)
        check_el0_access(&accesses[n]);
    check_el0_values();
    return 0;
}
