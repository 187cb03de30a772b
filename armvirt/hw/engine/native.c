/*
 * The native engine: the hot half of an armvirt engine, in C.
 *
 * It needs no Unicorn headers and links to nothing: Python hands it the addresses of the uc_* functions of
 * the libunicorn that is loaded. portable.py says the same things in Python, rule for rule; tests hold the
 * two equal to the bit. The comments on why stand there and in docs/engine.md; here only what C adds.
 */
#include <stdint.h>
#include <stddef.h>
#include <string.h>
#include <time.h>
#include "silicon.h"

#define ABI_VERSION 8u

/* Unicorn 2.1 identifiers (checked against the Python package by a test). */
enum { R_X0 = 199, R_X29 = 1, R_X30 = 2, R_SP = 4, R_PC = 260, R_PSTATE = 265, R_ELR_EL1 = 267,
       R_SP_EL0 = 270, R_SP_EL1 = 271, R_ESR_EL1 = 277, R_FAR_EL1 = 281, R_VBAR_EL1 = 287, R_CP = 290,
       R_TTBR0_EL1 = 274, R_TTBR1_EL1 = 275, R_XZR = 7 };
enum { CTL_TB_REQUEST = 8, CTL_TB_REMOVE = 9, CTL_TB_FLUSH = 10, CTL_TLB_FLUSH = 11 };
enum { PROT_READ_ = 1, PROT_EXEC_ = 4 };

#define CTL_WRITE(type, nr) ((uint32_t)(type) | (uint32_t)(nr) << 26 | 1u << 30)
#define CTL_NONE(type) CTL_WRITE(type, 0)
#define CTL_READ_WRITE(type, nr) ((uint32_t)(type) | (uint32_t)(nr) << 26 | 3u << 30)
#define HCR_EL2 SYSREG(3, 4, 1, 1, 0)
#define MDCR_EL2 SYSREG(3, 4, 1, 1, 1)
#define HPFAR_EL2 SYSREG(3, 4, 6, 0, 4)
#define MDSCR_EL1 SYSREG(2, 0, 0, 2, 2)
#define SPSR_EL1 SYSREG(3, 0, 4, 0, 0)
#define CNTKCTL_EL1 SYSREG(3, 0, 14, 1, 0)
#define SCTLR_EL1 SYSREG(3, 0, 1, 0, 0)
#define TPIDR_EL2 SYSREG(3, 4, 13, 0, 2)
#define TCR_EL1 SYSREG(3, 0, 2, 0, 2)
#define CNTPCT_EL0 SYSREG(3, 3, 14, 0, 1)
#define CNTVCT_EL0 SYSREG(3, 3, 14, 0, 2)

#define PSTATE_SS (1u << 21)
#define PSTATE_IL (1u << 20)
#define DAIF_ALL (0xfu << 6)
#define EL1H 5u
#define EL2H_MASKED 0x3c9u

enum action { ACT_ADVANCE = 1, ACT_WRITE_RT = 2, ACT_ENTER = 4, ACT_STOP = 8 };
enum callback { CB_EL2 = 0, CB_UNDEF = 1, CB_TIMER = 2, CB_POLL = 3, CB_DRAIN = 4, CB_BROADCAST = 5, CB_SEV = 6 };
enum leave { LEAVE_NONE = 0, LEAVE_BUDGET = 1, LEAVE_STOP = 2, LEAVE_TAIL = 3, LEAVE_MISALIGNED = 4, LEAVE_FAULT = 5,
             LEAVE_VECTOR_LOOP = 6, LEAVE_ILLEGAL = 7 };
enum { WHAT_SYNC = 0, WHAT_IRQ = 1, WHAT_FIQ = 2 };
#define EVENTS 256
#define VECTOR_FAULT_LIMIT 16
#define POLL_INSNS (1u << 12)   /* microseconds of host time, or milliseconds where each costs a translation */
#define POLL_NS 20000000u

typedef struct { uint32_t crn, crm, op0, op1, op2; uint64_t val; } cp_reg;
typedef int (*callback_fn)(int what);

/* Mirrored field by field in state.py; abi() gives the size that both must agree on. */
typedef struct {
    uint64_t count, ns, elr, target;
    uint32_t what, esr;
} event;

/* A block that ends in an instruction the run has to know of, or has SEV or SEVL in it: `marks`, and the index of the
 * first SEV and the first SEVL. True of the code at `pc` as long as the engine's epoch is `epoch`. `edges`: how often
 * on_edge was told of it. */
typedef struct {
    uint64_t pc;
    uint32_t size, epoch;
    uint16_t marks, sev, sevl, edges;
} marked;
#define MARKED 1024u                               /* a power of 2 */
#define HEARD 256u

typedef struct {
    /* what every block looks at, together in two cache lines */
    uint64_t count, deadline, poll_at, block_pc;
    uint32_t open, tail, lines_in_engine, stop, marks, illegal_watch, wfe_watch, spin, unheard;
    uint32_t el;                                   /* of the UNDEFINED instruction at CB_UNDEF */
    /* addresses of the loaded libunicorn */
    void *uc, *context;
    int (*emu_start)(void *, uint64_t, uint64_t, uint64_t, size_t);
    int (*emu_stop)(void *);
    int (*reg_read)(void *, int, void *);
    int (*reg_write)(void *, int, const void *);
    int (*reg_write_batch)(void *, const int *, void *const *, int);
    int (*ctl)(void *, uint32_t, ...);
    int (*context_save)(void *, void *);
    int (*vmem_translate)(void *, uint64_t, uint32_t, uint64_t *);
    int (*mem_read)(void *, uint64_t, void *, uint64_t);
    int (*mem_write)(void *, uint64_t, const void *, uint64_t);
    callback_fn callback;
    /* time */
    uint64_t count_base, ns_base, frequency, counter_start, cntvoff, ns_per_insn, cnthctl;
    uint64_t cntpoff, denied_cntkctl, cntkctl_bits;
    /* the tail */
    uint32_t tail_ss, leave;
    uint32_t denied, denied_pstate;
    uint64_t tail_mdscr;
    /* interrupt lines from the virtual CPU interface; lines_in_engine is what the engine's HCR_EL2 has */
    uint32_t virq, vfiq;
    uint64_t hcr, mdcr;
    /* the exit that Python looks at, and its answer */
    uint32_t esr, insn, intno, rt;
    uint64_t far_, hpfar, pc, rt_value;
    uint32_t timer_encoding, timer_write;
    uint64_t value;
    uint32_t enter_esr, enter_has_far;
    uint64_t enter_far;
    /* offsets found by calibration in the saved context */
    uint32_t syndrome_offset, big_endian;
    /* what of the PE's registers is the core's for the time of a run, and whether it changed them */
    uint32_t exclusive_offset, dirty;
    uint64_t yield_at;                             /* the count from which on a YIELD ends the run, as WFE does */
    uint64_t slept;                                /* ns that passed in naps */
    silicon silicon;
    /* loops that cannot end */
    uint64_t last_vector_elr;
    uint32_t vector_faults, wfe;
    /* polling */
    uint64_t poll_ns;
    /* trace */
    uint32_t trace, events_n;
    event events[EVENTS];
    uint32_t broadcast, native_maintenance;
    uint32_t fault, fault_error;
    uint64_t stats[19];
    /* the event register; the ns at which a WFE cleared it last */
    uint32_t event_register;
    uint32_t epoch;                                /* how often addresses may have come to mean other code */
    uint64_t event_cleared;
    uint32_t block_sev, block_sevl;                /* of the open block, if it is marked */
    /* blocks with marks, by a filter and exactly; blocks that were looked at without a word from the core */
    uint32_t marked_n, marked_overflow;
    marked marked[MARKED];
    marked heard[HEARD];
    uint8_t filter[4096];
    /* the physical address of a WFE that is an ISB in memory now */
    uint64_t exchanged_pa;
    uint32_t exchanged, padding;
} engine;

