/*
 * The native engine: the hooks of an engine in C.
 *
 * This file includes no header of Unicorn and links to no library: Python passes the addresses of the uc_*
 * functions of the loaded libunicorn. The portable engine (portable/) has the same rules in Python, and tests
 * compare the two engines bit by bit. The comments of the portable engine and docs/engine.md give the reasons for the
 * rules.
 */
#include <stdint.h>
#include <stddef.h>
#include <string.h>
#include <time.h>
#include "layout.h"
#include "shadow.h"

#define SYSREG(op0, op1, crn, crm, op2) \
    ((op0) << OP0_SHIFT | (op1) << OP1_SHIFT | (crn) << CRN_SHIFT | (crm) << CRM_SHIFT | (op2))
#define OP0(enc) ((enc) >> OP0_SHIFT & OP0_MASK)
#define OP1(enc) ((enc) >> OP1_SHIFT & OP1_MASK)
#define CRN(enc) ((enc) >> CRN_SHIFT & CRN_MASK)
#define CRM(enc) ((enc) >> CRM_SHIFT & CRM_MASK)
#define OP2(enc) ((enc) & OP2_MASK)
#define CTL_WRITE(type, nr) ((uint32_t)(type) | (uint32_t)(nr) << 26 | 1u << 30)
#define CTL_NONE(type) CTL_WRITE(type, 0)
#define CTL_READ_WRITE(type, nr) ((uint32_t)(type) | (uint32_t)(nr) << 26 | 3u << 30)
#define LINE_IRQ HCR_VI   /* the same bit as PSTATE.I; HCR_VF is the same bit as PSTATE.F */
#define LINE_FIQ HCR_VF

