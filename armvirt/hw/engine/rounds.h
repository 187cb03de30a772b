/*
 * The proof that rounds of a polled wait have no effect, for paths that Python has found (wait_plan): armvirt/hw/polling is the
 * text to read, with the reasons. This knows the instructions that most waits consist of; where it says no, Python is asked.
 * Included by native.c.
 */

typedef struct { uint64_t low, high; } values;   /* one of low..high */
typedef struct { uint64_t address; uint32_t size, loaded, stored; uint64_t before; values now; } cell;
typedef enum { REFUSED, UNDECIDED, ALIKE } verdict;
enum { FLAGS_KNOWN, FLAGS_SUB, FLAGS_ADD, FLAGS_LOGIC };
enum { XSP = 32, NOWHERE = 33, CELLS = 16 };

typedef struct {
    engine *e;
    const wait_plan *plan;
    uint64_t count, number;                      /* of the first round, of rounds */
    values x[34];
    uint32_t flags, flags_width, cells, el0;
    values a, b;                                 /* what set the flags */
    cell cell[CELLS];
    int has_threshold;                           /* of the comparison that is undecided */
    values compared;
    uint64_t threshold;
    uint64_t page[2][3];                         /* the last translated page of each kind: virtual, physical */
} round_state;

static const values ZERO = {0, 0};
static values one(uint64_t v) { return (values){v, v}; }
static uint64_t mask_of(uint32_t width) { return width == 64 ? UINT64_MAX : ((uint64_t)1 << width) - 1; }
static values any(uint32_t width) { return (values){0, mask_of(width)}; }
static int is_one(values v) { return v.low == v.high; }
static values wrapped(__int128 low, __int128 high, uint32_t width) {
    if (low >> width != high >> width) return any(width);
    return (values){(uint64_t)low & mask_of(width), (uint64_t)high & mask_of(width)};
}
static values truncated(values v, uint32_t width) { return width == 64 ? v : wrapped(v.low, v.high, width); }
static values plus(values a, values b, uint32_t width) { return wrapped((__int128)a.low + b.low, (__int128)a.high + b.high, width); }
static values minus(values a, values b, uint32_t width) { return wrapped((__int128)a.low - b.high, (__int128)a.high - b.low, width); }
static values shifted_left(values v, uint32_t by, uint32_t width) {
    if (by > 62) return is_one(v) ? one(v.low << by & mask_of(width)) : any(width);
    return wrapped((__int128)v.low << by, (__int128)v.high << by, width);
}
static values extended(values v, uint32_t bits, uint32_t width) {
    uint64_t sign = (uint64_t)1 << (bits - 1), extension = mask_of(width) & ~mask_of(bits);
    if (v.high < sign) return v;
    if (v.low < sign) return any(width);
    return (values){v.low | extension, v.high | extension};
}
static uint64_t logical(uint32_t opc, uint64_t a, uint64_t b) { return opc == 1 ? a | b : opc == 2 ? a ^ b : a & b; }
static values bitwise(values a, values b, uint32_t opc) {
    uint64_t differ = (a.low ^ a.high) | (b.low ^ b.high), unknown;
    if (!differ) return one(logical(opc, a.low, b.low));
    unknown = UINT64_MAX >> __builtin_clzll(differ);
    uint64_t low = logical(opc, a.low, b.low) & ~unknown;
    return (values){low, low | ((opc == 0 || opc == 3) && is_one(b) ? b.low & unknown : unknown)};
}

/* ---- conditions ---- */

static verdict undecided(round_state *r, values v, uint64_t threshold) {
    r->has_threshold = 1;
    r->compared = v;
    r->threshold = threshold;
    return UNDECIDED;
}
static verdict undecided_pair(round_state *r, values a, values b) {
    if (is_one(b)) return undecided(r, a, b.low);
    if (is_one(a)) return undecided(r, b, a.low);
    r->has_threshold = 0;
    return UNDECIDED;
}
static verdict at_least(round_state *r, values a, values b, int *holds) {
    *holds = a.low >= b.high;
    return *holds || a.high < b.low ? ALIKE : undecided_pair(r, a, b);
}
static verdict equal(round_state *r, values a, values b, int *holds) {
    *holds = is_one(a) && is_one(b) && a.low == b.low;
    return *holds || a.high < b.low || b.high < a.low ? ALIKE : undecided_pair(r, a, b);
}