enum { ST_BLOCK_TAILS, ST_STEPS, ST_INTR, ST_EL2, ST_UNDEF, ST_EL1_SYNC, ST_IC, ST_DC, ST_TLBI, ST_TLB_FLUSH, ST_TIMER,
       ST_COUNTER, ST_IRQ_NATIVE, ST_IRQ_MANUAL, ST_RUN, ST_WFE, ST_ICC, ST_NAP, ST_EXCHANGE };

static uint64_t sys_read(engine *e, uint32_t enc) {
    cp_reg r = {enc >> 7 & 15, enc >> 3 & 15, enc >> 14 & 3, enc >> 11 & 7, enc & 7, 0};
    e->reg_read(e->uc, R_CP, &r);
    return r.val;
}
static void sys_write(engine *e, uint32_t enc, uint64_t v) {
    cp_reg r = {enc >> 7 & 15, enc >> 3 & 15, enc >> 14 & 3, enc >> 11 & 7, enc & 7, v};
    e->reg_write(e->uc, R_CP, &r);
}
static uint64_t reg(engine *e, int id) {
    uint64_t v = 0;
    e->reg_read(e->uc, id, &v);
    return v;
}
static void set_reg(engine *e, int id, uint64_t v) { e->reg_write(e->uc, id, &v); }
static uint32_t pstate(engine *e) {
    uint32_t v = 0;
    e->reg_read(e->uc, R_PSTATE, &v);
    return v;
}
static void set_pstate(engine *e, uint32_t v) {
    uint64_t wide = v;
    e->reg_write(e->uc, R_PSTATE, &wide);
}
static void set_pc(engine *e, uint64_t v) {   /* a batch: a plain write in a hook leaves a stale-PC flag behind */
    int id = R_PC;
    void *p = &v;
    e->reg_write_batch(e->uc, &id, &p, 1);
}
static int x_id(uint32_t n) { return n < 29 ? R_X0 + (int)n : n == 29 ? R_X29 : n == 30 ? R_X30 : R_XZR; }
/* Any CP_REG write rebuilds the translation flags; TPIDR_EL2 is nobody's. */
static void rebuild(engine *e) { sys_write(e, TPIDR_EL2, 0); }

static void leave(engine *e, uint32_t why) {
    e->leave = why;
    e->emu_stop(e->uc);
}

/* ---- time ---- */

static uint64_t ns_at(const engine *e, uint64_t count) { return e->ns_base + (count - e->count_base) * e->ns_per_insn; }
static uint64_t counter_at(const engine *e, uint64_t count) {
    uint64_t ns = ns_at(e, count), product;
    if (!__builtin_mul_overflow(ns, e->frequency, &product)) return e->counter_start + product / 1000000000u;
    return e->counter_start + (uint64_t)((unsigned __int128)ns_at(e, count) * e->frequency / 1000000000u);
}

/* ---- registers that are lent: hw/shadow.py ---- */

static moment moment_at(const engine *e, uint64_t count) {
    moment now = {.ns = ns_at(e, count), .frequency = e->frequency};
    uint64_t ticks = counter_at(e, count);
    now.elapsed = ticks - e->counter_start;
    now.count[0] = ticks - e->cntvoff;
    now.count[1] = ticks - e->cntpoff;
    return now;
}

static void set_deadline(engine *e, const moment *now) {
    uint64_t until = e->silicon.soft_ns;
    for (int t = 0; t < 2; t++) {
        uint64_t rise = timer_rise(&e->silicon, t, now);
        if (rise < until) until = rise;
    }
    if (until == NEVER) e->deadline = NEVER;
    else if (until <= e->ns_base) e->deadline = e->count_base;
    else e->deadline = e->count_base + (until - e->ns_base + e->ns_per_insn - 1) / e->ns_per_insn;
}

/* The core changed lent registers. */
static void changed(engine *e) {
    e->dirty = 1;
    if (ppi_deliverable(&e->silicon)) e->stop = 1;
}
static void interface_changed(engine *e) {
    vif_update(&e->silicon);
    e->virq = e->silicon.virq;
    e->vfiq = e->silicon.vfiq;
    changed(e);
}

static int icc(engine *e) {
    int done = e->el ? icc_access(&e->silicon, e->insn >> 5 & 0xffff, e->insn >> 21 & 1, &e->rt_value) : ICC_PYTHON;
    if (done == ICC_PYTHON) return -1;
    e->stats[ST_ICC]++;
    if (done == ICC_MUTATED) interface_changed(e);
    return ACT_ADVANCE | (e->insn >> 21 & 1 ? ACT_WRITE_RT : 0);
}

/* WFI, with the interrupt of the virtual timer posted by EL2: if that is what comes next, and nothing else was left to
 * EL2 since, sleep until then and take it. What EL2 would have done is made up for when it looks: Vcpu._slept. */
