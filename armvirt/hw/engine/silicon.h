/*
 * The registers of a PE that hw/shadow.py lends to the core while it runs, and what accesses of them do: the virtual
 * CPU interface, the comparators of the Generic Timer, the PE's private interrupts. hw/ich.py, hw/timer.py and hw/gic.py
 * are the text to read, with the clauses; this says the same, and tests hold the two equal.
 */
#include <stdint.h>

#define NEVER UINT64_MAX
#define SYSREG(op0, op1, crn, crm, op2) ((op0) << 14 | (op1) << 11 | (crn) << 7 | (crm) << 3 | (op2))

enum { ICC_PMR = SYSREG(3, 0, 4, 6, 0), ICC_IAR0 = SYSREG(3, 0, 12, 8, 0), ICC_EOIR0 = SYSREG(3, 0, 12, 8, 1),
       ICC_HPPIR0 = SYSREG(3, 0, 12, 8, 2), ICC_DIR = SYSREG(3, 0, 12, 11, 1), ICC_RPR = SYSREG(3, 0, 12, 11, 3),
       ICC_IAR1 = SYSREG(3, 0, 12, 12, 0), ICC_EOIR1 = SYSREG(3, 0, 12, 12, 1), ICC_HPPIR1 = SYSREG(3, 0, 12, 12, 2) };
enum { PPI_MAINTENANCE = 25, PPI_VTIMER = 27, PPI_PTIMER = 30, SPURIOUS = 1023, FIRST_SPECIAL = 1020,
       FIRST_LPI = 8192, IDLE_PRIORITY = 0xff, VINTID = 0xffff };
enum { LEND_ICC = 1, LEND_TIMERS = 2 };

#define LR_PENDING (1ull << 62)
#define LR_ACTIVE (1ull << 63)
#define LR_HW (1ull << 61)
#define LR_EOI (1ull << 41)
#define HCR_EN 1u
#define HCR_MAINTENANCE 0xfeu
#define HCR_TC (1u << 10)
#define HCR_TALL (3u << 11)
#define HCR_TDIR (1u << 14)
#define VMCR_VFIQEN (1u << 3)
#define VMCR_VEOIM (1u << 9)
#define CTL_FIRES(ctl) (((ctl) & 3) == 1)

/* Mirrored field by field in state.py. Index 0 of a timer's fields is the virtual timer's, 1 the physical one's. */
typedef struct {
    uint64_t lr[16], cval[2];
    uint32_t ap[2][4];                       /* ICH_AP0R<n>, ICH_AP1R<n> */
    uint32_t hcr, vmcr, lrs, prebits, mask[2];
    int32_t candidate;
    uint32_t signalled, maintenance, virq, vfiq, own_virq, own_vfiq;
    uint32_t ctl[2], line[2];
    uint32_t ppi_line, ppi_latch, ppi_active, ppi_enabled;
    uint32_t lent, nap;                      /* which accesses are the core's; whether a posted interrupt is */
    uint64_t nap_lr, soft_ns;                /* its list register; when the next event but a timer's is due */
    uint32_t naps, nap_hcr;
    uint32_t waiting;                        /* physical interrupts that EL2 has for the guest, and no room */
} silicon;

/* ---- private interrupts ---- */

static int ppi_deliverable(const silicon *s) { return ((s->ppi_line | s->ppi_latch) & s->ppi_enabled & ~s->ppi_active) != 0; }
static void ppi_set_line(silicon *s, uint32_t intid, uint32_t level) {
    s->ppi_line = (s->ppi_line & ~(1u << intid)) | level << intid;
}

/* ---- the virtual CPU interface ---- */

static uint32_t lr_priority(uint64_t lr) { return lr >> 48 & 0xff; }
static uint32_t lr_group(uint64_t lr) { return lr >> 60 & 1; }

static uint32_t running_priority(const silicon *s) {
    for (uint32_t word = 0; word < 1u << (s->prebits - 5); word++) {
        uint32_t bits = s->ap[0][word] | s->ap[1][word];
        if (bits) return (32 * word + (uint32_t)__builtin_ctz(bits)) << (8 - s->prebits);
    }
    return IDLE_PRIORITY;
}

