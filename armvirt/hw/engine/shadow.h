/*
 * Accesses to the shadow registers (hw/shadow.py): the virtual CPU interface, the comparators of the Generic Timer, and
 * the private interrupts of the PE. hw/ich.py, hw/timer.py and hw/gic.py have the same rules in Python, and cite the
 * clauses of the specifications. Tests compare C and Python. The structure and the constants are in layout.h.
 */
#define NEVER UINT64_MAX
#define CTL_FIRES(ctl) (((ctl) & (CTL_ENABLE | CTL_IMASK)) == CTL_ENABLE)

/* ---- private interrupts ---- */

static uint32_t ppi_deliverable(const shadow *s) { return (s->ppi_line | s->ppi_latch) & s->ppi_enabled & ~s->ppi_active; }
static void ppi_set_line(shadow *s, uint32_t intid, uint32_t level) {
    s->ppi_line = (s->ppi_line & ~(1u << intid)) | level << intid;
}

/* ---- the virtual CPU interface ---- */

static uint32_t lr_priority(uint64_t lr) { return lr >> LR_PRIORITY_SHIFT & 0xff; }
static uint32_t lr_group(uint64_t lr) { return lr >> LR_GROUP_SHIFT & 1; }

static uint32_t running_priority(const shadow *s) {
    for (uint32_t word = 0; word < 1u << (s->prebits - 5); word++) {
        uint32_t bits = s->ap[0][word] | s->ap[1][word];
        if (bits) return (32 * word + (uint32_t)__builtin_ctz(bits)) << (8 - s->prebits);
    }
    return IDLE_PRIORITY;
}

static int can_signal(const shadow *s, uint64_t lr) {
    uint32_t priority = lr_priority(lr), running = running_priority(s), mask = s->mask[lr_group(lr)];
    return priority < s->vmcr >> VMCR_VPMR_SHIFT && (running == IDLE_PRIORITY || (priority & mask) < (running & mask));
}

/* Recompute the outputs of the virtual CPU interface. Of the causes of the maintenance interrupt only EOI is examined,
 * because icc_access passes every access to Python while another cause is enabled. */
static void vif_update(shadow *s) {
    int best = -1, eoi = 0;
    uint32_t best_priority = IDLE_PRIORITY;
    for (uint32_t n = 0; n < s->lrs; n++) {
        uint64_t lr = s->lr[n];
        if (lr >> LR_STATE_SHIFT == 1) {
            if (lr_priority(lr) < best_priority && s->vmcr >> lr_group(lr) & 1) {
                best = (int)n;
                best_priority = lr_priority(lr);
            }
        } else if (!(lr >> LR_STATE_SHIFT) && lr & LR_EOI && !(lr & LR_HW)) eoi = 1;
    }
    s->candidate = best;
    s->signalled = best >= 0 && s->hcr & ICH_HCR_EN && can_signal(s, s->lr[best]);
    uint32_t irq = s->signalled && (lr_group(s->lr[best]) || !(s->vmcr & VMCR_VFIQEN));
    s->virq = irq || s->own_virq;
    s->vfiq = (s->signalled && !irq) || s->own_vfiq;
    s->maintenance = s->hcr & ICH_HCR_EN && eoi;
    ppi_set_line(s, PPI_MAINTENANCE, s->maintenance);
}

static uint64_t vif_acknowledge(shadow *s, uint32_t group) {
    if (!s->signalled || lr_group(s->lr[s->candidate]) != group) return SPURIOUS;
    uint64_t *lr = &s->lr[s->candidate], intid = *lr & VINTID_MASK;
    *lr &= ~LR_PENDING;
    if (intid >= FIRST_SPECIAL && intid <= SPURIOUS) return intid;
    if (intid < FIRST_LPI) *lr |= LR_ACTIVE;
    uint32_t level = (lr_priority(*lr) & s->mask[group]) >> (8 - s->prebits);
    s->ap[group][level >> 5] |= 1u << (level & 31);
    return intid;
}

static uint32_t vif_drop_priority(shadow *s) {
    uint32_t priority = running_priority(s);
    if (priority != IDLE_PRIORITY) {
        uint32_t level = priority >> (8 - s->prebits), word = level >> 5, bit = 1u << (level & 31);
        s->ap[s->ap[0][word] & bit ? 0 : 1][word] &= ~bit;
    }
    return priority;
}

static int vif_find_active(const shadow *s, uint64_t intid) {
    for (uint32_t n = 0; n < s->lrs; n++)
        if (s->lr[n] & LR_ACTIVE && (s->lr[n] & VINTID_MASK) == intid) return (int)n;
    return -1;
}

static void vif_deactivate(shadow *s, int n) {
    uint64_t pintid = s->lr[n] >> LR_PINTID_SHIFT & LR_PINTID_MASK;
    s->lr[n] &= ~LR_ACTIVE;
    if (s->lr[n] & LR_HW && pintid < 32) s->ppi_active &= ~(1u << pintid);
}

static void vif_count_eoi(shadow *s) { s->hcr += 1u << ICH_HCR_EOICOUNT_SHIFT; }   /* EOIcount has the top bits, so it rolls over without a mask */

static void vif_end(shadow *s, uint64_t value, uint32_t group) {
    uint64_t intid = value & INTID_MASK;
    if ((intid >= FIRST_SPECIAL && intid <= SPURIOUS) || intid > VINTID_MASK) return;
    uint32_t dropped = vif_drop_priority(s);
    if (dropped == IDLE_PRIORITY || (s->vmcr & VMCR_VEOIM && intid < FIRST_LPI)) return;
    int n = vif_find_active(s, intid);
    if (n < 0) {
        if (intid < FIRST_LPI) vif_count_eoi(s);
    } else if (lr_group(s->lr[n]) == group && (lr_priority(s->lr[n]) & s->mask[group]) == dropped) vif_deactivate(s, n);
}