static int nap(engine *e, uint32_t esr) {
    silicon *s = &e->silicon;
    uint64_t monitor;
    if (!s->nap || e->stop || esr & 3 || s->hcr != s->nap_hcr || s->maintenance || s->own_virq || s->own_vfiq) return 0;
    for (uint32_t n = 0; n < s->lrs; n++)
        if (s->lr[n] >> 62) return 0;
    if (!CTL_FIRES(s->ctl[0]) || s->line[0] || CTL_FIRES(s->ctl[1]) || s->line[1]) return 0;
    if (s->ppi_active >> PPI_VTIMER & 1) return 0;
    memcpy(&monitor, (uint8_t *)e->context + e->exclusive_offset, 8);
    if (monitor != NEVER) return 0;                /* EL2 would clear it */
    moment now = moment_at(e, e->count + 1);
    uint64_t rise = timer_rise(s, 0, &now), before = s->lr[0];
    if (rise <= now.ns || rise >= s->soft_ns) return 0;
    s->lr[0] = s->nap_lr;
    vif_update(s);
    if (!s->signalled) {
        s->lr[0] = before;
        vif_update(s);
        return 0;
    }
    s->ppi_active |= 1u << PPI_VTIMER;
    e->ns_base += rise - now.ns;
    e->slept += rise - now.ns;
    now = moment_at(e, e->count + 1);
    timers_update(s, &now);
    s->naps++;
    e->stats[ST_NAP]++;
    set_deadline(e, &now);
    interface_changed(e);
    return 1;
}

/* ---- code and translations ---- */

static void in_el2(engine *e, uint64_t pa, uint64_t size) {
    uint32_t before = pstate(e);
    e->epoch++;
    set_pstate(e, EL2H_MASKED);
    rebuild(e);
    e->ctl(e->uc, CTL_WRITE(CTL_TB_REMOVE, 2), pa, pa + size);
    set_pstate(e, before);
    rebuild(e);
}
static int translate(engine *e, uint64_t va, uint64_t *pa) {
    return e->vmem_translate(e->uc, va, PROT_READ_, pa) == 0 || e->vmem_translate(e->uc, va, PROT_EXEC_, pa) == 0;
}
static uint32_t fetch(engine *e, uint64_t va) {
    uint64_t pa;
    uint32_t word = 0;
    if (e->vmem_translate(e->uc, va, PROT_EXEC_, &pa) == 0) e->mem_read(e->uc, pa, &word, 4);
    return word;
}

static int broadcast(engine *e, uint32_t enc, uint64_t value) {
    e->timer_encoding = enc;
    e->value = value;
    return e->callback(CB_BROADCAST);
}

/* ---- EL1 exception entry: DDI 0487 D1.10 AArch64.TakeException ---- */

static void record(engine *e, uint32_t what, uint32_t esr, uint64_t elr, uint64_t target) {
    if (!e->trace) return;
    if (e->events_n == EVENTS) e->callback(CB_DRAIN);
    if (e->events_n == EVENTS) return;            /* nobody takes them */
    event *v = &e->events[e->events_n++];
    v->count = e->count; v->ns = ns_at(e, e->count); v->elr = elr; v->target = target; v->what = what; v->esr = esr;
}

static void enter_el1(engine *e, uint32_t what, uint32_t esr, int has_far, uint64_t far_) {
    uint32_t ps = pstate(e);
    uint64_t pc = reg(e, R_PC), vbar = reg(e, R_VBAR_EL1);
    uint32_t from_el0 = (ps & 0xf) == 0, sp_x = ps & 1;
    uint64_t target = vbar + (from_el0 ? 0x400 : sp_x ? 0x200 : 0) + what * 0x80;
    uint64_t spsr = ps, sp;
    uint64_t esr64 = esr;
    sys_write(e, SPSR_EL1, spsr);
    set_reg(e, R_ELR_EL1, pc);
    if (what == WHAT_SYNC) set_reg(e, R_ESR_EL1, esr64);
    if (has_far) set_reg(e, R_FAR_EL1, far_);
    if (!(ps & 1)) {                          /* EL0 or EL1t: the live SP is SP_EL0's */
        sp = reg(e, R_SP);
        set_reg(e, R_SP_EL0, sp);
        sp = reg(e, R_SP_EL1);
        set_pstate(e, (ps & 0xf0000000u) | DAIF_ALL | EL1H);
        set_reg(e, R_SP, sp);
    } else {
        set_pstate(e, (ps & 0xf0000000u) | DAIF_ALL | EL1H);
    }
    set_pc(e, target);
    rebuild(e);
    record(e, what, esr, pc, target);
    e->count += 1;
    if (what == WHAT_SYNC && !from_el0 && pc >= vbar && pc - vbar < 0x800 && pc == e->last_vector_elr) {
        if (++e->vector_faults >= VECTOR_FAULT_LIMIT) { e->vector_faults = 0; leave(e, LEAVE_VECTOR_LOOP); }
    } else {
        e->vector_faults = 0;
    }
    e->last_vector_elr = pc;
}

/* What the virtual CPU interface signals is entered by us when it is unmasked now, and by the engine when
 * the guest unmasks it later. */
static void apply_lines(engine *e) {
    uint32_t lines = (e->virq ? 1u << 7 : 0) | (e->vfiq ? 1u << 6 : 0);
    if (lines) {
        uint32_t ps = pstate(e);
        if (e->vfiq && !(ps & 1u << 6)) { e->stats[ST_IRQ_MANUAL]++; enter_el1(e, WHAT_FIQ, 0, 0, 0); }
        else if (e->virq && !(ps & 1u << 7)) { e->stats[ST_IRQ_MANUAL]++; enter_el1(e, WHAT_IRQ, 0, 0, 0); }
    }
    if (lines != e->lines_in_engine) {
        e->lines_in_engine = lines;
        sys_write(e, HCR_EL2, e->hcr | lines);
    }
}

/* ---- the tail: single steps to an exact count ---- */

static void tail_begin(engine *e) {
    uint32_t ps = pstate(e);
    e->stats[ST_BLOCK_TAILS]++;
    e->tail = 1;
    e->tail_mdscr = sys_read(e, MDSCR_EL1);
    e->tail_ss = ps & PSTATE_SS;
    sys_write(e, MDCR_EL2, e->mdcr | 1u << 8);
    set_pstate(e, ps | PSTATE_SS);
    sys_write(e, MDSCR_EL1, e->tail_mdscr | 1);
}
static void tail_end(engine *e) {
    uint32_t ps = pstate(e);
    e->tail = 0;
    set_pstate(e, (ps & ~PSTATE_SS) | e->tail_ss);
    sys_write(e, MDCR_EL2, e->mdcr);
    sys_write(e, MDSCR_EL1, e->tail_mdscr);
}
static void tail_stepped(engine *e) {
    e->stats[ST_STEPS]++;
    if (e->count >= e->deadline || e->stop) {
        tail_end(e);
        leave(e, e->stop ? LEAVE_STOP : LEAVE_BUDGET);
        return;
    }
    set_pstate(e, pstate(e) | PSTATE_SS);
    sys_write(e, MDSCR_EL1, e->tail_mdscr | 1);
}