static int can_signal(const silicon *s, uint64_t lr) {
    uint32_t priority = lr_priority(lr), running = running_priority(s), mask = s->mask[lr_group(lr)];
    return priority < s->vmcr >> 24 && (running == IDLE_PRIORITY || (priority & mask) < (running & mask));
}

/* Where a maintenance cause other than an end of interrupt is enabled, nothing is lent. */
static void vif_update(silicon *s) {
    int best = -1, eoi = 0;
    uint32_t best_priority = IDLE_PRIORITY;
    for (uint32_t n = 0; n < s->lrs; n++) {
        uint64_t lr = s->lr[n];
        if (lr >> 62 == 1) {
            if (lr_priority(lr) < best_priority && s->vmcr >> lr_group(lr) & 1) {
                best = (int)n;
                best_priority = lr_priority(lr);
            }
        } else if (!(lr >> 62) && lr & LR_EOI && !(lr & LR_HW)) eoi = 1;
    }
    s->candidate = best;
    s->signalled = best >= 0 && s->hcr & HCR_EN && can_signal(s, s->lr[best]);
    uint32_t irq = s->signalled && (lr_group(s->lr[best]) || !(s->vmcr & VMCR_VFIQEN));
    s->virq = irq || s->own_virq;
    s->vfiq = (s->signalled && !irq) || s->own_vfiq;
    s->maintenance = s->hcr & HCR_EN && eoi;
    ppi_set_line(s, PPI_MAINTENANCE, s->maintenance);
}

static uint64_t vif_acknowledge(silicon *s, uint32_t group) {
    if (!s->signalled || lr_group(s->lr[s->candidate]) != group) return SPURIOUS;
    uint64_t *lr = &s->lr[s->candidate], intid = *lr & VINTID;
    *lr &= ~LR_PENDING;
    if (intid >= FIRST_SPECIAL && intid <= SPURIOUS) return intid;
    if (intid < FIRST_LPI) *lr |= LR_ACTIVE;
    uint32_t level = (lr_priority(*lr) & s->mask[group]) >> (8 - s->prebits);
    s->ap[group][level >> 5] |= 1u << (level & 31);
    return intid;
}

static uint32_t vif_drop_priority(silicon *s) {
    uint32_t priority = running_priority(s);
    if (priority != IDLE_PRIORITY) {
        uint32_t level = priority >> (8 - s->prebits), word = level >> 5, bit = 1u << (level & 31);
        s->ap[s->ap[0][word] & bit ? 0 : 1][word] &= ~bit;
    }
    return priority;
}

static int vif_find_active(const silicon *s, uint64_t intid) {
    for (uint32_t n = 0; n < s->lrs; n++)
        if (s->lr[n] & LR_ACTIVE && (s->lr[n] & VINTID) == intid) return (int)n;
    return -1;
}

static void vif_deactivate(silicon *s, int n) {
    uint64_t pintid = s->lr[n] >> 32 & 0x1fff;
    s->lr[n] &= ~LR_ACTIVE;
    if (s->lr[n] & LR_HW && pintid < 32) s->ppi_active &= ~(1u << pintid);
}

static void vif_count_eoi(silicon *s) { s->hcr += 1u << 27; }   /* EOIcount is at the top: it wraps by itself */

static void vif_end(silicon *s, uint64_t value, uint32_t group) {
    uint64_t intid = value & 0xffffff;
    if ((intid >= FIRST_SPECIAL && intid <= SPURIOUS) || intid > VINTID) return;
    uint32_t dropped = vif_drop_priority(s);
    if (dropped == IDLE_PRIORITY || (s->vmcr & VMCR_VEOIM && intid < FIRST_LPI)) return;
    int n = vif_find_active(s, intid);
    if (n < 0) {
        if (intid < FIRST_LPI) vif_count_eoi(s);
    } else if (lr_group(s->lr[n]) == group && (lr_priority(s->lr[n]) & s->mask[group]) == dropped) vif_deactivate(s, n);
}

static void vif_dir(silicon *s, uint64_t value) {
    uint64_t intid = value & 0xffffff;
    if (!(s->vmcr & VMCR_VEOIM) || intid >= FIRST_SPECIAL) return;
    int n = vif_find_active(s, intid);
    if (n < 0) vif_count_eoi(s);
    else vif_deactivate(s, n);
}