/* NZCV as a number, -1 if it is not the same for all values. */
static int nzcv_of(const round_state *r) {
    uint32_t sign = r->flags_width - 1;
    uint64_t mask = mask_of(r->flags_width), x = r->a.low, y = r->b.low;
    if (r->flags == FLAGS_KNOWN) return (int)x;
    if (!is_one(r->a) || !is_one(r->b)) return -1;
    if (r->flags == FLAGS_LOGIC) return (int)(x >> sign) << 3 | !x << 2;
    if (r->flags == FLAGS_SUB) y ^= mask;
    unsigned __int128 total = (unsigned __int128)x + y + (r->flags == FLAGS_SUB);
    uint64_t result = (uint64_t)total & mask;
    return (int)(result >> sign) << 3 | !result << 2 | (total > mask) << 1 | (int)(((x ^ result) & (y ^ result)) >> sign & 1);
}

static verdict holds_for_all(round_state *r, uint32_t which, int *holds) {
    uint32_t width = r->flags_width;
    values sign = one((uint64_t)1 << (width - 1)), a = r->a, b = r->b;
    verdict v;
    if (r->flags != FLAGS_SUB) {
        values result = r->flags == FLAGS_LOGIC ? a : plus(a, b, width);
        if (which == 0) return equal(r, result, ZERO, holds);
        if (which == 2) return at_least(r, result, sign, holds);
        r->has_threshold = 0;
        return UNDECIDED;
    }
    if (which >= 5) { a = plus(a, sign, width); b = plus(b, sign, width); }   /* signed values in unsigned order */
    switch (which) {
    case 0: return equal(r, a, b, holds);
    case 1: case 5: return at_least(r, a, b, holds);
    case 2: return at_least(r, minus(a, b, width), sign, holds);
    case 4: case 6: v = at_least(r, b, a, holds); *holds = !*holds; return v;
    default: r->has_threshold = 0; return UNDECIDED;
    }
}

static verdict condition(round_state *r, uint32_t cond, int *holds) {
    int nzcv = nzcv_of(r);
    verdict v = ALIKE;
    if (cond >= 14) { *holds = 1; return ALIKE; }
    if (nzcv < 0) v = holds_for_all(r, cond >> 1, holds);
    else {
        int n = nzcv >> 3 & 1, z = nzcv >> 2 & 1, c = nzcv >> 1 & 1, o = nzcv & 1;
        int answers[] = {z, c, n, o, c && !z, n == o, n == o && !z};
        *holds = answers[cond >> 1];
    }
    *holds ^= (int)cond & 1;
    return v;
}

/* ---- what a round reads beside its registers ---- */

static int round_translate(round_state *r, uint64_t va, uint32_t kind, uint64_t *pa) {
    uint32_t slot = kind == PROT_EXEC_ ? 2 : kind == PROT_READ_ ? 0 : 1;
    uint64_t page = va & ~(uint64_t)4095;
    if (r->page[0][slot] != page) {
        if (r->e->vmem_translate(r->e->uc, page, kind, &r->page[1][slot])) return 0;
        r->page[0][slot] = page;
    }
    *pa = r->page[1][slot] | (va & 4095);
    return 1;
}

static int overlap(const cell *c, uint64_t address, uint32_t size) { return c->address < address + size && address < c->address + c->size; }

/* The cell of an access: NULL if it is none of RAM, or overlaps another one. */
static cell *cell_of(round_state *r, uint64_t va, uint32_t size, int is_store) {
    uint64_t pa, written;
    if (va & (size - 1) || !round_translate(r, va, PROT_READ_, &pa)) return NULL;
    if (is_store && (!round_translate(r, va, PROT_WRITE_, &written) || written != pa)) return NULL;
    cell *found = NULL;
    for (uint32_t n = 0; n < r->cells; n++) {
        cell *c = &r->cell[n];
        if (c->address == pa && c->size == size) found = c;
        else if (overlap(c, pa, size) && (is_store || c->stored)) return NULL;
    }
    if (found || r->cells == CELLS) return found;
    r->cell[r->cells] = (cell){.address = pa, .size = size};
    return &r->cell[r->cells++];
}
static verdict load(round_state *r, uint64_t va, uint32_t size, values *v) {
    cell *c = cell_of(r, va, size, 0);
    if (!c) return REFUSED;
    if (!c->stored && !c->loaded) {
        if (r->e->mem_read(r->e->uc, c->address, &c->before, size)) return REFUSED;
        c->loaded = 1;
    }
    *v = c->stored ? c->now : one(c->before);
    return ALIKE;
}
static verdict store(round_state *r, uint64_t va, uint32_t size, values v) {
    cell *c = cell_of(r, va, size, 1);
    if (!c) return REFUSED;
    c->stored = 1;
    c->now = truncated(v, 8 * size);
    return ALIKE;
}