/* ---- hooks ---- */

#define INSN_WFE 0xd503205fu
#define INSN_YIELD 0xd503203fu
#define INSN_ISB 0xd5033fdfu
#define INSN_SEV 0xd503209fu
#define INSN_SEVL 0xd50320bfu
#define INSN_ERET 0xd69f03e0u
/* UNREAD: the code could not be read when the block was looked at; it is read again once the block has run. */
enum { ENDS_IN_WFE = 1, ENDS_IN_YIELD = 2, ENDS_IN_ERET = 4, HAS_SEV = 8, HAS_SEVL = 16, UNREAD = 32 };
enum { WAITS_WFE = 1, WAITS_YIELD = 2 };             /* state.wfe */

static uint32_t filter_hash(uint64_t pc) { return (uint32_t)((uint32_t)(pc >> 2) * 0x9e3779b1u >> 20); }

/* The marks of the code at pc, by its words. A block does not leave its page. */
static marked look_at(engine *e, uint64_t pc, uint32_t size) {
    marked m = {.pc = pc, .size = size, .epoch = e->epoch, .sev = 0xffff, .sevl = 0xffff};
    uint32_t words[64], n = size >> 2, last = 0;
    uint64_t pa;
    if (e->vmem_translate(e->uc, pc, PROT_EXEC_, &pa)) { m.marks = UNREAD; return m; }
    for (uint32_t at = 0; at < n; at += 64) {
        uint32_t k = n - at < 64 ? n - at : 64;
        if (e->mem_read(e->uc, pa + 4 * (uint64_t)at, words, 4 * (uint64_t)k)) { m.marks = UNREAD; return m; }
        for (uint32_t i = 0; i < k; i++) {
            if (words[i] == INSN_SEV && m.sev == 0xffff) { m.marks |= HAS_SEV; m.sev = (uint16_t)(at + i); }
            if (words[i] == INSN_SEVL && m.sevl == 0xffff) { m.marks |= HAS_SEVL; m.sevl = (uint16_t)(at + i); }
        }
        last = words[k - 1];
    }
    m.marks |= last == INSN_WFE ? ENDS_IN_WFE : last == INSN_YIELD ? ENDS_IN_YIELD : last == INSN_ERET ? ENDS_IN_ERET : 0;
    return m;
}

/* The entry of a block, or the free one where it belongs: a quarter of the table stays free. */
static marked *entry_of(engine *e, uint64_t pc, uint32_t size) {
    for (uint32_t i = filter_hash(pc);; i++) {
        marked *m = &e->marked[i & (MARKED - 1)];
        if (!m->size || (m->pc == pc && m->size == size)) return m;
    }
}

/* The entry of a block gets the marks that its code has now. */
static void renew(marked *m, marked now) {
    now.edges = m->edges;
    *m = now;
}

/* Remember the marks of a block that was translated just now. Its entry; NULL if it has none. */
static marked *note_block(engine *e, uint64_t pc, uint32_t size) {
    if (size < 4) return NULL;
    marked now = look_at(e, pc, size), *m = entry_of(e, pc, size);
    if (!m->size) {
        if (!now.marks) return NULL;
        e->filter[filter_hash(pc)] = 1;
        if (e->marked_n >= MARKED / 4 * 3) { e->marked_overflow = 1; return NULL; }
        e->marked_n++;
    }
    renew(m, now);
    return m;
}

typedef struct { uint64_t pc; uint16_t icount, size; } uc_tb;

static void put_back(engine *e) {
    uint32_t wfe = INSN_WFE;
    if (__builtin_expect(!e->exchanged, 1)) return;
    e->exchanged = 0;
    e->mem_write(e->uc, e->exchanged_pa, &wfe, 4);
}

/* A WFE costs the core a longjmp out of its translated code, an ISB ends the block as well and costs next to nothing. All
 * that WFE does here is done by the block hooks (retire), so the blocks that end in this WFE are translated anew with an ISB
 * in its place. The ISB is in memory while the core translates, and the guest executes nothing meanwhile. Where the buffer for
 * translated code is full, the core does not return from the request: then the next hook puts the WFE back. Only on_edge
 * may call this: a block whose hook has run already must not begin again. */
static void exchange(engine *e, uint64_t end) {
    uint32_t isb = INSN_ISB, unheard = e->unheard;
    uint64_t pa;
    uc_tb tb;
    if (e->vmem_translate(e->uc, end - 4, PROT_EXEC_, &pa)) return;
    e->stats[ST_EXCHANGE]++;
    e->ctl(e->uc, CTL_WRITE(CTL_TB_REMOVE, 2), end - 4, end);
    e->unheard = 1;                               /* the next block comes to block_cold */
    e->exchanged_pa = pa;
    e->exchanged = 1;
    e->mem_write(e->uc, pa, &isb, 4);
    for (const marked *m = e->marked; m < e->marked + MARKED; m++)
        if (m->size && m->pc + m->size == end && m->epoch == e->epoch && m->marks & ENDS_IN_WFE)
            e->ctl(e->uc, CTL_READ_WRITE(CTL_TB_REQUEST, 2), m->pc, &tb);
    put_back(e);
    e->unheard = unheard;
}

/* A block that is translated again and again, because the guest changes its code or because other blocks share its WFE, gets its
 * ISB ever more rarely: 16 times at most. */
static void on_edge(void *uc, void *cur, void *prev, void *user) {
    engine *e = user;
    uc_tb *tb = cur;
    (void)uc; (void)prev;
    put_back(e);
    marked *m = note_block(e, tb->pc, tb->size);
    if (!m || !(m->marks & ENDS_IN_WFE) || e->tail || m->edges == 0xffff) return;
    m->edges++;
    if (!(m->edges & (m->edges - 1))) exchange(e, m->pc + m->size);
}

/* A block that was translated, perhaps, without a word to on_edge. */
static void note_unheard(engine *e, uint64_t pc, uint32_t size) {
    marked *m = &e->heard[pc >> 2 & (HEARD - 1)];
    if (m->pc == pc && m->size == size && m->epoch == e->epoch) return;
    m->pc = pc; m->size = size; m->epoch = e->epoch;
    note_block(e, pc, size);
}

