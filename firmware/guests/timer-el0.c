/* Who may use the timers at EL0: every register in every setting of CNTKCTL_EL1, from every general-purpose register.
 * What is denied is an exception with EC 0x18 at EL1 that names the access, and has no effect. DDI 0487 D13.2. */
#include "mmu.h"
#include "rt.h"
#include "timer.h"
#include "user.h"

#define EL0PCTEN (1ul << 0)
#define EL0VCTEN (1ul << 1)
#define EL0VTEN  (1ul << 8)
#define EL0PTEN  (1ul << 9)

#define SETTINGS 16u
#define MRS 1u
#define MSR 0u
#define XZR 31u
#define SVC0 0xd4000001u

/* One access: S3_3_C14_CRm_op2. Any one bit of ``enable`` allows it. */
struct access {
    const char *name;
    u32 direction, crm, op2;
    u64 enable;
};

static const struct access accesses[] = {
    {"MRS CNTFRQ_EL0", MRS, 0, 0, EL0PCTEN | EL0VCTEN},
    {"MRS CNTPCT_EL0", MRS, 0, 1, EL0PCTEN},
    {"MRS CNTVCT_EL0", MRS, 0, 2, EL0VCTEN},
    {"MRS CNTP_TVAL_EL0", MRS, 2, 0, EL0PTEN},
    {"MSR CNTP_TVAL_EL0", MSR, 2, 0, EL0PTEN},
    {"MRS CNTP_CTL_EL0", MRS, 2, 1, EL0PTEN},
    {"MSR CNTP_CTL_EL0", MSR, 2, 1, EL0PTEN},
    {"MRS CNTP_CVAL_EL0", MRS, 2, 2, EL0PTEN},
    {"MSR CNTP_CVAL_EL0", MSR, 2, 2, EL0PTEN},
    {"MRS CNTV_TVAL_EL0", MRS, 3, 0, EL0VTEN},
    {"MSR CNTV_TVAL_EL0", MSR, 3, 0, EL0VTEN},
    {"MRS CNTV_CTL_EL0", MRS, 3, 1, EL0VTEN},
    {"MSR CNTV_CTL_EL0", MSR, 3, 1, EL0VTEN},
    {"MRS CNTV_CVAL_EL0", MRS, 3, 2, EL0VTEN},
    {"MSR CNTV_CVAL_EL0", MSR, 3, 2, EL0VTEN},
};

/* The access and an SVC, written anew for each try. MMU off: EL0 may execute it. */
static u32 code[16] __attribute__((aligned(64)));

/* CNTKCTL_EL1 with the bits of ``setting``, 0 to 15, in their places. */
static u64 cntkctl(u32 setting)
{
    return (setting & 3) | (u64)(setting >> 2) << 8;
}

static u32 instruction(const struct access *a, u32 rt)
{
    return 0xd5000000u | a->direction << 21 | 3u << 19 | 3u << 16 | 14u << 12 | a->crm << 8 | a->op2 << 5 | rt;
}

/* ISS of EC 0x18 (DDI 0487, ESR_ELx). */
static u64 syndrome(const struct access *a, u32 rt)
{
    return (u64)EC_SYSREG << 26 | ESR_IL | 3u << 20 | a->op2 << 17 | 3u << 14 | 14u << 10 | rt << 5 | a->crm << 1 |
           a->direction;
}

/* Try ``a`` at EL0 with Rt = ``rt``, which holds ``value`` before. */
static struct context try_access(const struct access *a, u32 rt, u64 value, u64 control)
{
    struct context user = {.elr = (u64)code, .spsr = PSTATE_EL0T, .sp_el0 = (u64)(user_page + 512)};

    code[0] = instruction(a, rt);
    code[1] = SVC0;
    sync_code((u64)code, 8);
    if (rt != XZR)
        user.x[rt] = value;
    write_sysreg(cntkctl_el1, control);
    isb();
    el0_run(&user);
    return user;
}

static bool is_allowed(const struct context *user)
{
    return ESR_EC(user->esr) == EC_SVC64 && user->elr == (u64)(code + 2);
}

static bool is_denied(const struct context *user, const struct access *a, u32 rt)
{
    return user->esr == syndrome(a, rt) && user->elr == (u64)code && user->vector == VECTOR_EL0_SYNC;
}

