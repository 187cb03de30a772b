/* Where the vectors lead: handlers by kind, recorded faults, EL0 runs, and a readable end. */
#include "rt.h"

trap_handler sync_handler, irq_handler, fiq_handler;
u64 boot_x0;

void gic_dispatch(struct context *ctx);
void el0_enter(struct context *user, u64 *anchor);
void el0_leave(u64 anchor) __attribute__((noreturn));
void exception_dispatch(struct context *ctx);

/* Per CPU: is a fault expected, which one came, and who waits for EL0 to come back. */
static struct cpu_traps {
    bool expecting;
    struct fault fault;
    struct context *user;
    u64 anchor;
} traps[MAX_CPUS];

static const char *const kinds[4] = {"synchronous exception", "IRQ", "FIQ", "SError"};
static const char *const sources[4] = {"EL1t", "EL1h", "EL0", "AArch32 EL0"};

static void unexpected(const struct context *ctx)
{
    note("ESR %lx ELR %lx FAR %lx SPSR %lx", ctx->esr, ctx->elr, ctx->far, ctx->spsr);
    die("no unexpected %s from %s", kinds[ctx->vector & 3], sources[ctx->vector >> 2 & 3]);
}

void fault_begin(void)
{
    struct cpu_traps *mine = &traps[cpu_id()];

    mine->fault = (struct fault){0};
    mine->expecting = true;
    __asm__ volatile("" : : : "memory");
}

struct fault fault_end(void)
{
    struct cpu_traps *mine = &traps[cpu_id()];

    __asm__ volatile("" : : : "memory");
    mine->expecting = false;
    return mine->fault;
}

/* Where execution goes on after a recorded fault. */
static u64 step_over(const struct context *ctx)
{
    switch (ESR_EC(ctx->esr)) {
    case EC_SVC64:
        return ctx->elr;
    case EC_IABT_SAME:
    case EC_PC_ALIGN:
        return ctx->x[30];
    default:
        return ctx->elr + 4;
    }
}

/* The illegal state must be left behind, or the next instruction takes the same exception. */
static void clear_illegal_state(struct context *ctx)
{
    if (ESR_EC(ctx->esr) == EC_ILLEGAL)
        ctx->spsr &= ~PSTATE_IL;
}

static void record(struct fault *fault, struct context *ctx)
{
    *fault = (struct fault){
        .count = fault->count + 1, .vector = (u32)ctx->vector, .esr = ctx->esr, .far = ctx->far,
        .elr = ctx->elr, .spsr = ctx->spsr, .sp = ctx->sp_el1,
    };
    ctx->elr = step_over(ctx);
    clear_illegal_state(ctx);
}

static void sync_from_el0(struct cpu_traps *mine, const struct context *ctx)
{
    if (!mine->user)
        unexpected(ctx);
    *mine->user = *ctx;
    mine->user = NULL;
    el0_leave(mine->anchor);
}

static void sync_default(struct context *ctx)
{
    struct cpu_traps *mine = &traps[cpu_id()];

    if (ctx->vector >= VECTOR_EL0_SYNC)
        sync_from_el0(mine, ctx);
    else if (mine->expecting)
        record(&mine->fault, ctx);
    else
        unexpected(ctx);
}

void exception_dispatch(struct context *ctx)
{
    const trap_handler handlers[4] = {
        sync_handler ? sync_handler : sync_default,
        irq_handler ? irq_handler : gic_dispatch,
        fiq_handler,
    };
    trap_handler handler = handlers[ctx->vector & 3];

    if (handler)
        handler(ctx);
    else
        unexpected(ctx);
}

void el0_run(struct context *user)
{
    struct cpu_traps *mine = &traps[cpu_id()];

    mine->user = user;
    el0_enter(user, &mine->anchor);
}