/* The marks of the block that begins, which the filter has let through. */
static void open_marked(engine *e, uint64_t pc, uint32_t size) {
    marked *m = entry_of(e, pc, size), now;
    if (!m->size) {
        if (!e->marked_overflow || size < 4) return;
        now = look_at(e, pc, size);
        m = &now;
    } else if (m->epoch != e->epoch || m->marks & UNREAD) renew(m, look_at(e, pc, size));
    e->marks = m->marks;
    e->block_sev = m->sev;
    e->block_sevl = m->sevl;
    if (m->marks & (ENDS_IN_WFE | ENDS_IN_YIELD)) e->unheard = e->wfe_watch;   /* the core starts anew behind it: no edge */
    if (m->marks == ENDS_IN_YIELD && e->count + (size >> 2) < e->yield_at) e->marks = 0;
}

/* `done` instructions of the open block have retired: what its marks say of them. A WFE at its end completes if the event
 * register is set, or if it cannot wait. */
static void retire(engine *e, uint32_t done, int can_wait) {
    uint32_t marks = e->marks;
    uint64_t end = e->count + done;
    e->marks = 0;
    if (marks & UNREAD) {
        marked m = look_at(e, e->block_pc, 4 * e->open);
        marks = m.marks;
        e->block_sev = m.sev;
        e->block_sevl = m.sevl;
    }
    if (marks & HAS_SEVL && e->block_sevl < done) e->event_register = 1;
    if (marks & HAS_SEV && e->block_sev < done) {
        e->event_register = 1;
        e->value = e->count + e->block_sev + 1;
        if (e->broadcast) e->callback(CB_SEV);
    }
    if (!done || done < e->open) return;
    if (marks & ENDS_IN_ERET) e->event_register = 1;
    if (marks & ENDS_IN_WFE) {
        e->stats[ST_WFE]++;
        if (e->event_register || !can_wait) {
            e->event_register = 0;
            e->event_cleared = ns_at(e, end);
        } else { e->wfe = WAITS_WFE; e->stop = 1; }
    }
    if (marks & ENDS_IN_YIELD && end >= e->yield_at) { e->wfe = WAITS_YIELD; e->stop = 1; }
}

static int unmasks(uint32_t insn) {
    return insn == 0xd69f03e0u                       /* ERET */
        || (insn & 0xfffff0ffu) == 0xd50340ffu       /* MSR DAIFClr */
        || (insn & 0xffffffe0u) == 0xd51b4220u;      /* MSR DAIF, Xt */
}

/* The engine has taken a virtual interrupt by itself where the guest unmasked it. */
static uint32_t native_irq(engine *e, uint64_t pc) {
    uint32_t what = (uint32_t)(pc >> 7 & 3);
    if ((what != WHAT_IRQ && what != WHAT_FIQ) || pc & 0x7f) return 0;
    if (!(e->lines_in_engine & (what == WHAT_IRQ ? 1u << 7 : 1u << 6))) return 0;
    if (!e->open || (pstate(e) & (DAIF_ALL | 0x1f)) != (DAIF_ALL | EL1H)) return 0;
    uint64_t offset = pc & 0x7ff;
    if (offset >= 0x600 || reg(e, R_VBAR_EL1) != pc - offset) return 0;
    if (sys_read(e, SPSR_EL1) >> (what == WHAT_IRQ ? 7 : 6) & 1) return 0;   /* it was masked: a jump to the vector */
    return unmasks(fetch(e, e->block_pc + 4 * (uint64_t)(e->open - 1))) ? what : 0;
}

static __attribute__((noinline)) int note_native_irq(engine *e, uint64_t pc) {
    uint32_t what = native_irq(e, pc);
    if (!what) return 0;
    e->stats[ST_IRQ_NATIVE]++;
    if (e->marks) retire(e, e->open, 1);
    e->count += e->open;
    e->open = 0;
    e->block_pc = 1;
    record(e, what, 0, reg(e, R_ELR_EL1), pc);
    e->count += 1;
    e->unheard = e->wfe_watch;
    return 1;
}