static void check_settings(const struct access *a)
{
    u32 allowed = 0, denied = 0, wanted = 0;

    for (u32 setting = 0; setting < SETTINGS; setting++) {
        struct context user = try_access(a, 0, 0, cntkctl(setting));
        bool may = (cntkctl(setting) & a->enable) != 0;

        wanted += may;
        allowed += may && is_allowed(&user);
        denied += !may && is_denied(&user, a, 0);
    }
    check_equal(allowed, wanted, "%s at EL0 works in each setting of CNTKCTL_EL1 that allows it", a->name);
    check_equal(denied, SETTINGS - wanted, "and is trapped to EL1 by each of the others");
}

/* Every register of the instruction: the trap names it. */
static void check_registers(void)
{
    for (u32 n = 0; n < ARRAY_SIZE(accesses); n++) {
        u32 denied = 0;

        for (u32 rt = 0; rt <= XZR; rt++) {
            struct context user = try_access(&accesses[n], rt, 0x55, 0);

            denied += is_denied(&user, &accesses[n], rt) && (rt == XZR || user.x[rt] == 0x55);
        }
        check_equal(denied, XZR + 1, "the syndrome of %s names any of 32 registers, which keep their values",
                    accesses[n].name);
    }
}

static const struct access *find(u32 direction, u32 crm, u32 op2)
{
    for (u32 n = 0; n < ARRAY_SIZE(accesses); n++)
        if (accesses[n].direction == direction && accesses[n].crm == crm && accesses[n].op2 == op2)
            return &accesses[n];
    die("the access is in the table");
}

/* What EL0 read of an allowed register. */
static u64 read_at_el0(u32 crm, u32 op2)
{
    return try_access(find(MRS, crm, op2), 7, 0, EL0PCTEN | EL0VCTEN | EL0VTEN | EL0PTEN).x[7];
}

static void write_at_el0(u32 crm, u32 op2, u64 value, u64 control)
{
    try_access(find(MSR, crm, op2), 9, value, control);
}

/* Both sides see one timer. */
static void check_values(const struct timer *t, u32 crm, u64 enable)
{
    u64 before, tval;

    t->set_ctl(CTL_IMASK);
    t->set_cval(0x123456789abcdef0ul);
    write_at_el0(crm, 2, 5, 0);
    write_at_el0(crm, 1, CTL_ENABLE | CTL_IMASK, 0);
    write_at_el0(crm, 0, 5, 0);
    check(t->get_cval() == 0x123456789abcdef0ul && (t->get_ctl() & 3) == CTL_IMASK,
          "%s: a denied write changes nothing", t->name);
    check_equal(read_at_el0(crm, 2), 0x123456789abcdef0ul, "%s: EL0 reads the CVAL that EL1 wrote", t->name);
    write_at_el0(crm, 2, 0xfedcba9876543210ul, enable);
    check_equal(t->get_cval(), 0xfedcba9876543210ul, "%s: EL1 reads the CVAL that EL0 wrote", t->name);
    write_at_el0(crm, 1, ~0ul, enable);
    check_equal(t->get_ctl(), CTL_ENABLE | CTL_IMASK, "%s: and CTL, where ISTATUS is not written", t->name);
    t->set_cval(0);
    check_equal(read_at_el0(crm, 1), CTL_ENABLE | CTL_IMASK | CTL_ISTATUS, "%s: EL0 sees ISTATUS", t->name);
    before = t->count();
    write_at_el0(crm, 0, 0xfffffff0ul, enable);
    check(t->get_cval() - (before - 16) <= t->count() - before, "%s: TVAL written at EL0 is signed", t->name);
    tval = read_at_el0(crm, 0);
    check(tval >> 32 == 0 && (s32)tval < 0, "%s: TVAL read at EL0 is 32 bits", t->name);
    t->set_ctl(0);
}

static void check_counters(void)
{
    u64 before = virtual_count(), seen = read_at_el0(0, 2);

    check(seen >= before && seen <= virtual_count(), "EL0 reads the virtual count that EL1 reads");
    before = physical_count();
    seen = read_at_el0(0, 1);
    check(seen >= before && seen <= physical_count(), "EL0 reads the physical count that EL1 reads");
    check_equal(read_at_el0(0, 0), frequency(), "EL0 reads the frequency that EL1 reads");
}

int main(void)
{
    for (u32 n = 0; n < ARRAY_SIZE(accesses); n++)
        check_settings(&accesses[n]);
    check_registers();
    check_values(&virtual_timer, 3, EL0VTEN);
    check_values(&physical_timer, 2, EL0PTEN);
    check_counters();
    return 0;
}