/* MRS of a counter or a timer's control register, instruction `index` of the round. */
static verdict read_counter(round_state *r, uint32_t enc, uint32_t index, values *v) {
    engine *e = r->e;
    uint64_t first = r->count + index, last = first + (r->number - 1) * r->plan->length;
    uint64_t offset = enc == CNTVCT_EL0 || enc == CNTV_CTL_EL0 ? e->cntvoff : e->cntpoff;
    if (el0_denied(e, enc) || trapped_to_el2(e, enc)) return REFUSED;
    *v = (values){counter_at(e, first) - offset, counter_at(e, last) - offset};
    if (v->low > v->high) *v = any(64);              /* it rolls over */
    if (enc == CNTVCT_EL0 || enc == CNTPCT_EL0) return ALIKE;
    if (!(e->shadow.accesses & SHADOW_TIMERS)) return REFUSED;
    int t = enc == CNTV_CTL_EL0 ? 0 : 1;
    uint64_t ctl = e->shadow.ctl[t], cval = e->shadow.cval[t];
    if (ctl & CTL_ENABLE && v->high >= cval) {
        if (v->low < cval) return undecided(r, *v, cval);
        ctl |= CTL_ISTATUS;
    }
    *v = one(ctl);
    return ALIKE;
}

/* ---- instructions ---- */

static uint32_t sp_or(uint32_t n) { return n == 31 ? XSP : n; }
static uint32_t target(uint32_t n) { return n == 31 ? NOWHERE : n; }
static uint64_t sign_field(uint64_t v, uint32_t bits) { return (uint64_t)((int64_t)(v << (64 - bits)) >> (64 - bits)); }

/* DecodeBitMasks; 0 if reserved. */
static uint64_t bit_mask(uint32_t w, uint32_t width) {
    uint32_t imms = w >> 10 & 63, immr = w >> 16 & 63, code = (w >> 22 & 1) << 6 | (~imms & 63);
    if (code < 2) return 0;
    uint32_t size = 1u << (31 - __builtin_clz(code)), ones = (imms & (size - 1)) + 1;
    if (size > width || ones == size) return 0;
    uint64_t element = mask_of(ones), mask = 0;
    immr &= size - 1;
    if (immr) element = (element >> immr | element << (size - immr)) & mask_of(size);
    for (uint32_t at = 0; at < width; at += size) mask |= element << at;
    return mask;
}

/* a and b have 64 bits: a sum modulo 2**32 wraps later than they do. */
static verdict sum(round_state *r, uint32_t w, uint32_t rd, values a, values b, uint32_t width) {
    int is_sub = w >> 30 & 1;
    if (w >> 29 & 1) {
        r->flags = is_sub ? FLAGS_SUB : FLAGS_ADD;
        r->flags_width = width;
        r->a = truncated(a, width);
        r->b = truncated(b, width);
    }
    r->x[rd] = is_sub ? minus(a, b, width) : plus(a, b, width);
    return ALIKE;
}
static verdict logic(round_state *r, uint32_t w, uint32_t rd, values a, values b, uint32_t width) {
    uint32_t opc = w >> 29 & 3;
    r->x[rd] = bitwise(a, b, opc);
    if (opc == 3) { r->flags = FLAGS_LOGIC; r->flags_width = width; r->a = r->x[rd]; r->b = ZERO; }
    return ALIKE;
}