typedef struct { uint32_t crn, crm, op0, op1, op2; uint64_t val; } cp_reg;
static uint64_t sys_read(engine *e, uint32_t enc) {
    cp_reg r = {CRN(enc), CRM(enc), OP0(enc), OP1(enc), OP2(enc), 0};
    e->reg_read(e->uc, R_CP, &r);
    return r.val;
}
static void sys_write(engine *e, uint32_t enc, uint64_t v) {
    cp_reg r = {CRN(enc), CRM(enc), OP0(enc), OP1(enc), OP2(enc), v};
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
static void set_pc(engine *e, uint64_t v) {   /* a single write in a hook makes Unicorn report a stale PC at the next exit */
    int id = R_PC;
    void *p = &v;
    e->reg_write_batch(e->uc, &id, &p, 1);
}
static int x_id(uint32_t n) { return n < 29 ? R_X0 + (int)n : n == 29 ? R_X29 : n == 30 ? R_X30 : R_XZR; }
/* Make Unicorn use a changed PSTATE. Each write by CP_REG has this effect; no code uses TPIDR_EL2. */
static void rebuild_flags(engine *e) { sys_write(e, TPIDR_EL2, 0); }

static void leave(engine *e, uint32_t why) {
    e->leave = why;
    e->emu_stop(e->uc);
}

/* ---- time ---- */

static uint64_t ns_at(const engine *e, uint64_t count) { return e->ns_base + (count - e->count_base) * e->ns_per_insn; }
static uint64_t counter_at(const engine *e, uint64_t count) {
    uint64_t ns = ns_at(e, count), product;
    if (!__builtin_mul_overflow(ns, e->frequency, &product)) return e->counter_start + product / NS_PER_SECOND;
    return e->counter_start + (uint64_t)((unsigned __int128)ns_at(e, count) * e->frequency / NS_PER_SECOND);
}

/* ---- shadow registers: hw/shadow.py ---- */

static moment moment_at(const engine *e, uint64_t count) {
    moment now = {.ns = ns_at(e, count), .frequency = e->frequency};
    uint64_t ticks = counter_at(e, count);
    now.elapsed = ticks - e->counter_start;
    now.count[0] = ticks - e->cntvoff;
    now.count[1] = ticks - e->cntpoff;
    return now;
}

static void set_deadline(engine *e, const moment *now) {
    uint64_t until = e->shadow.event_ns;
    for (int t = 0; t < 2; t++) {
        uint64_t rise = timer_rise(&e->shadow, t, now);
        if (rise < until) until = rise;
    }
    if (until == NEVER) e->deadline = NEVER;
    else if (until <= e->ns_base) e->deadline = e->count_base;
    else e->deadline = e->count_base + (until - e->ns_base + e->ns_per_insn - 1) / e->ns_per_insn;
}

/* Does EL2 permit the engine to repeat `what` (Pe.repeat_tick, Pe.repeat_sgi), and is the virtual CPU interface as it was the
 * first time: all list registers inactive, no other interrupt for the guest? */
static int may_repeat(const engine *e, uint32_t what) {
    const shadow *s = &e->shadow;
    if (s->repeat != what || e->stop || s->hcr != s->repeat_hcr || s->maintenance || s->own_virq || s->own_vfiq || s->waiting) return 0;
    for (uint32_t n = 0; n < s->lrs; n++)
        if (s->lr[n] >> LR_STATE_SHIFT) return 0;
    return 1;
}
/* Can only the virtual timer fire, and has the guest ended its last interrupt? */
static int only_vtimer(const shadow *s) {
    return CTL_FIRES(s->ctl[0]) && !CTL_FIRES(s->ctl[1]) && !s->line[1] && !(s->ppi_active >> PPI_VTIMER & 1);
}

/* The guest has deactivated the interrupt of the virtual timer while the line is high, so the interrupt is pending again. EL2
 * would acknowledge the physical interrupt and write the same value to the list register. Returns 0 if EL2 must do this. */
static int retake(engine *e) {
    shadow *s = &e->shadow;
    if (ppi_deliverable(s) != 1u << PPI_VTIMER || !may_repeat(e, REPEAT_TICK) || !only_vtimer(s)) return 0;
    moment now = moment_at(e, e->count + 1);
    if (now.count[0] < s->cval[0]) return 0;
    s->lr[0] = s->repeat_lr;
    s->ppi_active |= 1u << PPI_VTIMER;
    s->retaken = 1;
    e->stats[ST_REPEAT]++;
    vif_update(s);
    return 1;
}

/* Mark the shadow registers as changed, and stop if a physical interrupt is signalled to EL2. */
static void changed(engine *e) {
    e->dirty = 1;
    if (ppi_deliverable(&e->shadow)) e->stop = 1;
}
static void interface_changed(engine *e) {
    vif_update(&e->shadow);
    retake(e);
    e->virq = e->shadow.virq;
    e->vfiq = e->shadow.vfiq;
    changed(e);
}

/* Deliver again the SGI that the vCPU sends to itself by the same write. Returns 0 if EL2 must handle the write. */
static int repeat_sgi(engine *e, uint32_t enc) {
    shadow *s = &e->shadow;
    if (enc != ICC_SGI1R || e->insn & INSN_SYSTEM_READ || !e->el || e->rt_value != s->repeat_value || !may_repeat(e, REPEAT_SGI)) return 0;
    s->lr[0] = s->repeat_lr;
    s->repeats++;
    e->stats[ST_REPEAT]++;
    interface_changed(e);
    return 1;
}

static int icc(engine *e) {
    if (e->shadow.repeat == REPEAT_SGI && repeat_sgi(e, e->insn >> INSN_SYSTEM_SHIFT & INSN_SYSTEM_ENCODING)) return ACT_ADVANCE;
    int done = e->el ? icc_access(&e->shadow, e->insn >> INSN_SYSTEM_SHIFT & INSN_SYSTEM_ENCODING, !!(e->insn & INSN_SYSTEM_READ), &e->rt_value) : ICC_PYTHON;
    if (done == ICC_PYTHON) return -1;
    e->stats[ST_ICC]++;
    if (done == ICC_MUTATED) interface_changed(e);
    return ACT_ADVANCE | (e->insn & INSN_SYSTEM_READ ? ACT_WRITE_RT : 0);
}

/* Repeat the last wake-up by the virtual timer at a WFI, if EL2 permits this and the next event is the rise of the virtual
 * timer's line. The time advances to this event, and the interrupt is delivered. Returns 0 if EL2 must handle the WFI. EL2
 * updates its own state at the next entry to EL2 (RunLoop._repeated). */
static int repeat_tick(engine *e, uint32_t esr) {
    shadow *s = &e->shadow;
    uint64_t monitor;
    if (esr & TI_MASK || s->line[0] || !may_repeat(e, REPEAT_TICK) || !only_vtimer(s)) return 0;
    memcpy(&monitor, (uint8_t *)e->context + e->exclusive_offset, 8);
    if (monitor != NEVER) return 0;                /* EL2 would clear the monitor */
    moment now = moment_at(e, e->count + 1);
    uint64_t rise = timer_rise(s, 0, &now), before = s->lr[0];
    if (rise <= now.ns || rise >= s->event_ns) return 0;
    s->lr[0] = s->repeat_lr;
    vif_update(s);
    if (!s->signalled) {
        s->lr[0] = before;
        vif_update(s);
        return 0;
    }
    s->ppi_active |= 1u << PPI_VTIMER;
    e->ns_base += rise - now.ns;
    e->repeat_ns += rise - now.ns;
    now = moment_at(e, e->count + 1);
    timers_update(s, &now);
    s->repeats++;
    e->stats[ST_REPEAT]++;
    set_deadline(e, &now);
    interface_changed(e);
    return 1;
}

/* ---- code and translations ---- */

static void invalidate_code(engine *e, uint64_t pa, uint64_t size) {
    uint32_t before = pstate(e);
    e->epoch++;
    set_pstate(e, PSTATE_EL2_ENTRY);
    rebuild_flags(e);
    e->ctl(e->uc, CTL_WRITE(CTL_TB_REMOVE, 2), pa, pa + size);
    set_pstate(e, before);
    rebuild_flags(e);
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

/* Call Python. Whatever it does may change what a device returns. */
static int call(engine *e, int what) {
    e->kept_n = 0;
    return e->callback(what);
}

static int broadcast_maintenance(engine *e, uint32_t enc, uint64_t value) {
    e->timer_encoding = enc;
    e->value = value;
    return call(e, CB_BROADCAST);
}

/* ---- EL1 exception entry: DDI 0487 D1.10 AArch64.TakeException ---- */

static void record(engine *e, uint32_t what, uint32_t esr, uint64_t elr, uint64_t target) {
    if (!e->trace) return;
    if (e->events_n == EVENTS) call(e, CB_DRAIN);
    if (e->events_n == EVENTS) return;            /* no PE is bound, so no callback has emptied the buffer */
    event *v = &e->events[e->events_n++];
    v->count = e->count; v->ns = ns_at(e, e->count); v->elr = elr; v->target = target; v->what = what; v->esr = esr;
}

static uint32_t vector_offset(uint32_t ps) {
    if (!(ps & PSTATE_EL)) return ps & PSTATE_NRW ? VECTOR_LOWER_A32 : VECTOR_LOWER_A64;
    return ps & PSTATE_SP ? VECTOR_CURRENT_SPX : VECTOR_CURRENT_SP0;
}

static void enter_el1(engine *e, uint32_t what, uint32_t esr, int has_far, uint64_t far) {
    uint32_t ps = pstate(e);
    uint64_t pc = reg(e, R_PC), vbar = reg(e, R_VBAR_EL1);
    uint32_t from_el0 = !(ps & PSTATE_EL);
    uint64_t target = vbar + vector_offset(ps) + what * VECTOR_BYTES;
    uint64_t spsr = ps, sp;
    uint64_t esr64 = esr;
    sys_write(e, SPSR_EL1, spsr);
    set_reg(e, R_ELR_EL1, pc);
    if (what == WHAT_SYNC) set_reg(e, R_ESR_EL1, esr64);
    if (has_far) set_reg(e, R_FAR_EL1, far);
    if (!(ps & PSTATE_SP)) {                          /* EL0 or EL1t: the stack pointer in use is SP_EL0 */
        sp = reg(e, R_SP);
        set_reg(e, R_SP_EL0, sp);
        sp = reg(e, R_SP_EL1);
        set_pstate(e, (ps & PSTATE_NZCV) | PSTATE_EL1_ENTRY);
        set_reg(e, R_SP, sp);
    } else {
        set_pstate(e, (ps & PSTATE_NZCV) | PSTATE_EL1_ENTRY);
    }
    set_pc(e, target);
    rebuild_flags(e);
    record(e, what, esr, pc, target);
    e->count += 1;
    if (what == WHAT_SYNC && !from_el0 && pc >= vbar && pc - vbar < VECTOR_END && pc == e->last_vector_elr) {
        if (++e->vector_faults >= VECTOR_FAULT_LIMIT) { e->vector_faults = 0; leave(e, LEAVE_VECTOR_LOOP); }
    } else {
        e->vector_faults = 0;
    }
    e->last_vector_elr = pc;
}

/* Take an interrupt that is signalled and not masked. Pass a masked interrupt to Unicorn's core, which takes the interrupt
 * when the guest unmasks it. */
static void apply_lines(engine *e) {
    uint32_t lines = (e->virq ? LINE_IRQ : 0) | (e->vfiq ? LINE_FIQ : 0);
    if (lines) {
        uint32_t ps = pstate(e);
        if (e->vfiq && !(ps & LINE_FIQ)) { e->stats[ST_IRQ_MANUAL]++; enter_el1(e, WHAT_FIQ, 0, 0, 0); }
        else if (e->virq && !(ps & LINE_IRQ)) { e->stats[ST_IRQ_MANUAL]++; enter_el1(e, WHAT_IRQ, 0, 0, 0); }
    }
    if (lines != e->lines_in_engine) {
        e->lines_in_engine = lines;
        sys_write(e, HCR_EL2, e->hcr | lines);
    }
}

/* ---- the tail: single steps to an exact count (portable/steps.py) ---- */

static void tail_begin(engine *e) {
    uint32_t ps = pstate(e);
    e->stats[ST_TAILS]++;
    e->tail = 1;
    e->tail_mdscr = sys_read(e, MDSCR_EL1);
    e->tail_ss = ps & PSTATE_SS;
    sys_write(e, MDCR_EL2, e->mdcr | MDCR_TDE);
    set_pstate(e, ps | PSTATE_SS);
    sys_write(e, MDSCR_EL1, e->tail_mdscr | MDSCR_SS);
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
    sys_write(e, MDSCR_EL1, e->tail_mdscr | MDSCR_SS);
}

/* ---- hooks ---- */

static uint32_t filter_hash(uint64_t pc) { return (uint32_t)((uint32_t)(pc >> 2) * 0x9e3779b1u >> 20); }

/* Read the marks of the block at pc (MARK_*). A block is within one page. */
static marked marks_of(engine *e, uint64_t pc, uint32_t size) {
    marked m = {.pc = pc, .size = size, .epoch = e->epoch, .sev = 0xffff, .sevl = 0xffff};
    uint32_t words[64], n = size >> 2, last = 0;
    uint64_t pa;
    if (e->vmem_translate(e->uc, pc, PROT_EXEC_, &pa)) { m.marks = MARK_UNREAD; return m; }
    for (uint32_t at = 0; at < n; at += 64) {
        uint32_t k = n - at < 64 ? n - at : 64;
        if (e->mem_read(e->uc, pa + 4 * (uint64_t)at, words, 4 * (uint64_t)k)) { m.marks = MARK_UNREAD; return m; }
        for (uint32_t i = 0; i < k; i++) {
            if (words[i] == INSN_SEV && m.sev == 0xffff) { m.marks |= MARK_SEV; m.sev = (uint16_t)(at + i); }
            if (words[i] == INSN_SEVL && m.sevl == 0xffff) { m.marks |= MARK_SEVL; m.sevl = (uint16_t)(at + i); }
        }
        last = words[k - 1];
    }
    m.marks |= last == INSN_WFE ? MARK_WFE : last == INSN_YIELD ? MARK_YIELD : last == INSN_ERET ? MARK_ERET : 0;
    return m;
}

/* Find the entry of a block, or the free entry for this block. A quarter of the table is always free, so the search ends. */
static marked *entry_of(engine *e, uint64_t pc, uint32_t size) {
    for (uint32_t i = filter_hash(pc);; i++) {
        marked *m = &e->marked[i & (MARKED - 1)];
        if (!m->size || (m->pc == pc && m->size == size)) return m;
    }
}

/* Set the marks in the entry of a block to those of its present code. */
static void renew(marked *m, marked now) {
    now.edges = m->edges;
    *m = now;
}

/* Store the marks of a block that has just been translated. Returns the entry of the block, NULL if it has no entry. */
static marked *note_block(engine *e, uint64_t pc, uint32_t size) {
    if (size < 4) return NULL;
    marked now = marks_of(e, pc, size), *m = entry_of(e, pc, size);
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

/* Replace the WFE at the end of a block by an ISB in the translated code. At a WFE the core leaves its translated code by a
 * longjmp, which is slow. An ISB also ends the block, and is fast; the block hooks do what the WFE does (retire). This function
 * writes an ISB to memory in place of the WFE, lets the core translate all blocks that end in this WFE, and restores the WFE.
 * The guest executes nothing in this time. If the buffer for translated code is full, the core does not return from the
 * request, and the next hook restores the WFE. Only on_edge may call this function, because a block must not be translated
 * again between its block hook and its end. */
static void exchange(engine *e, uint64_t end) {
    uint32_t isb = INSN_ISB, unreported = e->unreported;
    uint64_t pa;
    uc_tb tb;
    if (e->vmem_translate(e->uc, end - 4, PROT_EXEC_, &pa)) return;
    e->stats[ST_EXCHANGE]++;
    e->ctl(e->uc, CTL_WRITE(CTL_TB_REMOVE, 2), end - 4, end);
    e->unreported = 1;                               /* the next block comes to block_cold */
    e->exchanged_pa = pa;
    e->exchanged = 1;
    e->mem_write(e->uc, pa, &isb, 4);
    for (const marked *m = e->marked; m < e->marked + MARKED; m++)
        if (m->size && m->pc + m->size == end && m->epoch == e->epoch && m->marks & MARK_WFE)
            e->ctl(e->uc, CTL_READ_WRITE(CTL_TB_REQUEST, 2), m->pc, &tb);
    put_back(e);
    e->unreported = unreported;
}

/* Called when a block has been translated. A block can be translated many times, because the guest changes the code or
 * because other blocks end in the same WFE. Therefore the WFE is exchanged only at the translations number 1, 2, 4, 8 and so
 * on, at most 16 times. */
static void on_edge(void *uc, void *cur, void *prev, void *user) {
    engine *e = user;
    uc_tb *tb = cur;
    (void)uc; (void)prev;
    put_back(e);
    marked *m = note_block(e, tb->pc, tb->size);
    if (!m || !(m->marks & MARK_WFE) || e->tail || m->edges == 0xffff) return;
    m->edges++;
    if (!(m->edges & (m->edges - 1))) exchange(e, m->pc + m->size);
}

/* Examine a block that may have been translated without a call of on_edge. */
static void check_unreported(engine *e, uint64_t pc, uint32_t size) {
    marked *m = &e->checked[pc >> 2 & (CHECKED - 1)];
    if (m->pc == pc && m->size == size && m->epoch == e->epoch) return;
    m->pc = pc; m->size = size; m->epoch = e->epoch;
    note_block(e, pc, size);
}

/* Read the marks of the block that begins. Called if the filter has the hash of the block's address. */
static void open_marked(engine *e, uint64_t pc, uint32_t size) {
    marked *m = entry_of(e, pc, size), now;
    if (!m->size) {
        if (!e->marked_overflow || size < 4) return;
        now = marks_of(e, pc, size);
        m = &now;
    } else if (m->epoch != e->epoch || m->marks & MARK_UNREAD) renew(m, marks_of(e, pc, size));
    e->marks = m->marks;
    e->block_sev = m->sev;
    e->block_sevl = m->sevl;
    if (m->marks & (MARK_WFE | MARK_YIELD)) e->unreported = e->wfe_watch;   /* the core starts again after this block, without a call of on_edge */
    if (m->marks == MARK_YIELD && e->count + (size >> 2) < e->yield_at) e->marks = 0;
}

/* Apply the marks of the open block when `done` of its instructions have retired. A WFE at the end of the block completes if
 * the event register is set, or if can_wait is 0. */
static void retire(engine *e, uint32_t done, int can_wait) {
    uint32_t marks = e->marks;
    uint64_t end = e->count + done;
    e->marks = 0;
    if (marks & MARK_UNREAD) {
        marked m = marks_of(e, e->block_pc, 4 * e->open);
        marks = m.marks;
        e->block_sev = m.sev;
        e->block_sevl = m.sevl;
    }
    if (marks & MARK_SEVL && e->block_sevl < done) e->event_register = 1;
    if (marks & MARK_SEV && e->block_sev < done) {
        e->event_register = 1;
        e->value = e->count + e->block_sev + 1;
        if (e->broadcast) call(e, CB_SEV);
    }
    if (!done || done < e->open) return;
    if (marks & MARK_ERET) e->event_register = 1;
    if (marks & MARK_WFE) {
        e->stats[ST_WFE]++;
        if (e->event_register || !can_wait) {
            e->event_register = 0;
            e->event_cleared = ns_at(e, end);
        } else { e->wfe = WAITS_WFE; e->stop = 1; }
    }
    if (marks & MARK_YIELD && end >= e->yield_at) { e->wfe = WAITS_YIELD; e->stop = 1; }
}

static int unmasks_interrupts(uint32_t insn) {
    return insn == INSN_ERET || (insn & INSN_PSTATE_IMM_MASK) == INSN_MSR_DAIFCLR
        || (insn & INSN_WITHOUT_RT) == INSN_MSR_DAIF;
}

/* The kind of the virtual interrupt that the core has just taken by itself, because the guest unmasked the interrupt; 0 if the
 * core has not taken an interrupt. */
static uint32_t native_irq(engine *e, uint64_t pc) {
    uint32_t what = (uint32_t)(pc >> 7 & 3);
    if ((what != WHAT_IRQ && what != WHAT_FIQ) || pc & (VECTOR_BYTES - 1)) return 0;
    if (!(e->lines_in_engine & (what == WHAT_IRQ ? LINE_IRQ : LINE_FIQ))) return 0;
    if (!e->open || (pstate(e) & (PSTATE_DAIF | PSTATE_NRW | PSTATE_MODE)) != PSTATE_EL1_ENTRY) return 0;
    uint64_t offset = pc & (VECTOR_END - 1);
    if (offset >= VECTOR_LOWER_A32 || reg(e, R_VBAR_EL1) != pc - offset) return 0;
    if (sys_read(e, SPSR_EL1) & (what == WHAT_IRQ ? LINE_IRQ : LINE_FIQ)) return 0;   /* the interrupt was masked, so the guest has jumped to the vector */
    return unmasks_interrupts(fetch(e, e->block_pc + 4 * (uint64_t)(e->open - 1))) ? what : 0;
}

static __attribute__((noinline)) int note_native_irq(engine *e, uint64_t pc) {
    uint32_t what = native_irq(e, pc);
    if (!what) return 0;
    e->stats[ST_IRQ_NATIVE]++;
    if (e->marks) retire(e, e->open, 1);
    e->count += e->open;
    e->open = 0;
    e->block_pc = NO_BLOCK;
    record(e, what, 0, reg(e, R_ELR_EL1), pc);
    e->count += 1;
    e->unreported = e->wfe_watch;
    return 1;
}

static uint64_t now_host(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_SECOND + (uint64_t)t.tv_nsec;
}

/* Poll at the next block if a poll is due. Called after slow work that executes few instructions. */
static void poll_if_due(engine *e) {
    if (now_host() - e->poll_ns >= POLL_NS) e->poll_at = e->count;
}

static int el0_denied(engine *e, uint32_t enc);
static int trapped_to_el2(const engine *e, uint32_t enc);
#include "rounds.h"
#include "waits.h"

/* Before the block at pc, whenever POLL_INSNS more have executed, and before each block that a watch looks at. */
static __attribute__((noinline)) void poll_host(engine *e, uint64_t pc) {
    if (e->skip && !e->tail) {
        suspect_block(e, pc, e->count + e->open);
        if (e->watch_left) return;                /* poll_at stays: the next block comes here, too */
    }
    uint64_t t = now_host();
    e->poll_at = e->count + e->open + POLL_INSNS;
    if (t - e->poll_ns >= POLL_NS) {
        e->poll_ns = t;
        if (call(e, CB_POLL)) e->stop = 1;
    }
}

/* Do the rare work before a block: interrupts, marks, an illegal state, the deadline, the poll. Returns 1 if the engine leaves
 * before the block. */
static inline __attribute__((always_inline)) int block_slow(engine *e, uint64_t pc, uint32_t n) {
    uint64_t count;
    if (e->lines_in_engine) note_native_irq(e, pc);
    if (e->marks) retire(e, e->open, 1);
    if (e->count + e->open >= e->poll_at) poll_host(e, pc);
    count = e->count + e->open;
    uint32_t why = LEAVE_NONE;
    if (e->stop) why = LEAVE_STOP;
    else if (count >= e->deadline) why = LEAVE_BUDGET;
    else if (e->illegal_watch && pstate(e) & PSTATE_IL) why = LEAVE_ILLEGAL;
    else if (pc & 3) why = LEAVE_MISALIGNED;
    else if (count + n > e->deadline) why = LEAVE_TAIL;
    if (why) {
        e->count = count;
        e->open = 0;
        e->block_pc = NO_BLOCK;
        leave(e, why);
        return 1;
    }
    return 0;
}

/* Handle a block for which the three stores of on_block are not sufficient. */
static __attribute__((noinline)) void block_cold(engine *e, uint64_t pc, uint32_t size) {
    uint32_t n = size >> 2;
    put_back(e);
    if (block_slow(e, pc, n)) return;
    if (pc == e->block_pc && n == 1 && e->open == 1 && !e->tail) {
        e->count += 1;                            /* the block is a branch to itself; only an interrupt ends this loop */
        e->open = 0;
        e->spin = 1;
        leave(e, LEAVE_BUDGET);
        return;
    }
    e->count += e->open;
    e->open = n;
    e->block_pc = pc;
    if (e->unreported) {
        e->unreported = 0;
        check_unreported(e, pc, size);
    }
    if (e->filter[filter_hash(pc)]) open_marked(e, pc, size);
}

/* Called before each block. This is a leaf function without a stack frame, and usually does only three stores. */
static void on_block(void *uc, uint64_t pc, uint32_t size, void *user) {
    engine *e = user;
    uint32_t n = size >> 2, open = e->open;
    uint64_t count = e->count + open, limit = e->deadline < e->poll_at ? e->deadline : e->poll_at;
    (void)uc;
    if (__builtin_expect(count + n > limit, 0)
        || __builtin_expect(e->lines_in_engine | e->marks | e->stop | e->illegal_watch | e->unreported
                            | e->filter[filter_hash(pc)] | (pc & 3), 0)
        || __builtin_expect(n == 1 && pc == e->block_pc, 0)) {
        block_cold(e, pc, size);
        return;
    }
    e->count = count;
    e->open = n;
    e->block_pc = pc;
}

/* Does CNTKCTL_EL1 deny this access at EL0? If so, the core itself takes the trap to EL1. */
static int el0_denied(engine *e, uint32_t enc) {
    if (pstate(e) & PSTATE_EL) return 0;
    uint32_t crm = CRM(enc), counter = enc == CNTPCT_EL0 ? CNTKCTL_PCTEN : CNTKCTL_VCTEN;
    return !(sys_read(e, CNTKCTL_EL1) & (crm == 0 ? counter : crm == 2 ? CNTKCTL_PTEN : CNTKCTL_VTEN));
}

/* Does CNTHCTL_EL2 (layout of E2H = 0) trap an access at EL1, or an access at EL0 that EL1 permits? */
static int trapped_to_el2(const engine *e, uint32_t enc) {
    switch (CRM(enc)) {
    case 0: return enc == CNTPCT_EL0 ? !(e->cnthctl & CNTHCTL_PCTEN) : !!(e->cnthctl & CNTHCTL_TVCT);
    case 2: return !(e->cnthctl & CNTHCTL_PCEN);
    default: return !!(e->cnthctl & CNTHCTL_TVT);
    }
}

/* Make the core trap the access, as if the access were at EL0 with CNTKCTL_EL1 = 0. syndrome() restores PSTATE and
 * CNTKCTL_EL1. */
static uint32_t refuse(engine *e) {
    e->denied = 1;
    e->denied_pstate = pstate(e);
    e->denied_cntkctl = sys_read(e, CNTKCTL_EL1);
    sys_write(e, CNTKCTL_EL1, 0);
    set_pstate(e, e->denied_pstate & ~PSTATE_MODE);
    return 0;
}

static uint32_t timer_access(engine *e, int rt_id, const cp_reg *r, int is_write) {
    uint32_t enc = SYSREG(r->op0, r->op1, r->crn, r->crm, r->op2);
    if (r->op1 != 3 || !(r->crm == 0 ? r->op2 == 1 || r->op2 == 2 : (r->crm == 2 || r->crm == 3) && r->op2 < 3)) return 0;
    if (is_write && r->crm == 0) return 0;
    if (el0_denied(e, enc)) return 0;
    if (trapped_to_el2(e, enc)) return refuse(e);
    uint64_t pc = reg(e, R_PC), count = e->count + (e->open ? (pc - e->block_pc) >> 2 : 0);
    if (e->skip && !is_write && (r->crm == 0 || r->op2 == 1)) count += suspect_read(e, pc, count);
    if (r->crm == 0) {
        uint64_t v = counter_at(e, count) - (enc == CNTVCT_EL0 ? e->cntvoff : e->cntpoff);
        e->stats[ST_COUNTER]++;
        set_reg(e, rt_id, v);
        return 1;
    }
    e->stats[ST_TIMER]++;
    if (e->shadow.accesses & SHADOW_TIMERS) {
        moment now = moment_at(e, count);
        int t = r->crm == 3 ? 0 : 1;
        if (is_write) {
            if (timer_write(&e->shadow, t, r->op2, r->val, &now)) e->stop = 1;
            set_deadline(e, &now);
            changed(e);
        } else set_reg(e, rt_id, timer_read(&e->shadow, t, r->op2, &now));
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
    call(e, CB_TIMER);
    poll_if_due(e);
    e->count = opened;
    e->open = open;
    if (!is_write) set_reg(e, rt_id, e->value);
    return 1;
}

static uint32_t on_mrs(void *uc, int rt, const cp_reg *r, void *user) {
    (void)uc;
    return r->crn == 14 && r->op0 == 3 ? timer_access(user, rt, r, 0) : 0;
}
/* Does ERET with this SPSR_EL1 set PSTATE.IL? armvirt.arch.pstate has the rule. */
static uint32_t illegal_return(uint64_t spsr) { return spsr & ILLEGAL_IN_SPSR || (spsr & PSTATE_MODE) == RESERVED_MODE; }

static uint32_t on_msr(void *uc, int rt, const cp_reg *r, void *user) {
    engine *e = user;
    (void)uc;
    if (r->op0 != 3) return 0;
    if (r->crn - 1u < 2) e->epoch++;              /* SCTLR, TTBR0, TTBR1, TCR: the code at an address may change */
    if (r->crn == 14 && r->op1 == 0 && r->crm == 1 && r->op2 == 0 && r->val & ~e->cntkctl_bits) {
        sys_write(e, CNTKCTL_EL1, r->val & e->cntkctl_bits);   /* RES0, but the core would store the bits */
        return 1;
    }
    if (r->crn == 14) return timer_access(e, rt, r, 1);
    if (r->crn == 4 && r->crm == 0 && r->op1 == 0 && r->op2 == 0) {
        e->illegal_watch = illegal_return(r->val);
        if (r->val & PSTATE_NRW) {                      /* the core would return to AArch32, so make the return illegal */
            sys_write(e, SPSR_EL1, (r->val & ~(uint64_t)PSTATE_NRW) | PSTATE_MODE);
            return 1;
        }
    }
    if (r->crn == 12 && r->crm == 0 && r->op1 == 0 && r->op2 == 0 && r->val & (VECTOR_END - 1)) {
        set_reg(e, R_VBAR_EL1, r->val & -(uint64_t)VECTOR_END);   /* RES0, but the core would store the bits */
        return 1;
    }
    return 0;
}

/* Does the translation of va still use a level 3 table? If so, every TLB entry of va is an entry for a page, and the core's
 * flush of one page is sufficient. If not, the core may have cached a block as many pages. For the 4 KiB granule only. */
static int page_mapped(engine *e, uint64_t va, uint64_t asid, int check_asid) {
    uint64_t tcr = sys_read(e, TCR_EL1), high = va >> UPPER_RANGE_SHIFT & 1;
    uint64_t ttbr = reg(e, high ? R_TTBR1_EL1 : R_TTBR0_EL1);
    uint32_t tsz = tcr >> (high ? TCR_T1SZ_SHIFT : TCR_T0SZ_SHIFT) & TCR_TSZ_MASK;
    uint32_t granule = tcr >> (high ? TCR_TG1_SHIFT : TCR_TG0_SHIFT) & TCR_TG_MASK;
    if (granule != (high ? TG1_4K : TG0_4K) || tsz < MIN_TSZ || tsz > MAX_TSZ) return 0;
    if (!high && check_asid) {
        uint64_t current = (tcr & TCR_A1 ? reg(e, R_TTBR1_EL1) : ttbr) >> TTBR_ASID_SHIFT;
        if (current != asid) return 0;
    }
    uint32_t bits = 64 - tsz, level = LAST_LEVEL - (bits - PAGE_SHIFT - 1) / LEVEL_BITS;
    uint64_t table = ttbr & ADDRESS_MASK, d = 0;
    uint64_t index = va & ((1ull << bits) - 1);
    for (; level < LAST_LEVEL; level++) {
        uint64_t entry = index >> (PAGE_SHIFT + LEVEL_BITS * (LAST_LEVEL - level)) & (ENTRIES - 1);
        if (e->mem_read(e->uc, table + entry * 8, &d, 8) || ~d & (VALID | TABLE)) return 0;
        table = d & ADDRESS_MASK;
    }
    return 1;
}

static uint32_t on_sys(void *uc, int rt, const cp_reg *r, void *user) {
    engine *e = user;
    if (r->crn != TLBI_CRN || r->op0 != 1) return 0;
    uint64_t v = r->val;
    (void)rt;
    e->epoch++;
    if (!(++e->stats[ST_TLBI] & 3)) poll_if_due(e);
    uint64_t va = (uint64_t)((int64_t)(v << (64 - TLBI_VA_BITS)) >> (64 - TLBI_VA_BITS - PAGE_SHIFT));
    if (r->op2 & TLBI_BY_VA && !page_mapped(e, va, v >> TLBI_ASID_SHIFT, !(r->op2 & TLBI_ANY_ASID))) {
        e->stats[ST_TLB_FLUSH]++;
        e->ctl(e->uc, CTL_NONE(CTL_TLB_FLUSH));
    }
    if (e->broadcast && r->crm == TLBI_CRM_IS) broadcast_maintenance(e, SYSREG(r->op0, r->op1, r->crn, r->crm, r->op2), v);
    (void)uc;
    return 0;
}

static void act(engine *e, int action, uint64_t pc) {
    if (action & ACT_WRITE_RT) set_reg(e, x_id((uint32_t)e->rt), e->rt_value);
    if (action & ACT_WRITE_RESULTS)
        for (uint32_t n = 0; n < RESULTS; n++) set_reg(e, x_id(n), e->arguments[n]);
    if (action & ACT_ADVANCE) { set_pc(e, pc + 4); e->count += 1; }
    if (action & ACT_ENTER) enter_el1(e, WHAT_SYNC, e->enter_esr, (int)e->enter_has_far, e->enter_far);
    apply_lines(e);
    if (action & ACT_STOP || e->stop) { e->stop = 0; leave(e, LEAVE_STOP); }
}

/* The encoding and the Rt of a trapped MSR, MRS or SYS. */
static uint32_t trapped_encoding(uint32_t esr) {
    return SYSREG(esr >> ISS_OP0_SHIFT & OP0_MASK, esr >> ISS_OP1_SHIFT & OP1_MASK, esr >> ISS_CRN_SHIFT & CRN_MASK,
                  esr >> ISS_CRM_SHIFT & CRM_MASK, esr >> ISS_OP2_SHIFT & OP2_MASK);
}
static uint32_t trapped_rt(uint32_t esr) { return esr >> ISS_RT_SHIFT & INSN_RT_MASK; }
/* The syndrome of a trapped MSR. */
static uint32_t msr_trap(uint32_t enc, uint32_t rt) {
    return UNDEFINED | (uint32_t)EC_SYSREG << EC_SHIFT | OP0(enc) << ISS_OP0_SHIFT | OP2(enc) << ISS_OP2_SHIFT
        | OP1(enc) << ISS_OP1_SHIFT | CRN(enc) << ISS_CRN_SHIFT | rt << ISS_RT_SHIFT | CRM(enc) << ISS_CRM_SHIFT;
}
static uint64_t x(engine *e, uint32_t n) { return n == XZR ? 0 : reg(e, x_id(n)); }

static void advance(engine *e, uint64_t pc) {
    set_pc(e, pc + 4);
    e->count += 1;
}

/* Complete cache maintenance that trapped only because the engine sets HCR_EL2.TPU. Returns 0 for a trap that EL2 must
 * handle. */
static int maintenance(engine *e, uint32_t esr, uint64_t pc) {
    uint32_t enc = trapped_encoding(esr);
    if (!e->native_maintenance) return 0;
    switch (enc) {
    case DC_CVAU: e->stats[ST_DC]++; break;                     /* there is no data cache to clean */
    case IC_IVAU: {
        uint64_t line = 64, va = x(e, trapped_rt(esr)) & -line, pa;
        e->stats[ST_IC]++;
        if (translate(e, va, &pa)) {
            invalidate_code(e, pa & -line, line);
            if (e->broadcast) broadcast_maintenance(e, IC_IVAU, pa & -line);
        }
        break;
    }
    case IC_IALLU:
    case IC_IALLUIS:
        e->stats[ST_IC]++;
        e->epoch++;
        e->ctl(e->uc, CTL_NONE(CTL_TB_FLUSH));
        if (e->broadcast && enc == IC_IALLUIS) broadcast_maintenance(e, IC_IALLUIS, 0);
        break;
    default: return 0;
    }
    advance(e, pc);
    return 1;
}

/* Complete an access to a debug register that trapped only because of the single steps. The guest accesses its own value, not
 * the step bits of the engine. Returns 0 if EL2 traps the access. */
static int tail_debug_register(engine *e, uint32_t esr, uint64_t pc) {
    uint32_t enc = trapped_encoding(esr), rt = trapped_rt(esr);
    if (OP0(enc) != 2 || e->mdcr & MDCR_TDA) return 0;
    if (esr & ISS_IS_READ) set_reg(e, x_id(rt), sys_read(e, enc));
    else sys_write(e, enc, x(e, rt));
    advance(e, pc);
    return 1;
}

/* Correct the core's syndrome where it differs from the architecture (DDI 0487, ISS encodings). */
static uint32_t repair_syndrome(engine *e, uint32_t esr, uint32_t target, uint64_t pc) {
    uint32_t ec = esr >> EC_SHIFT;
    if (ec == EC_DABT_LOWER && target == 2 && esr & ISV) {
        /* ISV must be 0 for a load or store with writeback, but the core sets ISV */
        return (fetch(e, pc) & INSN_WRITEBACK_MASK) == INSN_WRITEBACK ? esr & ~ACCESS_FIELDS : esr;
    }
    if (esr == 0 && target == 1) {
        /* MSR DAIFSet or DAIFClr at EL0 with SCTLR_EL1.UMA = 0 has EC 0x18. Any other instruction is UNDEFINED, and IL must be 1. */
        uint32_t insn = fetch(e, pc);
        if ((insn & INSN_MSR_IMM_MASK) != INSN_MSR_IMM) return UNDEFINED;
        return msr_trap(insn >> INSN_SYSTEM_SHIFT & INSN_SYSTEM_ENCODING, XZR);
    }
    /* No access at EL1 traps to EL1. But the core traps CNTPS_*_EL1, which are UNDEFINED at Non-secure EL1. */
    if (ec == EC_SYSREG && target == 1 && pstate(e) & PSTATE_EL) return UNDEFINED;
    return esr;
}

/* Keep the value that Python has given for the present load. */
static void keep(engine *e) {
    if (e->trace || e->big_endian) return;        /* each access is an event; SCTLR_EL1.EE can change without a callback */
    kept_load *k = &e->kept[e->kept_n++ & (KEPT_LOADS - 1)];
    k->ipa = e->ipa;
    k->esr = e->esr & ~(uint64_t)(INSN_RT_MASK << SRT_SHIFT);
    k->value = e->rt_value;
}

/* Complete a load from a device with a kept value. */
static int load_kept(engine *e, uint32_t ec) {
    if (!e->kept_n || ec != EC_DABT_LOWER || (e->esr & (ISV | WNR)) != ISV || e->big_endian) return 0;
    uint64_t esr = e->esr & ~(uint64_t)(INSN_RT_MASK << SRT_SHIFT);
    for (uint32_t n = 0; n < KEPT_LOADS && n < e->kept_n; n++)
        if (e->kept[n].ipa == e->ipa && e->kept[n].esr == esr) {
            e->rt_value = e->kept[n].value;
            e->stats[ST_KEPT]++;
            return 1;
        }
    return 0;
}

/* Call Python for an exit. The call can take as long as the execution of a million instructions. */
static int ask(engine *e, int what) {
    if (e->events_n) call(e, CB_DRAIN);           /* what happened before the exit comes first in a trace */
    int action = e->callback(what);
    if (!(action & ACT_KEEP)) e->kept_n = 0;
    else keep(e);
    poll_if_due(e);
    return action;
}

typedef struct { uint64_t pc, far; uint32_t esr, ec, target, intno; } exception;

static int is_fetch_fault(uint32_t ec) { return ec == EC_IABT_LOWER || ec == EC_IABT_CURRENT; }
static int is_step(uint32_t ec) { return ec == EC_STEP_LOWER || ec == EC_STEP_CURRENT; }

/* Read the exception that is being taken from the core's exception record. */
static exception syndrome(engine *e, uint32_t intno) {
    const uint8_t *record_at = (const uint8_t *)e->context + e->syndrome_offset;
    exception x = {.pc = reg(e, R_PC), .intno = intno};
    e->context_save(e->uc, e->context);
    memcpy(&x.esr, record_at, 4);
    memcpy(&x.far, record_at + 8, 8);
    memcpy(&x.target, record_at + 16, 4);
    if (e->denied) {
        e->denied = 0;
        x.target = 2;
        set_pstate(e, e->denied_pstate);
        sys_write(e, CNTKCTL_EL1, e->denied_cntkctl);
    }
    x.esr = repair_syndrome(e, x.esr, x.target, x.pc);
    x.ec = x.esr >> EC_SHIFT;
    return x;
}

/* Add the executed instructions of the open block to e->count. Returns 0 if the PC of the exit is not in the block. */
static int close_block(engine *e, const exception *x) {
    if (e->open) {
        uint64_t done = (x->pc - e->block_pc) >> 2;
        /* a fetch fault is taken after the block; ISV of a software step by the guest means that the instruction was executed */
        if (is_fetch_fault(x->ec) || (is_step(x->ec) && x->esr & STEP_ISV)) done = e->open;
        else if (done > e->open) {
            e->fault = 1;
            e->fault_error = x->intno;
            leave(e, LEAVE_FAULT);
            return 0;
        }
        if (e->marks) retire(e, (uint32_t)done, !is_step(x->ec) || x->target == 2);   /* a software step by the guest completes a WFE */
        e->count += done;
        e->open = 0;
    }
    e->block_pc = NO_BLOCK;
    e->marks = 0;
    return 1;
}

static void exit_el2(engine *e, const exception *x) {
    uint32_t ec = x->ec, rt = XZR;
    e->stats[ST_EL2]++;
    e->insn = e->big_endian = e->ipa = 0;
    if (ec == EC_SYSREG) {
        if (maintenance(e, x->esr, x->pc)) { poll_if_due(e); return; }
        rt = trapped_rt(x->esr);
    } else if (ec == EC_DABT_LOWER) rt = x->esr >> SRT_SHIFT & INSN_RT_MASK;
    e->rt = rt;
    e->rt_value = rt == XZR ? 0 : reg(e, x_id(rt));
    if (ec == EC_DABT_LOWER)
        e->big_endian = !!(sys_read(e, SCTLR_EL1) & (pstate(e) & PSTATE_EL ? SCTLR_EE : SCTLR_E0E));
    else if (ec == EC_HVC64 || ec == EC_SMC64)
        for (uint32_t n = 0; n < ARGUMENTS; n++) e->arguments[n] = reg(e, x_id(n));
    if (ec == EC_DABT_LOWER || ec == EC_IABT_LOWER)
        e->ipa = (sys_read(e, HPFAR_EL2) & HPFAR_FIPA) << 8 | (x->far & ((1u << PAGE_SHIFT) - 1));
    if (load_kept(e, ec)) act(e, rt == XZR ? ACT_ADVANCE : ACT_WRITE_RT | ACT_ADVANCE, x->pc);
    else act(e, ec == EC_WFX && repeat_tick(e, x->esr) ? ACT_ADVANCE : ask(e, CB_EL2), x->pc);
}

static int is_icc(uint32_t insn) {                /* an MSR or MRS with op0 = 3, CRn = 4 or 12 */
    uint32_t enc = insn >> INSN_SYSTEM_SHIFT & INSN_SYSTEM_ENCODING, crn = CRN(enc);
    return (insn & INSN_SYSTEM_REGISTER_MASK) == INSN_SYSTEM_REGISTER && OP0(enc) == 3 && (crn == 4 || crn == 12);
}

/* Does the PE emulate this UNDEFINED instruction? The PE emulates accesses to the GIC CPU interface, HLT, MRS of CNTPCTSS_EL0
 * and CNTVCTSS_EL0 (FEAT_ECV), WFET and WFIT (FEAT_WFxT). */
static int emulated(engine *e, uint64_t pc) {
    uint32_t insn = fetch(e, pc), without_rt = insn & INSN_WITHOUT_RT;
    if (!is_icc(insn) && (insn & INSN_EXCEPTION_MASK) != INSN_HLT && (insn & INSN_WFXT_MASK) != INSN_WFXT
        && without_rt != INSN_MRS_CNTPCTSS && without_rt != INSN_MRS_CNTVCTSS) return 0;
    e->insn = insn;
    e->rt = insn & INSN_RT_MASK;
    e->rt_value = x(e, e->rt);
    e->el = (pstate(e) & PSTATE_EL) >> 2;
    return 1;
}

static void undefined(engine *e, uint64_t pc) {
    int action = is_icc(e->insn) ? icc(e) : -1;
    e->stats[ST_UNDEF]++;
    act(e, action >= 0 ? action : ask(e, CB_UNDEF), pc);
}

static void on_intr(void *uc, uint32_t intno, void *user) {
    engine *e = user;
    (void)uc;
    put_back(e);
    if (!(++e->stats[ST_INTR] & 15)) poll_if_due(e);
    exception x = syndrome(e, intno);
    if (is_fetch_fault(x.ec) && e->lines_in_engine) note_native_irq(e, x.pc);   /* the fetch of the vector faults */
    if (!close_block(e, &x)) return;
    if (is_fetch_fault(x.ec) && e->wfe) { leave(e, LEAVE_STOP); return; }   /* the guest waits in WFE, before the fetch that faults */
    e->unreported = e->wfe_watch;
    if (e->tail) {
        if (is_step(x.ec) && x.target == 2) { tail_stepped(e); return; }
        tail_end(e);
        if (x.ec == EC_SYSREG && x.target == 2 && tail_debug_register(e, x.esr, x.pc)) { apply_lines(e); return; }
    }
    e->esr = x.esr;
    e->intno = intno;
    e->pc = x.pc;
    e->far = x.far;
    if (x.target == 2) exit_el2(e, &x);
    else if (x.ec == EC_UNKNOWN && emulated(e, x.pc)) undefined(e, x.pc);
    else {
        e->stats[ST_EL1_SYNC]++;
        if (intno == INTNO_SVC) e->count -= 1;    /* the PC is after the SVC, so the SVC was counted */
        enter_el1(e, WHAT_SYNC, x.esr, EC_WITH_FAR >> x.ec & 1, x.far);
        apply_lines(e);
    }
}

/* ---- entry points ---- */

uint32_t av_abi(void) { return ABI_VERSION << 16 | (uint32_t)sizeof(engine); }

void *av_hook(int which) {
    void *table[] = {(void *)on_block, (void *)on_intr, (void *)on_mrs, (void *)on_msr, (void *)on_sys, (void *)on_edge};
    return table[which];
}

void av_apply_lines(engine *e) { apply_lines(e); }

void av_enter(engine *e) { enter_el1(e, WHAT_SYNC, e->enter_esr, (int)e->enter_has_far, e->enter_far); }

/* Run to the deadline or to a stop. Returns LEAVE_BUDGET, LEAVE_STOP, LEAVE_FAULT or LEAVE_VECTOR_LOOP. */
int av_run(engine *e) {
    e->spin = 0;
    e->open = 0;
    e->block_pc = 1;
    e->marks = 0;
    e->poll_at = e->count + POLL_INSNS;
    e->watch_left = 0;
    e->kept_n = 0;
    e->leave = LEAVE_NONE;
    e->illegal_watch = illegal_return(sys_read(e, SPSR_EL1));
    apply_lines(e);
    if (e->leave) return (int)e->leave;
    for (;;) {
        if (e->stop) { e->stop = 0; return LEAVE_STOP; }
        if (e->count >= e->deadline) return LEAVE_BUDGET;
        e->leave = LEAVE_NONE;
        e->unreported = e->wfe_watch;
        e->stats[ST_RUN]++;
        int error = e->emu_start(e->uc, reg(e, R_PC), 0, 0, 0);
        put_back(e);
        if (e->tail) tail_end(e);
        if (error) { e->fault = 2; e->fault_error = (uint32_t)error; return LEAVE_FAULT; }
        switch (e->leave) {
        case LEAVE_TAIL: tail_begin(e); break;
        case LEAVE_MISALIGNED:
            enter_el1(e, WHAT_SYNC, PC_ALIGNMENT, 1, reg(e, R_PC));
            if (e->leave == LEAVE_VECTOR_LOOP) return LEAVE_VECTOR_LOOP;
            break;
        case LEAVE_ILLEGAL: enter_el1(e, WHAT_SYNC, ILLEGAL_STATE, 0, 0); break;
        case LEAVE_NONE: e->fault = 3; return LEAVE_FAULT;
        default:
            if (e->leave == LEAVE_STOP) e->stop = 0;
            return (int)e->leave;
        }
    }
}