static void vif_dir(shadow *s, uint64_t value) {
    uint64_t intid = value & INTID_MASK;
    if (!(s->vmcr & VMCR_VEOIM) || intid >= FIRST_SPECIAL) return;
    int n = vif_find_active(s, intid);
    if (n < 0) vif_count_eoi(s);
    else vif_deactivate(s, n);
}

static uint64_t vif_highest_pending(const shadow *s, uint32_t group) {
    if (s->candidate < 0 || lr_group(s->lr[s->candidate]) != group) return SPURIOUS;
    return s->lr[s->candidate] & VINTID_MASK;
}

enum { ICC_PYTHON, ICC_READ, ICC_MUTATED };

/* Execute an MRS or MSR at EL1 of a register that guests access at every interrupt. ICC_PYTHON: Python must execute the
 * access. ICC_MUTATED: the caller must call vif_update. */
static int icc_access(shadow *s, uint32_t enc, int is_read, uint64_t *value) {
    if (!(s->accesses & SHADOW_ICC) || s->hcr & (ICH_HCR_MAINTENANCE_ENABLES | ICH_HCR_TC | (ICH_HCR_TALL0 | ICH_HCR_TALL1))) return ICC_PYTHON;
    if (is_read) {
        switch (enc) {
        case ICC_IAR0: *value = vif_acknowledge(s, 0); break;
        case ICC_IAR1: *value = vif_acknowledge(s, 1); break;
        case ICC_HPPIR0: *value = vif_highest_pending(s, 0); return ICC_READ;
        case ICC_HPPIR1: *value = vif_highest_pending(s, 1); return ICC_READ;
        case ICC_PMR: *value = s->vmcr >> VMCR_VPMR_SHIFT; return ICC_READ;
        case ICC_RPR: *value = running_priority(s); return ICC_READ;
        default: return ICC_PYTHON;
        }
    } else {
        switch (enc) {
        case ICC_EOIR0: vif_end(s, *value, 0); break;
        case ICC_EOIR1: vif_end(s, *value, 1); break;
        case ICC_DIR: if (s->hcr & ICH_HCR_TDIR) return ICC_PYTHON; vif_dir(s, *value); break;
        case ICC_PMR:
            s->vmcr = (s->vmcr & ~VMCR_VPMR)
                | ((uint32_t)*value & 0xff & 0xffu << (8 - s->prebits)) << VMCR_VPMR_SHIFT;
            break;
        default: return ICC_PYTHON;
        }
    }
    return ICC_MUTATED;
}

/* ---- comparators ---- */

/* A moment of virtual time: the ns, the ticks since virtual time 0, and for each timer the count minus the timer's offset. */
typedef struct { uint64_t ns, elapsed, count[2], frequency; } moment;

static int vif_offers(const shadow *s, uint32_t pintid) {
    for (uint32_t n = 0; n < s->lrs; n++)
        if ((s->lr[n] & (LR_HW | LR_STATE)) == (LR_HW | LR_PENDING) && (s->lr[n] >> LR_PINTID_SHIFT & LR_PINTID_MASK) == pintid) return 1;
    return 0;
}

/* Recompute both lines. Returns 1 if a line has fallen and its interrupt waits for the guest; EL2 must then retract the
 * interrupt. */
static int timers_update(shadow *s, const moment *now) {
    int retract = 0;
    for (int t = 0; t < 2; t++) {
        uint32_t level = CTL_FIRES(s->ctl[t]) && now->count[t] >= s->cval[t], ppi = t ? PPI_PTIMER : PPI_VTIMER;
        if (s->line[t] && !level && (s->waiting >> ppi & 1 || vif_offers(s, ppi))) retract = 1;
        s->line[t] = level;
        ppi_set_line(s, ppi, level);
    }
    return retract;
}

/* The ns at which a low line will rise; NEVER if the line is high, or will not rise before NEVER ns. */
static uint64_t timer_rise(const shadow *s, int t, const moment *now) {
    if (!CTL_FIRES(s->ctl[t])) return NEVER;
    if (now->count[t] >= s->cval[t]) return s->line[t] ? NEVER : now->ns;
    unsigned __int128 ticks = (unsigned __int128)now->elapsed + (s->cval[t] - now->count[t]);
    unsigned __int128 ns = (ticks * NS_PER_SECOND + now->frequency - 1) / now->frequency;
    return ns < NEVER ? (uint64_t)ns : NEVER;
}

static uint64_t timer_read(const shadow *s, int t, uint32_t op2, const moment *now) {
    if (op2 == 2) return s->cval[t];
    if (op2 == 0) return (uint32_t)(s->cval[t] - now->count[t]);
    return s->ctl[t] | (s->ctl[t] & CTL_ENABLE && now->count[t] >= s->cval[t] ? CTL_ISTATUS : 0);
}

/* Write a register of a comparator. The return value is that of timers_update. */
static int timer_write(shadow *s, int t, uint32_t op2, uint64_t value, const moment *now) {
    if (op2 == 2) s->cval[t] = value;
    else if (op2 == 0) s->cval[t] = now->count[t] + (uint64_t)(int64_t)(int32_t)(uint32_t)value;
    else s->ctl[t] = value & CTL_WRITABLE;
    return timers_update(s, now);
}