static verdict immediate(round_state *r, uint32_t w, uint64_t pc, uint32_t width) {
    uint32_t rd = w & 31, rn = w >> 5 & 31, kind = w >> 23 & 7, sets = w >> 29 & 1;
    if (kind < 2) {
        uint64_t offset = sign_field((w >> 5 & 0x7ffff) << 2 | (w >> 29 & 3), 21);
        r->x[target(rd)] = one(w >> 31 ? (pc & ~(uint64_t)4095) + (offset << 12) : pc + offset);
        return ALIKE;
    }
    if (kind == 2) {
        values b = one((uint64_t)(w >> 10 & 0xfff) << (w >> 22 & 1 ? 12 : 0));
        return sum(r, w, sets ? target(rd) : sp_or(rd), r->x[sp_or(rn)], b, width);
    }
    if (kind == 4) {
        uint64_t mask = bit_mask(w, width);
        if (!mask) return REFUSED;
        return logic(r, w, (w >> 29 & 3) == 3 ? target(rd) : sp_or(rd), truncated(r->x[rn], width), one(mask), width);
    }
    if (kind == 5) {
        uint32_t opc = w >> 29 & 3, shift = (w >> 21 & 3) * 16;
        uint64_t v = (uint64_t)(w >> 5 & 0xffff) << shift;
        if (opc == 1 || shift >= width) return REFUSED;
        if (opc == 3) {
            if (!is_one(r->x[rd])) return REFUSED;
            v |= r->x[rd].low & ~((uint64_t)0xffff << shift);
        }
        r->x[target(rd)] = one((opc ? v : ~v) & mask_of(width));
        return ALIKE;
    }
    if (kind == 6 && (w >> 29 & 3) != 1) {           /* SBFM, UBFM */
        uint32_t right = w >> 16 & 63, last = w >> 10 & 63, is_signed = !(w >> 29 & 3);
        uint32_t bits = last >= right ? last - right + 1 : last + 1, place = last >= right ? 0 : width - right;
        values v = truncated(r->x[rn], width);
        if (last >= right) v = (values){v.low >> right, v.high >> right};
        v = truncated(v, bits);
        if (is_signed) v = extended(v, bits, width);
        r->x[target(rd)] = shifted_left(v, place, width);
        return ALIKE;
    }
    return REFUSED;
}

static verdict by_register(round_state *r, uint32_t w, uint32_t width) {
    uint32_t rd = target(w & 31), rn = w >> 5 & 31, rm = w >> 16 & 31, group = w >> 24 & 31, by = w >> 10 & 63, kind = w >> 22 & 3;
    values a = truncated(r->x[rn], width), b = truncated(r->x[rm], width);
    if ((group == 0x0b && !(w >> 21 & 1)) || group == 0x0a) {
        if (kind > 1 || by >= width) return REFUSED;
        b = kind ? (values){b.low >> by, b.high >> by} : shifted_left(b, by, width);
        if (group == 0x0b) return sum(r, w, rd, r->x[rn], by ? b : r->x[rm], width);
        if (w >> 21 & 1) b = (values){b.high ^ mask_of(width), b.low ^ mask_of(width)};
        return logic(r, w, rd, a, b, width);
    }
    if ((w & 0x3fe00800) == 0x1a800000) {            /* CSEL, CSINC, CSINV, CSNEG */
        int holds;
        verdict v = condition(r, w >> 12 & 15, &holds);
        if (v != ALIKE) return v;
        if (w >> 30 & 1) b = (values){b.high ^ mask_of(width), b.low ^ mask_of(width)};
        if (w >> 10 & 1) b = plus(b, one(1), width);
        r->x[rd] = holds ? a : b;
        return ALIKE;
    }
    return REFUSED;
}

static verdict transfer(round_state *r, uint32_t rt, uint64_t va, uint32_t size, int is_load) {
    values v;
    if (!is_load) return store(r, va, size, r->x[rt]);
    if (load(r, va, size, &v) != ALIKE) return REFUSED;
    r->x[target(rt)] = v;
    return ALIKE;
}

static verdict access(round_state *r, uint32_t w) {
    uint32_t rt = w & 31, rn = sp_or(w >> 5 & 31), is_load = w >> 22 & 1, size, mode;
    uint64_t base = r->x[rn].low, offset;
    if (!is_one(r->x[rn])) return REFUSED;
    if ((w & 0x3c000000) == 0x28000000 && (w >> 30 & 1) == 0) {   /* LDP, STP of W or X */
        size = w >> 31 ? 8 : 4;
        offset = sign_field(w >> 15 & 127, 7) * size;
        mode = w >> 23 & 3;
        uint64_t at = mode == 1 ? base : base + offset;
        if (transfer(r, rt, at, size, (int)is_load) != ALIKE || transfer(r, w >> 10 & 31, at + size, size, (int)is_load) != ALIKE)
            return REFUSED;
        if (mode & 1) r->x[rn] = one(base + offset);
        return ALIKE;
    }
    if ((w & 0x3f000000) == 0x08000000) {                         /* LDAR, STLR: the exclusives are no part of a path */
        return transfer(r, rt, base, 1u << (w >> 30), (int)is_load);
    }
    if ((w & 0x3e000000) != 0x38000000 || w >> 23 & 1) return REFUSED;   /* not those that sign-extend */
    size = 1u << (w >> 30);
    if (w >> 24 & 1) return transfer(r, rt, base + (uint64_t)(w >> 10 & 0xfff) * size, size, (int)is_load);
    if (w >> 21 & 1) return REFUSED;
    offset = sign_field(w >> 12 & 511, 9);
    mode = w >> 10 & 3;
    if (transfer(r, rt, mode == 1 ? base : base + offset, size, (int)is_load) != ALIKE) return REFUSED;
    if (mode & 1) r->x[rn] = one(base + offset);
    return ALIKE;
}

