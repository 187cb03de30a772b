/*
 * What is suspected to be a polled wait: suspects.py is the text to read. The proof is in Python (waits.py). Included by
 * native.c.
 */

enum { WAIT_ASKED, WAIT_REFUSED, WAIT_LATER };

/* The instructions to add to `count`, the count before the instruction at pc. A loop that has a plan and does not take its path
 * is mostly about to end: who is patient does not ask Python (WAIT_LATER). */
static uint64_t ask_wait(engine *e, uint64_t pc, uint64_t count, int patient, int *refused) {
    uint64_t opened = e->count, added = 0;
    uint32_t open = e->open;
    verdict v = skip_by_plan(e, pc, count, &added);
    *refused = v == UNDECIDED ? WAIT_REFUSED : WAIT_ASKED;
    if (v == REFUSED && patient && e->plans[pc >> 2 & (PLANS - 1)].pc == pc) { *refused = WAIT_LATER; return 0; }
    if (v != REFUSED) {
        e->value = added;
        if (added && e->paced) call(e, CB_SKIPPED);
        e->count += added;
        return added;
    }
    e->count = count;
    e->open = 0;
    e->pc = pc;
    e->value = 0;
    *refused = call(e, CB_WAIT);
    e->count = opened + e->value;
    e->open = open;
    return e->value;
}

/* An MRS reads a counter or ISTATUS. */
static uint64_t suspect_read(engine *e, uint64_t pc, uint64_t count) {
    poll_site *s = &e->sites[pc >> 2 & (SITES - 1)];
    uint64_t distance = count - s->count, added;
    int refused;
    s->count = count;
    if (s->pc != pc) { s->pc = pc; s->refusals = 0; s->run = 0; }
    if (s->run != e->stats[ST_RUN] || distance != s->distance || distance > LONGEST_ROUND) {
        s->run = e->stats[ST_RUN];
        s->distance = distance;
        s->returns = 0;
        return 0;
    }
    uint32_t ask_at = e->first_ask << s->refusals;
    if (++s->returns < ask_at || e->tail || e->stop) return 0;
    added = ask_wait(e, pc, count, s->returns < ask_at + PATIENCE, &refused);
    if (refused == WAIT_LATER) return 0;
    s->returns = 0;
    if (!refused) s->refusals = 0;
    else if (s->refusals < MOST_REFUSALS) s->refusals++;
    s->count += added;
    return added;
}

static void set_watch_period(engine *e, uint32_t polls) { e->watch_period = e->watch_wait = polls; }
static void lengthen_watch_period(engine *e) {
    set_watch_period(e, e->watch_period < LONGEST_WATCH_PERIOD ? 2 * e->watch_period : LONGEST_WATCH_PERIOD);
}

/* X0 to X30, SP and PSTATE. */
static uint64_t watched_register(engine *e, uint32_t n) { return n < 31 ? reg(e, x_id(n)) : n == 31 ? reg(e, R_SP) : pstate(e); }
static void save_registers(engine *e) {
    for (uint32_t n = 0; n < 33; n++) e->watch_x[n] = watched_register(e, n);
}
static int same_registers(engine *e) {
    for (uint32_t n = 0; n < 33; n++)
        if (watched_register(e, n) != e->watch_x[n]) return 0;
    return 1;
}

/* Whether the engine may ask about a block. An engine that has not asked yet lets some watches pass. */
static int may_ask(engine *e) {
    e->first_ask = e->first_ask > FIRST_ASK + WATCH_WORTH ? e->first_ask - WATCH_WORTH : FIRST_ASK;
    return e->first_ask == FIRST_ASK;
}

/* A block begins, and a poll is due or a watch waits for a block. */
static void suspect_block(engine *e, uint64_t pc, uint64_t count) {
    if (!e->watch_left) {
        if (--e->watch_wait) return;
        e->watch_wait = e->watch_period;
        e->watch_pc = pc;
        e->watch_count = count;
        e->watch_left = WATCHED_BLOCKS;
        e->watch_distance = 0;
        return;
    }
    e->watch_left--;
    if (pc != e->watch_pc) {
        if (!e->watch_left) lengthen_watch_period(e);
        return;
    }
    uint64_t distance = count - e->watch_count;
    int refused = 1;
    e->watch_count = count;
    if (!e->watch_distance && distance <= LONGEST_ROUND) {   /* the first return */
        e->watch_distance = distance;
        save_registers(e);
        e->watch_left = WATCHED_BLOCKS;
        return;
    }
    e->watch_left = 0;
    if (distance == e->watch_distance && !e->stop && same_registers(e)) {
        if (may_ask(e)) ask_wait(e, pc, count, 0, &refused);
        else refused = 0;
    }
    if (refused) lengthen_watch_period(e);
    else set_watch_period(e, 1);
}