static uint64_t now_host(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* What takes long without executing much: is it time to poll? Then the next block does. */
static void look(engine *e) {
    if (now_host() - e->poll_ns >= POLL_NS) e->poll_at = e->count;
}

static __attribute__((noinline)) void poll_host(engine *e) {
    uint64_t t = now_host();
    e->poll_at = e->count + POLL_INSNS;
    if (t - e->poll_ns >= POLL_NS) {
        e->poll_ns = t;
        if (e->callback(CB_POLL)) e->stop = 1;
    }
}

/* What a block needs only now and then: interrupts, WFE, an illegal state, the deadline, the host. Returns 1 if the
 * engine leaves before the block. */
static inline __attribute__((always_inline)) int block_slow(engine *e, uint64_t pc, uint32_t n) {
    uint64_t count;
    if (e->lines_in_engine) note_native_irq(e, pc);
    if (e->marks) retire(e, e->open, 1);
    count = e->count + e->open;
    if (count >= e->poll_at) poll_host(e);
    uint32_t why = LEAVE_NONE;
    if (e->stop) why = LEAVE_STOP;
    else if (count >= e->deadline) why = LEAVE_BUDGET;
    else if (e->illegal_watch && pstate(e) & PSTATE_IL) why = LEAVE_ILLEGAL;
    else if (pc & 3) why = LEAVE_MISALIGNED;
    else if (count + n > e->deadline) why = LEAVE_TAIL;
    if (why) {
        e->count = count;
        e->open = 0;
        e->block_pc = 1;
        leave(e, why);
        return 1;
    }
    return 0;
}

/* A block about which something has to be done or thought. */
static __attribute__((noinline)) void block_cold(engine *e, uint64_t pc, uint32_t size) {
    uint32_t n = size >> 2;
    put_back(e);
    if (block_slow(e, pc, n)) return;
    if (pc == e->block_pc && n == 1 && e->open == 1 && !e->tail) {
        e->count += 1;                            /* one instruction that branches to itself: nothing can change */
        e->open = 0;
        e->spin = 1;
        leave(e, LEAVE_BUDGET);
        return;
    }
    e->count += e->open;
    e->open = n;
    e->block_pc = pc;
    if (e->unheard) {
        e->unheard = 0;
        note_unheard(e, pc, size);
    }
    if (e->filter[filter_hash(pc)]) open_marked(e, pc, size);
}

/* The hottest code of all: a leaf, no stack, three stores. */
static void on_block(void *uc, uint64_t pc, uint32_t size, void *user) {
    engine *e = user;
    uint32_t n = size >> 2, open = e->open;
    uint64_t count = e->count + open, limit = e->deadline < e->poll_at ? e->deadline : e->poll_at;
    (void)uc;
    if (__builtin_expect(count + n > limit, 0)
        || __builtin_expect(e->lines_in_engine | e->marks | e->stop | e->illegal_watch | e->unheard
                            | e->filter[filter_hash(pc)] | (pc & 3), 0)
        || __builtin_expect(n == 1 && pc == e->block_pc, 0)) {
        block_cold(e, pc, size);
        return;
    }
    e->count = count;
    e->open = n;
    e->block_pc = pc;
}

/* CNTKCTL_EL1's bit for EL0's access of a counter or timer. */
static uint32_t el0_enable(uint32_t enc) {
    uint32_t crm = enc >> 3 & 15;
    return crm == 0 ? ((enc & 7) == 1 ? 0 : 1) : crm == 2 ? 9 : 8;
}

/* CNTHCTL_EL2's answer to an access that EL1 makes or allows, in the layout of E2H = 0. */
static int trapped_to_el2(const engine *e, uint32_t enc) {
    switch (enc >> 3 & 15) {
    case 0: return enc == CNTPCT_EL0 ? !(e->cnthctl & 1) : e->cnthctl >> 14 & 1;
    case 2: return !(e->cnthctl & 2);
    default: return e->cnthctl >> 13 & 1;
    }
}

/* Make the core refuse the access itself: it does as at EL0 under a CNTKCTL_EL1 of zero. on_intr puts both back. */
static uint32_t refuse(engine *e) {
    e->denied = 1;
    e->denied_pstate = pstate(e);
    e->denied_cntkctl = sys_read(e, CNTKCTL_EL1);
    sys_write(e, CNTKCTL_EL1, 0);
    set_pstate(e, e->denied_pstate & ~0xfu);
    return 0;
}

static uint32_t timer_access(engine *e, int rt_id, const cp_reg *r, int is_write) {
    uint32_t enc = SYSREG(r->op0, r->op1, r->crn, r->crm, r->op2);
    if (r->op1 != 3 || !(r->crm == 0 ? r->op2 == 1 || r->op2 == 2 : (r->crm == 2 || r->crm == 3) && r->op2 < 3)) return 0;
    if (is_write && r->crm == 0) return 0;
    if ((pstate(e) & 0xc) == 0 && !(sys_read(e, CNTKCTL_EL1) >> el0_enable(enc) & 1)) return 0;
    if (trapped_to_el2(e, enc)) return refuse(e);
    uint64_t pc = reg(e, R_PC), count = e->count + (e->open ? (pc - e->block_pc) >> 2 : 0);
    if (r->crm == 0) {
        uint64_t v = counter_at(e, count) - (enc == CNTVCT_EL0 ? e->cntvoff : e->cntpoff);
        e->stats[ST_COUNTER]++;
        set_reg(e, rt_id, v);
        return 1;
    }
    e->stats[ST_TIMER]++;
    if (e->silicon.lent & LEND_TIMERS) {
        moment now = moment_at(e, count);
        int t = r->crm == 3 ? 0 : 1;
        if (is_write) {
            if (timer_write(&e->silicon, t, r->op2, r->val, &now)) e->stop = 1;
            set_deadline(e, &now);
            changed(e);
        } else set_reg(e, rt_id, timer_read(&e->silicon, t, r->op2, &now));
        return 1;
    }
    uint64_t opened = e->count;
    uint32_t open = e->open;
    e->count = count;                             /* the callback sees the count at this instruction */
    e->open = 0;
    e->timer_encoding = enc;
    e->timer_write = (uint32_t)is_write;
    e->value = r->val;
    e->pc = pc;
    e->callback(CB_TIMER);
    look(e);
    e->count = opened;
    e->open = open;
    if (!is_write) set_reg(e, rt_id, e->value);
    return 1;
}

static uint32_t on_mrs(void *uc, int rt, const cp_reg *r, void *user) {
    (void)uc;
    return r->crn == 14 && r->op0 == 3 ? timer_access(user, rt, r, 0) : 0;
}
/* SPSR_EL1 with which ERET sets PSTATE.IL: AArch32 (not offered), EL2, EL3, reserved modes, IL itself. */
static uint32_t illegal_return(uint64_t spsr) { return spsr & (PSTATE_IL | 0x1a) || (spsr & 0xf) == 1; }

static uint32_t on_msr(void *uc, int rt, const cp_reg *r, void *user) {
    engine *e = user;
    (void)uc;
    if (r->op0 != 3) return 0;
    if (r->crn - 1u < 2) e->epoch++;              /* SCTLR, TTBR0, TTBR1, TCR: other code at the same address */
    if (r->crn == 14 && r->op1 == 0 && r->crm == 1 && r->op2 == 0 && r->val & ~e->cntkctl_bits) {
        sys_write(e, CNTKCTL_EL1, r->val & e->cntkctl_bits);   /* RES0 here, kept by the core */
        return 1;
    }
    if (r->crn == 14) return timer_access(e, rt, r, 1);
    if (r->crn == 4 && r->crm == 0 && r->op1 == 0 && r->op2 == 0) {
        e->illegal_watch = illegal_return(r->val);
        if (r->val & 0x10) {                      /* the engine would run AArch32: make the return illegal */
            sys_write(e, SPSR_EL1, (r->val & ~0x1full) | 0xf);
            return 1;
        }
    }
    if (r->crn == 12 && r->crm == 0 && r->op1 == 0 && r->op2 == 0 && r->val & 0x7ff) {
        set_reg(e, R_VBAR_EL1, r->val & ~0x7ffull);   /* RES0 here, kept by the core */
        return 1;
    }
    return 0;
}

/* Does the leaf table of va still stand? Then every cached entry of va is a page's, and the engine's own
 * flush of one page is enough; else a block may have been cached as many pages. 4 KiB granule only. */
static int page_mapped(engine *e, uint64_t va, uint64_t asid, int check_asid) {
    uint64_t tcr = sys_read(e, TCR_EL1), high = va >> 55 & 1;
    uint64_t ttbr = reg(e, high ? R_TTBR1_EL1 : R_TTBR0_EL1);
    uint32_t tsz = (uint32_t)(high ? tcr >> 16 : tcr) & 63, granule = (uint32_t)(high ? tcr >> 30 : tcr >> 14) & 3;
    if (granule != (high ? 2u : 0u) || tsz < 16 || tsz > 39) return 0;
    if (!high && check_asid) {
        uint64_t current = (tcr >> 22 & 1 ? reg(e, R_TTBR1_EL1) : ttbr) >> 48;
        if (current != asid) return 0;
    }
    uint32_t bits = 64 - tsz, level = 4 - (bits - 4) / 9;
    uint64_t table = ttbr & 0x0000fffffffff000u, d = 0;
    uint64_t index = va & ((1ull << bits) - 1);
    for (; level < 3; level++) {
        uint32_t shift = 12 + 9 * (3 - level);
        if (e->mem_read(e->uc, table + (index >> shift & 511) * 8, &d, 8) || (d & 3) != 3) return 0;
        table = d & 0x0000fffffffff000u;
    }
    return 1;
}

static uint32_t on_sys(void *uc, int rt, const cp_reg *r, void *user) {
    engine *e = user;
    if (r->crn != 8 || r->op0 != 1) return 0;
    uint64_t v = r->val;
    (void)rt;
    e->epoch++;
    if (!(++e->stats[ST_TLBI] & 3)) look(e);
    if ((r->op2 & 1) && !page_mapped(e, (uint64_t)((int64_t)(v << 20) >> 8), v >> 48, !(r->op2 & 2))) {
        e->stats[ST_TLB_FLUSH]++;
        e->ctl(e->uc, CTL_NONE(CTL_TLB_FLUSH));
    }
    if (e->broadcast && r->crm == 3) broadcast(e, SYSREG(r->op0, r->op1, r->crn, r->crm, r->op2), v);
    (void)uc;
    return 0;
}

static void act(engine *e, int action, uint64_t pc) {
    if (action & ACT_WRITE_RT) set_reg(e, x_id(e->rt), e->rt_value);
    if (action & ACT_ADVANCE) { set_pc(e, pc + 4); e->count += 1; }
    if (action & ACT_ENTER) enter_el1(e, WHAT_SYNC, e->enter_esr, (int)e->enter_has_far, e->enter_far);
    apply_lines(e);
    if (action & ACT_STOP || e->stop) { e->stop = 0; leave(e, LEAVE_STOP); }
}

/* Cache maintenance that HCR_EL2.TPU brought here: this is the silicon's own work, no exit. */
static int maintenance(engine *e, uint32_t esr, uint64_t pc) {
    uint32_t op0 = esr >> 20 & 3, op2 = esr >> 17 & 7, op1 = esr >> 14 & 7, crn = esr >> 10 & 15, crm = esr >> 1 & 15;
    uint32_t rt = esr >> 5 & 31;
    if (!e->native_maintenance || op0 != 1 || crn != 7) return 0;
    if (op1 == 3 && crm == 11 && op2 == 1) {                     /* DC CVAU: nothing to clean */
        e->stats[ST_DC]++;
    } else if (op1 == 3 && crm == 5 && op2 == 1) {               /* IC IVAU */
        uint64_t va = rt == 31 ? 0 : reg(e, x_id(rt)), pa;
        e->stats[ST_IC]++;
        if (translate(e, va & ~63ull, &pa)) {
            in_el2(e, pa & ~63ull, 64);
            if (e->broadcast) broadcast(e, SYSREG(1, 3, 7, 5, 1), pa & ~63ull);
        }
    } else if (op1 == 0 && (crm == 5 || crm == 1) && op2 == 0) { /* IC IALLU, IC IALLUIS */
        e->stats[ST_IC]++;
        e->epoch++;
        e->ctl(e->uc, CTL_NONE(CTL_TB_FLUSH));
        if (e->broadcast && crm == 1) broadcast(e, SYSREG(1, 0, 7, 1, 0), 0);
    } else return 0;
    set_pc(e, pc + 4);
    e->count += 1;
    return 1;
}

/* A debug register read in the tail would show our own step bits: answer with the guest's. */
static int tail_debug_register(engine *e, uint32_t esr, uint64_t pc) {
    uint32_t enc = SYSREG(esr >> 20 & 3, esr >> 14 & 7, esr >> 10 & 15, esr >> 1 & 15, esr >> 17 & 7);
    uint32_t rt = esr >> 5 & 31;
    if ((esr >> 20 & 3) != 2 || e->mdcr & 1u << 9) return 0;
    if (esr & 1) set_reg(e, x_id(rt), sys_read(e, enc));
    else sys_write(e, enc, rt == 31 ? 0 : reg(e, x_id(rt)));
    set_pc(e, pc + 4);
    e->count += 1;
    return 1;
}

/* What this core's syndrome lacks against the architecture (DDI 0487, ISS encodings). */
static uint32_t repair_syndrome(engine *e, uint32_t esr, uint32_t target, uint64_t pc) {
    if (esr >> 26 == 0x24 && target == 2 && esr & 1u << 24) {
        /* ISV is 0 for loads and stores with writeback, the core says 1 */
        if ((fetch(e, pc) & 0x3b200400u) == 0x38000400u) esr &= ~0x01ffc000u;
    } else if (esr == 0 && target == 1) {
        /* MSR DAIFSet/DAIFClr at EL0 under SCTLR_EL1.UMA = 0 is EC 0x18 */
        uint32_t insn = fetch(e, pc);
        esr = 1u << 25;
        if ((insn & 0xfff8f01fu) == 0xd500401fu)
            esr |= 0x18u << 26 | (insn >> 5 & 7) << 17 | (insn >> 16 & 7) << 14 | 4u << 10 | 31u << 5 | (insn >> 8 & 15) << 1;
    } else if (esr >> 26 == 0x18 && target == 1 && pstate(e) & 0xc) {
        /* EL1 traps no register of its own to itself (CNTPS_*_EL1 of the Secure state): UNDEFINED */
        esr = 1u << 25;
    }
    return esr;
}

/* An exit for Python: it may take as long as a million instructions. */
static int ask(engine *e, int what) {
    int action = e->callback(what);
    look(e);
    return action;
}

static void on_intr(void *uc, uint32_t intno, void *user) {
    engine *e = user;
    uint8_t *record_at = (uint8_t *)e->context + e->syndrome_offset;
    uint64_t pc = reg(e, R_PC);
    uint32_t esr, target, ec;
    (void)uc;
    put_back(e);
    if (!(++e->stats[ST_INTR] & 15)) look(e);
    e->context_save(e->uc, e->context);
    memcpy(&esr, record_at, 4);
    memcpy(&target, record_at + 16, 4);
    if (e->denied) {
        e->denied = 0;
        target = 2;
        set_pstate(e, e->denied_pstate);
        sys_write(e, CNTKCTL_EL1, e->denied_cntkctl);
    }
    esr = repair_syndrome(e, esr, target, pc);
    ec = esr >> 26;
    if ((ec & ~1u) == 0x20 && e->lines_in_engine) note_native_irq(e, pc);   /* taken, and the vector's fetch faults */
    if (e->open) {
        uint64_t done = (pc - e->block_pc) >> 2;
        /* a fetch fault comes after its block; ISV of a guest's step says that its instruction was executed */
        if ((ec & ~1u) == 0x20 || ((ec & ~1u) == 0x32 && esr >> 24 & 1)) done = e->open;
        else if (done > e->open) { e->fault = 1; e->fault_error = intno; leave(e, LEAVE_FAULT); return; }
        if (e->marks) retire(e, (uint32_t)done, (ec & ~1u) != 0x32 || target == 2);   /* the guest's step ends a WFE */
        e->count += done;
        e->open = 0;
    }
    e->block_pc = 1;
    e->marks = 0;
    if ((ec & ~1u) == 0x20 && e->wfe) {           /* WFE, and the fetch behind it faults: not yet */
        leave(e, LEAVE_STOP);
        return;
    }
    e->unheard = e->wfe_watch;
    if (e->tail) {
        if ((ec & ~1u) == 0x32 && target == 2) { tail_stepped(e); return; }
        tail_end(e);
        if (ec == 0x18 && target == 2 && tail_debug_register(e, esr, pc)) { apply_lines(e); return; }
    }
    e->esr = esr;
    e->intno = intno;
    e->pc = pc;
    memcpy(&e->far_, record_at + 8, 8);
    if (target == 2) {
        e->stats[ST_EL2]++;
        if (ec == 0x18) {
            if (maintenance(e, esr, pc)) { look(e); return; }
            e->rt = esr >> 5 & 31;
        } else if (ec == 0x24) {
            e->rt = esr >> 16 & 31;
        } else e->rt = 31;
        e->rt_value = e->rt == 31 ? 0 : reg(e, x_id(e->rt));
        if (ec == 0x24) e->big_endian = sys_read(e, SCTLR_EL1) >> (pstate(e) & 0xc ? 25 : 24) & 1;
        e->hpfar = ec == 0x24 || ec == 0x20 ? sys_read(e, HPFAR_EL2) : 0;
        act(e, ec == 1 && nap(e, esr) ? ACT_ADVANCE : ask(e, CB_EL2), pc);
        return;
    }
    if (ec == 0) {
        uint32_t insn = fetch(e, pc);
        /* MRS/MSR of op0 = 3, CRn = 4 or 12 (the GIC CPU interface), MRS CNTPCTSS_EL0 or CNTVCTSS_EL0, WFET, WFIT, HLT */
        if (((insn & 0xffd00000u) == 0xd5100000u && ((insn >> 12 & 15) == 12 || (insn >> 12 & 15) == 4)
             && (insn >> 19 & 1)) || (insn & 0xffe0001fu) == 0xd4400000u || (insn & 0xffffffc0u) == 0xd5031000u
            || (insn & 0xffffffe0u) == 0xd53be0a0u || (insn & 0xffffffe0u) == 0xd53be0c0u) {
            e->stats[ST_UNDEF]++;
            e->insn = insn;
            e->rt = insn & 31;
            e->rt_value = e->rt == 31 ? 0 : reg(e, x_id(e->rt));
            e->el = pstate(e) >> 2 & 3;
            int action = (insn & 0xffd80000u) == 0xd5180000u ? icc(e) : -1;
            act(e, action >= 0 ? action : ask(e, CB_UNDEF), pc);
            return;
        }
    }
    e->stats[ST_EL1_SYNC]++;
    {
        int svc = intno == 2;                                    /* the SVC itself was counted by its PC */
        if (svc) e->count -= 1;
        enter_el1(e, WHAT_SYNC, esr, ec == 0x20 || ec == 0x21 || ec == 0x24 || ec == 0x25 || ec == 0x22 || ec == 0x34
                  || ec == 0x35, e->far_);
    }
    apply_lines(e);
}

/* ---- entry points ---- */

uint32_t av_abi(void) { return ABI_VERSION << 16 | (uint32_t)sizeof(engine); }

void *av_hook(int which) {
    void *table[] = {(void *)on_block, (void *)on_intr, (void *)on_mrs, (void *)on_msr, (void *)on_sys, (void *)on_edge};
    return table[which];
}

void av_invalidate(engine *e, uint64_t pa, uint64_t size) { in_el2(e, pa, size); }

void av_apply_lines(engine *e) { apply_lines(e); }

void av_enter(engine *e) { enter_el1(e, WHAT_SYNC, e->enter_esr, (int)e->enter_has_far, e->enter_far); }

/* Runs to the deadline or to a stop. Returns enum leave (BUDGET, STOP, FAULT, VECTOR_LOOP). */
int av_run(engine *e) {
    e->spin = 0;
    e->open = 0;
    e->block_pc = 1;
    e->marks = 0;
    e->poll_at = e->count + POLL_INSNS;
    e->leave = LEAVE_NONE;
    e->illegal_watch = illegal_return(sys_read(e, SPSR_EL1));
    apply_lines(e);
    if (e->leave) return (int)e->leave;
    for (;;) {
        if (e->stop) { e->stop = 0; return LEAVE_STOP; }
        if (e->count >= e->deadline) return LEAVE_BUDGET;
        e->leave = LEAVE_NONE;
        e->unheard = e->wfe_watch;
        e->stats[ST_RUN]++;
        int error = e->emu_start(e->uc, reg(e, R_PC), 0, 0, 0);
        put_back(e);
        if (e->tail) tail_end(e);
        if (error) { e->fault = 2; e->fault_error = (uint32_t)error; return LEAVE_FAULT; }
        switch (e->leave) {
        case LEAVE_TAIL: tail_begin(e); break;
        case LEAVE_MISALIGNED:
            enter_el1(e, WHAT_SYNC, 0x22u << 26 | 1u << 25, 1, reg(e, R_PC));
            if (e->leave == LEAVE_VECTOR_LOOP) return LEAVE_VECTOR_LOOP;
            break;
        case LEAVE_ILLEGAL: enter_el1(e, WHAT_SYNC, 0x0eu << 26 | 1u << 25, 0, 0); break;
        case LEAVE_NONE: e->fault = 3; return LEAVE_FAULT;
        default:
            if (e->leave == LEAVE_STOP) e->stop = 0;
            return (int)e->leave;
        }
    }
}