static verdict branch(round_state *r, uint32_t w, uint64_t pc, uint32_t index, uint64_t *next) {
    uint32_t group = w >> 24, rt = w & 31;
    uint64_t near = pc + sign_field((uint64_t)(w >> 5 & 0x7ffff) << 2, 21);
    values v;
    int holds;
    if ((group & 0x7c) == 0x14) {
        if (w >> 31) r->x[30] = one(pc + 4);
        *next = pc + sign_field((uint64_t)(w & 0x3ffffff) << 2, 28);
        return ALIKE;
    }
    if (group == 0x54) {
        verdict decided = condition(r, w & 15, &holds);
        if (decided == ALIKE && holds) *next = near;
        return decided;
    }
    if ((group & 0x7e) == 0x34) {
        v = truncated(r->x[rt], w >> 31 ? 64 : 32);
        if (!v.low && v.high) return undecided(r, v, 0);
        if (!!v.low == (w >> 24 & 1)) *next = near;
        return ALIKE;
    }
    if ((group & 0x7e) == 0x36) {
        uint32_t bit = w >> 31 << 5 | (w >> 19 & 31);
        v = r->x[rt];
        if (v.low >> bit != v.high >> bit) return undecided(r, v, v.high >> bit << bit);
        if ((v.low >> bit & 1) == (w >> 24 & 1)) *next = pc + sign_field((uint64_t)(w >> 5 & 0x3fff) << 2, 16);
        return ALIKE;
    }
    if (group == 0xd6) {
        v = r->x[w >> 5 & 31];
        if (!is_one(v)) return REFUSED;
        if ((w >> 21 & 3) == 1) r->x[30] = one(pc + 4);
        *next = v.low;
        return ALIKE;
    }
    if ((w & 0xfff00000) == 0xd5300000) return read_counter(r, w >> INSN_SYSTEM_SHIFT & INSN_SYSTEM_ENCODING, index, &r->x[target(rt)]);
    return ALIKE;                                    /* a hint or a barrier: Python knows the path */
}

static verdict instruction(round_state *r, uint32_t w, uint64_t pc, uint32_t index, uint64_t *next) {
    uint32_t width = w >> 31 ? 64 : 32;
    *next = pc + 4;
    switch (w >> 25 & 15) {
    case 8: case 9: return immediate(r, w, pc, width);
    case 10: case 11: return branch(r, w, pc, index, next);
    case 5: case 13: return by_register(r, w, width);
    case 4: case 6: case 12: case 14: return access(r, w);
    default: return REFUSED;
    }
}

/* ---- rounds ---- */

/* Will the next round start as this one did? */
static verdict check_end(const round_state *r) {
    const wait_plan *p = r->plan;
    for (uint32_t n = 0; n <= XSP; n++)
        if (p->carried >> n & 1 && !(is_one(r->x[n]) && r->x[n].low == p->start[n == XSP ? 31 : n])) return REFUSED;
    if (p->keeps_flags && nzcv_of(r) != (int)p->start_nzcv) return REFUSED;
    for (uint32_t n = 0; n < r->cells; n++) {
        const cell *c = &r->cell[n];
        if (!c->stored) continue;
        if (c->loaded && !(is_one(c->now) && c->now.low == c->before)) return REFUSED;
        for (uint32_t i = 0; i < p->length; i++)
            if (c->address < p->physical[i] + 4 && p->physical[i] < c->address + c->size) return REFUSED;
    }
    return ALIKE;
}

static verdict evaluate(round_state *r, engine *e, wait_plan *p, uint64_t count, uint64_t number) {
    uint64_t next = p->pc;
    r->e = e; r->plan = p; r->count = count; r->number = number;
    for (uint32_t n = 0; n < 31; n++) r->x[n] = one(p->start[n]);
    r->x[31] = r->x[NOWHERE] = ZERO;
    r->x[XSP] = one(p->start[31]);
    r->flags = FLAGS_KNOWN;
    r->a = one(p->start_nzcv);
    r->cells = 0;
    for (uint32_t i = 0; i < p->length; i++) {
        if (next != p->address[i]) return REFUSED;
        verdict v = instruction(r, p->word[i], next, i, &next);
        if (v != ALIKE) return v;
    }
    return next == p->pc ? check_end(r) : REFUSED;
}