static uint64_t vif_highest_pending(const silicon *s, uint32_t group) {
    if (s->candidate < 0 || lr_group(s->lr[s->candidate]) != group) return SPURIOUS;
    return s->lr[s->candidate] & VINTID;
}

enum { ICC_PYTHON, ICC_READ, ICC_MUTATED };

/* MRS or MSR at EL1 of a register that is used at every interrupt; vif_update follows a mutation. */
static int icc_access(silicon *s, uint32_t enc, int is_read, uint64_t *value) {
    if (!(s->lent & LEND_ICC) || s->hcr & (HCR_MAINTENANCE | HCR_TC | HCR_TALL)) return ICC_PYTHON;
    if (is_read) {
        switch (enc) {
        case ICC_IAR0: *value = vif_acknowledge(s, 0); break;
        case ICC_IAR1: *value = vif_acknowledge(s, 1); break;
        case ICC_HPPIR0: *value = vif_highest_pending(s, 0); return ICC_READ;
        case ICC_HPPIR1: *value = vif_highest_pending(s, 1); return ICC_READ;
        case ICC_PMR: *value = s->vmcr >> 24; return ICC_READ;
        case ICC_RPR: *value = running_priority(s); return ICC_READ;
        default: return ICC_PYTHON;
        }
    } else {
        switch (enc) {
        case ICC_EOIR0: vif_end(s, *value, 0); break;
        case ICC_EOIR1: vif_end(s, *value, 1); break;
        case ICC_DIR: if (s->hcr & HCR_TDIR) return ICC_PYTHON; vif_dir(s, *value); break;
        case ICC_PMR:
            s->vmcr = (s->vmcr & 0xffffffu) | ((uint32_t)*value & 0xff & 0xffu << (8 - s->prebits)) << 24;
            break;
        default: return ICC_PYTHON;
        }
    }
    return ICC_MUTATED;
}

/* ---- comparators ---- */

/* The moment: ns of virtual time, the ticks since its beginning, and the count less each timer's offset. */
typedef struct { uint64_t ns, elapsed, count[2], frequency; } moment;

static int vif_offers(const silicon *s, uint32_t pintid) {
    for (uint32_t n = 0; n < s->lrs; n++)
        if (s->lr[n] >> 61 == 3 && (s->lr[n] >> 32 & 0x1fff) == pintid) return 1;   /* pending, HW = 1 */
    return 0;
}

/* Returns whether a line has fallen whose interrupt waits for the guest: EL2 has to take it back. */
static int timers_update(silicon *s, const moment *now) {
    int retract = 0;
    for (int t = 0; t < 2; t++) {
        uint32_t level = CTL_FIRES(s->ctl[t]) && now->count[t] >= s->cval[t], ppi = t ? PPI_PTIMER : PPI_VTIMER;
        if (s->line[t] && !level && (s->waiting >> ppi & 1 || vif_offers(s, ppi))) retract = 1;
        s->line[t] = level;
        ppi_set_line(s, ppi, level);
    }
    return retract;
}

/* When a line that is low will rise, in ns; NEVER if it will not, or not before that. */
static uint64_t timer_rise(const silicon *s, int t, const moment *now) {
    if (!CTL_FIRES(s->ctl[t])) return NEVER;
    if (now->count[t] >= s->cval[t]) return s->line[t] ? NEVER : now->ns;
    unsigned __int128 ticks = (unsigned __int128)now->elapsed + (s->cval[t] - now->count[t]);
    unsigned __int128 ns = (ticks * 1000000000u + now->frequency - 1) / now->frequency;
    return ns < NEVER ? (uint64_t)ns : NEVER;
}

static uint64_t timer_read(const silicon *s, int t, uint32_t op2, const moment *now) {
    if (op2 == 2) return s->cval[t];
    if (op2 == 0) return (uint32_t)(s->cval[t] - now->count[t]);
    return s->ctl[t] | (s->ctl[t] & 1 && now->count[t] >= s->cval[t] ? 4u : 0);
}

/* Returns what timers_update does. */
static int timer_write(silicon *s, int t, uint32_t op2, uint64_t value, const moment *now) {
    if (op2 == 2) s->cval[t] = value;
    else if (op2 == 0) s->cval[t] = now->count[t] + (uint64_t)(int64_t)(int32_t)(uint32_t)value;
    else s->ctl[t] = value & 3;
    return timers_update(s, now);
}
