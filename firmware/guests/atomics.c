/* Exclusive accesses in all sizes, alone and by two CPUs at once; the LSE atomics where they exist. */
#include "mmu.h"
#include "rt.h"
#include "smp.h"

#define ROUNDS 10000u

static u32 counter;
static u64 pair[2] __attribute__((aligned(16)));
static u64 word __attribute__((aligned(16)));

static u64 add_many(u64 argument)
{
    for (u32 n = 0; n < ROUNDS; n++)
        atomic_add(&counter, (u32)argument);
    return 0;
}

/* Both halves of a pair change together: LDXP/STXP. */
static u64 add_pairs(u64 argument)
{
    for (u32 n = 0; n < ROUNDS; n++) {
        u64 a, b;
        u32 failed;

        __asm__ volatile("1:\tldaxp %0, %1, [%3]\n\tadd %0, %0, %4\n\tsub %1, %1, %4\n\t"
                         "stlxp %w2, %0, %1, [%3]\n\tcbnz %w2, 1b"
                         : "=&r"(a), "=&r"(b), "=&r"(failed) : "r"(pair), "r"(argument) : "memory");
    }
    return 0;
}

/* LOAD, then ``between``, then STORE of 1: what the status register says (0 stored, 1 not). */
#define EXCLUSIVE(load, between, store) ({ \
    u32 status_; \
    u64 old_; \
    word = 0; \
    __asm__ volatile(load "\n\t" between "\n\t" store \
                     : "=&r"(status_), "=&r"(old_) : "r"(&word), "r"(1ul) : "memory"); \
    status_; })

#define LOADX "ldxr %1, [%2]"
#define STOREX "stxr %w0, %3, [%2]"

static void check_sizes(void)
{
    check(EXCLUSIVE("ldxrb %w1, [%2]", "", "stxrb %w0, %w3, [%2]") == 0 && word == 1, "LDXRB and STXRB");
    check(EXCLUSIVE("ldxrh %w1, [%2]", "", "stxrh %w0, %w3, [%2]") == 0 && word == 1, "LDXRH and STXRH");
    check(EXCLUSIVE("ldxr %w1, [%2]", "", "stxr %w0, %w3, [%2]") == 0 && word == 1, "LDXR and STXR w");
    check(EXCLUSIVE(LOADX, "", STOREX) == 0 && word == 1, "LDXR and STXR x");
    check(EXCLUSIVE("ldaxr %1, [%2]", "", "stlxr %w0, %3, [%2]") == 0 && word == 1, "LDAXR and STLXR");
}

static void resume(struct context *ctx) { (void)ctx; }

static void check_monitor(void)
{
    check(EXCLUSIVE("", "clrex", STOREX) == 1 && word == 0, "STXR without a reservation does not store");
    check(EXCLUSIVE(LOADX, "clrex", STOREX) == 1 && word == 0, "CLREX ends a reservation");
    check(EXCLUSIVE(LOADX, "stxr %w0, %3, [%2]", STOREX) == 1 && word == 1, "a STXR ends its reservation");
    sync_handler = resume;
    check(EXCLUSIVE(LOADX, "svc #0", STOREX) == 1 && word == 0, "an exception return ends a reservation");
    sync_handler = NULL;
}

static u64 overwrite(u64 value)
{
    WRITE_ONCE(word, value);
    return 0;
}

/* Between LDXR and STXR another CPU writes, even back the old value (the ABA case). */
static void check_other_cpu(void)
{
    u64 old;
    u32 failed;

    word = 7;
    __asm__ volatile("ldxr %0, [%1]" : "=&r"(old) : "r"(&word) : "memory");
    smp_call(1, overwrite, 8);
    __asm__ volatile("stxr %w0, %1, [%2]" : "=&r"(failed) : "r"(9ul), "r"(&word) : "memory");
    check(failed && word == 8, "STXR fails after another CPU's store");
}

static bool have_lse(void)
{
    return read_sysreg(id_aa64isar0_el1) >> 20 & 15;
}

#define LSE(insn) ({ \
    u64 old_; \
    __asm__ volatile(".arch_extension lse\n\t" insn : "=&r"(old_) : "r"(&word), "r"(5ul) : "memory"); \
    old_; })

static u64 add_many_lse(u64 argument)
{
    for (u32 n = 0; n < ROUNDS; n++)
        __asm__ volatile(".arch_extension lse\n\tstadd %w0, [%1]" : : "r"(argument), "r"(&counter) : "memory");
    return 0;
}

static void check_lse(void)
{
    word = 10;
    check(LSE("ldadd %2, %0, [%1]") == 10 && word == 15, "LDADD");
    check(LSE("swp %2, %0, [%1]") == 15 && word == 5, "SWP");
    check(LSE("ldset %2, %0, [%1]") == 5 && word == 5, "LDSET");
    check(LSE("ldclr %2, %0, [%1]") == 5 && word == 0, "LDCLR");
    check(LSE("mov %0, #0\n\tcas %0, %2, [%1]") == 0 && word == 5, "CAS");
    counter = 0;
    smp_send(1, add_many_lse, 2);
    add_many_lse(1);
    smp_wait(1);
    check_equal(counter, 3 * ROUNDS, "STADD by two CPUs loses nothing");
}

int main(void)
{
    mmu_on();
    smp_start(1);
    check_sizes();
    check_monitor();
    check_other_cpu();
    smp_send(1, add_many, 2);
    add_many(1);
    smp_wait(1);
    check_equal(counter, 3 * ROUNDS, "LDXR/STXR by two CPUs loses nothing");
    pair[1] = 1ul << 40;
    smp_send(1, add_pairs, 5);
    add_pairs(2);
    smp_wait(1);
    check(pair[0] == 7 * ROUNDS && pair[0] + pair[1] == 1ul << 40, "LDXP/STXP by two CPUs keep a pair together");
    if (have_lse())
        check_lse();
    else
        note("this CPU has no LSE atomics: their checks are skipped");
    smp_stop(1);
    return 0;
}