/* Is the code of the plan still there? */
static int code_stands(round_state *r, const wait_plan *p) {
    for (uint32_t i = 0; i < p->length; i++) {
        uint64_t pa;
        uint32_t word;
        if (!round_translate(r, p->address[i], PROT_EXEC_, &pa) || pa != p->physical[i]) return 0;
        if (r->e->mem_read(r->e->uc, pa, &word, 4) || word != p->word[i]) return 0;
    }
    return 1;
}

/* The next number of rounds to try: _fewer of armvirt.hw.polling.loop. */
static uint64_t fewer(const round_state *r, const values *before, uint64_t number, uint32_t attempt) {
    uint64_t low = r->compared.low, high = r->compared.high, guess = 0;
    if (r->has_threshold && (low || (high != UINT32_MAX && high != UINT64_MAX))) {
        __int128 rest = (__int128)r->threshold - 1 - low, over = (__int128)high - r->threshold - 1;
        __int128 grow = rest < 0 ? 0 : rest * (__int128)(number - 1) / (high - low);
        __int128 shrink = over < 0 ? 0 : over * (__int128)(number - 1) / (high - low);
        if (before->low > before->high) guess = (uint64_t)(grow > shrink ? grow : shrink);
        else if (before->low == low) guess = (uint64_t)grow;
        else if (before->high == high) guess = (uint64_t)shrink;
        if (attempt > 2) guess -= guess / 16;
    }
    return guess > 0 && guess < number ? guess : number / 2;
}

/* rounds_alike of armvirt.hw.polling.loop: ALIKE and a number, UNDECIDED if they are too few. */
static verdict rounds_alike(round_state *r, engine *e, wait_plan *p, uint64_t count, uint64_t most, uint64_t *rounds) {
    uint64_t number = most;
    values before = {1, 0};
    for (uint32_t attempt = 0; attempt < 40 && number >= FEWEST_ROUNDS; attempt++) {
        verdict v = evaluate(r, e, p, count, number);
        *rounds = number;
        if (v != UNDECIDED) return v;
        number = fewer(r, &before, number, attempt);
        before = r->has_threshold ? r->compared : (values){1, 0};
    }
    return UNDECIDED;
}

/* Skip rounds of the wait that begins at pc by its plan: ALIKE, and the instructions to add to `count`. REFUSED: Python has to
 * look. */
static verdict skip_by_plan(engine *e, uint64_t pc, uint64_t count, uint64_t *added) {
    wait_plan *p = &e->plans[pc >> 2 & (PLANS - 1)];
    uint64_t rounds;
    if (p->pc != pc || !p->length) return REFUSED;
    uint32_t ps = pstate(e);
    round_state r;
    r.e = e;
    memset(r.page[0], 0xff, sizeof r.page[0]);
    if (sys_read(e, MDSCR_EL1) & STEPS_AND_BREAKPOINTS || sys_read(e, SCTLR_EL1) & (SCTLR_EE | SCTLR_E0E)) return REFUSED;
    if (!code_stands(&r, p)) return REFUSED;
    for (uint32_t n = 0; n < 31; n++) p->start[n] = reg(e, x_id(n));
    p->start[31] = reg(e, R_SP);
    p->start_nzcv = ps >> 28;
    uint64_t longest = e->paced ? LONGEST_PACED_SKIP_NS / e->ns_per_insn : LONGEST_SKIP;
    uint64_t limit = e->deadline < count + longest ? e->deadline : count + longest;
    if (e->deadline == NEVER && !p->counts) return REFUSED;
    if (p->yields && e->yield_at < limit) limit = e->yield_at;
    if (limit <= count) return UNDECIDED;
    verdict v = rounds_alike(&r, e, p, count, (limit - count) / p->length, &rounds);
    if (v != ALIKE) return v;
    *added = (rounds - 1) * p->length;
    e->stats[ST_WAIT]++;
    e->skipped += *added;
    if (e->trace && e->events_n == EVENTS) call(e, CB_DRAIN);
    if (e->trace && e->events_n < EVENTS)
        e->events[e->events_n++] = (event){.count = count, .ns = ns_at(e, count), .elr = pc, .target = rounds - 1,
                                           .what = WAIT_RECORD, .esr = p->length};
    return ALIKE;
}
