/* Device registers by every form of load and store that a compiler may choose. Those with writeback,
 * pairs, SIMD registers or acquire/release semantics carry no syndrome (ISV = 0): a hypervisor must decode
 * the instruction itself. */
#include "gic.h"
#include "mmu.h"
#include "rt.h"
#include "user.h"

#define SPI 200u

/* RTC_MR: 32 bits of plain storage. UART_IBRD: 16 bits of it. Priorities: bytes of it.
 * IROUTER: 64 bits, of which only the affinities 2 to 0 need exist (GICD_TYPER.A3V and No1N). */
#define RTC_MR     (RTC_BASE + 0x04)
#define UART_IBRD  (UART_BASE + 0x24)
#define UART_ID    (UART_BASE + 0xfe0) /* one byte per word: 11 10 14 00 0d f0 05 b1 */
#define RTC_ID     (RTC_BASE + 0xfe0)  /* 31 10 04 or 14 00 0d f0 05 b1 */
#define PRIORITY   (GICD_BASE + GIC_IPRIORITYR + SPI)
#define ROUTER     (GICD_BASE + GICD_IROUTER + 8 * SPI)

#define ID_LOW  0x0000001000000011ull
#define ID_F0   0x000000f00000000dull
#define ID_LAST 0x000000b100000005ull

/* One instruction that loads into %0 (``w`` picks the width) from base %1. */
#define LOAD(insn, base) ({ \
    u64 value_, base_ = (base); \
    __asm__ volatile(insn : "=&r"(value_), "+r"(base_) : : "memory"); \
    value_; })

/* As LOAD, returning how far the base register moved. */
#define LOAD_MOVES(insn, base, value) ({ \
    u64 base_ = (base); \
    __asm__ volatile(insn : "=&r"(value), "+r"(base_) : : "memory"); \
    base_ - (base); })

#define STORE(insn, base, value) ({ \
    u64 base_ = (base); \
    __asm__ volatile(insn : "+r"(base_) : "rZ"((u64)(value)) : "memory"); \
    base_ - (base); })

static void check_sizes(void)
{
    write32(RTC_MR, 0x89abcdef);
    check_equal(LOAD("ldr %w0, [%1]", RTC_MR), 0x89abcdef, "LDR w zero-extends");
    check_equal(LOAD("ldrsw %0, [%1]", RTC_MR), 0xffffffff89abcdefull, "LDRSW sign-extends to 64 bits");
    check_equal(LOAD("ldrh %w0, [%1]", RTC_MR), 0xcdef, "LDRH loads 16 bits");
    check_equal(LOAD("ldrsh %w0, [%1]", RTC_MR), 0xffffcdef, "LDRSH w sign-extends to 32 bits");
    check_equal(LOAD("ldrsh %0, [%1]", RTC_MR), 0xffffffffffffcdefull, "LDRSH x sign-extends to 64 bits");
    check_equal(LOAD("ldrb %w0, [%1]", RTC_MR), 0xef, "LDRB loads 8 bits");
    check_equal(LOAD("ldrb %w0, [%1]", UART_ID + 28), 0xb1, "LDRB loads an identification byte");
    check_equal(LOAD("ldrsb %w0, [%1]", UART_ID + 28), 0xffffffb1, "LDRSB w sign-extends to 32 bits");
    check_equal(LOAD("ldrsb %0, [%1]", UART_ID + 20), 0xfffffffffffffff0ull, "LDRSB x sign-extends to 64 bits");
    check_equal(LOAD("ldr %0, [%1]", GICR_BASE + 8) >> 32, 0, "LDR x reads a 64-bit register");
    check_equal(LOAD("ldr wzr, [%1]\n\tmov %0, #5", RTC_MR), 5, "LDR to the zero register loads nothing");
}

static u64 router(void) { return read64(ROUTER); }

static void check_stores(void)
{
    STORE("str %w1, [%0]", RTC_MR, 0x1234567);
    check_equal(read32(RTC_MR), 0x1234567, "STR w");
    STORE("str wzr, [%0]", RTC_MR, 0);
    check_equal(read32(RTC_MR), 0, "STR wzr stores zero");
    write32(PRIORITY, 0);
    STORE("strb %w1, [%0]", PRIORITY + 1, 0xfffff80);
    check_equal(read32(PRIORITY), 0x8000, "STRB stores 8 bits");
    STORE("strh %w1, [%0]", UART_IBRD, 0xabcd0013);
    check_equal(read32(UART_IBRD), 0x13, "STRH stores 16 bits");
    STORE("str %x1, [%0]", ROUTER, 0x10203);
    check_equal(router(), 0x10203, "STR x stores to a 64-bit register");
    STORE("str %w1, [%0, #4]", ROUTER, 0);
    check_equal(router(), 0x10203, "STR w stores to one half of it and leaves the other");
    STORE("str %w1, [%0]", ROUTER, 0x40506);
    check_equal(router(), 0x40506, "STR w stores to the other half");
    STORE("str xzr, [%0]", ROUTER, 0);
    check_equal(router(), 0, "STR xzr stores zero");
}

static void check_addressing(void)
{
    u64 value;

    write32(RTC_MR, 0x5a5a0001);
    check_equal(LOAD("ldr %w0, [%1, #4]", RTC_MR - 4), 0x5a5a0001, "LDR with an unsigned offset");
    check_equal(LOAD("ldur %w0, [%1, #-3]", RTC_MR + 3), 0x5a5a0001, "LDUR with a negative offset");
    check_equal(LOAD("ldurb %w0, [%1, #-1]", RTC_MR + 1), 1, "LDURB with a negative offset");
    check_equal(LOAD("ldursw %0, [%1, #-4]", UART_ID + 24) , 0xf0, "LDURSW with a negative offset");
    check_equal(LOAD("mov x9, #4\n\tldr %w0, [%1, x9]", RTC_MR - 4), 0x5a5a0001, "LDR with a register offset");
    check_equal(LOAD("mov x9, #1\n\tldr %w0, [%1, x9, lsl #2]", RTC_MR - 4), 0x5a5a0001, "LDR with a scaled register");
    check_equal(LOAD("mov w9, #-1\n\tldr %w0, [%1, w9, sxtw #2]", RTC_MR + 4), 0x5a5a0001,
                "LDR with a sign-extended register");
    check_equal(LOAD("mov x9, #-1\n\tmov w9, #4\n\tldr %w0, [%1, w9, uxtw]", RTC_MR - 4), 0x5a5a0001,
                "LDR with a zero-extended register");
    check_equal(LOAD_MOVES("ldr %w0, [%1], #12", RTC_MR, value), 12, "LDR post-index moves the base");
    check_equal(value, 0x5a5a0001, "and loads from the old one");
    check_equal(LOAD_MOVES("ldr %w0, [%1, #-8]!", RTC_MR + 8, value), (u64)-8, "LDR pre-index moves the base");
    check_equal(value, 0x5a5a0001, "and loads from the new one");
    check_equal(LOAD_MOVES("ldrb %w0, [%1], #1", UART_ID + 20, value), 1, "LDRB post-index moves by one");
    check_equal(value, 0xf0, "and loads a byte");
    check_equal(LOAD_MOVES("ldrsb %0, [%1, #4]!", UART_ID + 24, value), 4, "LDRSB pre-index moves the base");
    check_equal(value, 0xffffffffffffffb1ull, "and sign-extends");
    check_equal(STORE("str %w1, [%0], #-4", RTC_MR, 77), (u64)-4, "STR post-index moves the base");
    check_equal(read32(RTC_MR), 77, "and stores at the old one");
    check_equal(STORE("str %w1, [%0, #4]!", RTC_MR - 4, 78), 4, "STR pre-index moves the base");
    check_equal(read32(RTC_MR), 78, "and stores at the new one");
    STORE("stur %w1, [%0, #-1]", RTC_MR + 1, 79);
    check_equal(read32(RTC_MR), 79, "STUR with a negative offset");
    STORE("mov x9, #1\n\tstr %w1, [%0, x9, lsl #2]", RTC_MR - 4, 80);
    check_equal(read32(RTC_MR), 80, "STR with a scaled register");
    check_equal(STORE("strb %w1, [%0], #1", PRIORITY, 0x40), 1, "STRB post-index moves by one");
    check_equal(read32(PRIORITY) & 0xff, 0x40, "and stores a byte");
}

/* The stack pointer as base, with interrupts masked. */
static void check_sp_base(void)
{
    write32(RTC_MR, 0x600d);
    check_equal(LOAD("mov x9, sp\n\tmov sp, %1\n\tldr %w0, [sp, #4]\n\tmov sp, x9", RTC_BASE), 0x600d,
                "LDR based on SP");
}

static void check_pairs(void)
{
    u64 a, b, base = UART_ID;

    __asm__ volatile("ldp %w0, %w1, [%2]" : "=&r"(a), "=&r"(b) : "r"(base) : "memory");
    check(a == 0x11 && b == 0x10, "LDP w loads two registers");
    __asm__ volatile("ldp %w0, %w1, [%2], #16" : "=&r"(a), "=&r"(b), "+r"(base) : : "memory");
    check(a == 0x11 && b == 0x10 && base == UART_ID + 16, "LDP post-index moves the base");
    __asm__ volatile("ldp %w0, %w1, [%2, #8]!" : "=&r"(a), "=&r"(b), "+r"(base) : : "memory");
    check(a == 5 && b == 0xb1 && base == UART_ID + 24, "LDP pre-index moves the base");
    __asm__ volatile("ldnp %w0, %w1, [%2, #-8]" : "=&r"(a), "=&r"(b) : "r"(base) : "memory");
    check(a == 0xd && b == 0xf0, "LDNP loads two registers");
    write32(RTC_MR, 0x80000000);
    __asm__ volatile("ldpsw %0, %1, [%2]" : "=&r"(a), "=&r"(b) : "r"(RTC_MR) : "memory");
    check_equal(a, 0xffffffff80000000ull, "LDPSW sign-extends");
    write64(ROUTER, 0x10203);
    write64(ROUTER + 8, 0x40506);
    __asm__ volatile("ldp %0, %1, [%2]" : "=&r"(a), "=&r"(b) : "r"(ROUTER) : "memory");
    check(a == 0x10203 && b == 0x40506, "LDP x loads two 64-bit registers");
    base = ROUTER - 16;
    __asm__ volatile("stp %1, %2, [%0, #16]!" : "+r"(base) : "r"(0x7ul), "r"(0x8ul) : "memory");
    check(read64(ROUTER) == 7 && read64(ROUTER + 8) == 8 && base == ROUTER, "STP x pre-index stores two");
    __asm__ volatile("stp xzr, xzr, [%0]" : : "r"(ROUTER) : "memory");
    check(read64(ROUTER) == 0 && read64(ROUTER + 8) == 0, "STP xzr stores zeros");
    __asm__ volatile("stp %w1, %w2, [%0]" : : "r"(PRIORITY), "r"(0x10203040u), "r"(0x50607080u) : "memory");
    check(read32(PRIORITY) == 0x10203040 && read32(PRIORITY + 4) == 0x50607080, "STP w stores two registers");
}

/* The compiler uses no SIMD registers in these guests; the asm may. */
static void check_simd(void)
{
    u64 a, b;

    write32(RTC_MR, 0xc001d00d);
    check_equal(LOAD("ldr s0, [%1]\n\tfmov %w0, s0", RTC_MR), 0xc001d00d, "LDR s");
    check_equal(LOAD("ldr b0, [%1]\n\tfmov %w0, s0", UART_ID + 28), 0xb1, "LDR b clears the rest");
    check_equal(LOAD("ldr h0, [%1]\n\tfmov %w0, s0", RTC_MR), 0xd00d, "LDR h clears the rest");
    STORE("fmov s1, %w1\n\tstr s1, [%0]", RTC_MR, 0x3f800000);
    check_equal(read32(RTC_MR), 0x3f800000, "STR s");
    STORE("fmov s1, %w1\n\tstr s1, [%0, #4]!", RTC_MR - 4, 0x40000000);
    check_equal(read32(RTC_MR), 0x40000000, "STR s pre-index");
    STORE("fmov d1, %x1\n\tstr d1, [%0]", ROUTER, 0xabcdef);
    check_equal(LOAD("ldr d0, [%1]\n\tfmov %0, d0", ROUTER), 0xabcdef, "STR d and LDR d");
    __asm__ volatile("ldr q0, [%2]\n\tfmov %0, d0\n\tfmov %1, v0.d[1]"
                     : "=&r"(a), "=&r"(b) : "r"(UART_ID + 16) : "memory");
    check(a == ID_F0 && b == ID_LAST, "LDR q loads four words");
    __asm__ volatile("ldp s0, s1, [%2]\n\tfmov %w0, s0\n\tfmov %w1, s1" : "=&r"(a), "=&r"(b) : "r"(UART_ID) : "memory");
    check(a == 0x11 && b == 0x10, "LDP s loads two");
    write64(ROUTER, 0);
}

static void check_acquire_release(void)
{
    STORE("stlr %w1, [%0]", RTC_MR, 0x8000aaaa);
    check_equal(LOAD("ldar %w0, [%1]", RTC_MR), 0x8000aaaa, "STLR and LDAR w");
    check_equal(LOAD("ldarb %w0, [%1]", UART_ID + 20), 0xf0, "LDARB");
    check_equal(LOAD("ldarh %w0, [%1]", RTC_MR), 0xaaaa, "LDARH");
    STORE("stlr %x1, [%0]", ROUTER, 0x300010);
    check_equal(LOAD("ldar %0, [%1]", ROUTER), 0x300010, "STLR and LDAR x");
    STORE("stlrb %w1, [%0]", PRIORITY, 0xb0);
    check_equal(read32(PRIORITY) & 0xff, 0xb0, "STLRB");
    write64(ROUTER, 0);
}

static void check_unprivileged(void)
{
    STORE("sttr %w1, [%0]", RTC_MR, 0x42424242);
    check_equal(LOAD("ldtr %w0, [%1]", RTC_MR), 0x42424242, "STTR and LDTR");
}

/* Data accesses of EL1 are big-endian between the two writes of SCTLR_EL1; the MMU is off, since the
 * same bit also turns the translation table walk around. */
#define BIG_ENDIAN(insn) \
    "mrs x9, sctlr_el1\n\torr x10, x9, #(1 << 25)\n\tmsr sctlr_el1, x10\n\tisb\n\t" insn "\n\tmsr sctlr_el1, x9\n\tisb"

static void check_big_endian(void)
{
    u64 value, base;

    write32(RTC_MR, 0x11223344);
    __asm__ volatile(BIG_ENDIAN("ldr %w0, [%1]") : "=&r"(value) : "r"(RTC_MR) : "x9", "x10", "memory");
    check_equal(value, 0x44332211, "big-endian EL1: LDR w swaps the bytes");
    __asm__ volatile(BIG_ENDIAN("str %w0, [%1]") : : "r"(0xa1b2c3d4), "r"(RTC_MR) : "x9", "x10", "memory");
    check_equal(read32(RTC_MR), 0xd4c3b2a1, "big-endian EL1: STR w swaps the bytes");
    __asm__ volatile(BIG_ENDIAN("ldrb %w0, [%1]") : "=&r"(value) : "r"(UART_ID + 28) : "x9", "x10", "memory");
    check_equal(value, 0xb1, "big-endian EL1: LDRB has nothing to swap");
    __asm__ volatile(BIG_ENDIAN("str %0, [%1]") : : "r"(0x0302010000000000ull), "r"(ROUTER) : "x9", "x10", "memory");
    check_equal(router(), 0x10203, "big-endian EL1: STR x swaps eight bytes");
    base = RTC_MR;
    __asm__ volatile(BIG_ENDIAN("ldr %w0, [%1], #4") : "=&r"(value), "+r"(base) : : "x9", "x10", "memory");
    check(value == 0xa1b2c3d4 && base == RTC_MR + 4, "big-endian EL1: LDR post-index swaps and moves");
    __asm__ volatile(BIG_ENDIAN("ldrsw %0, [%1]") : "=&r"(value) : "r"(UART_ID + 20) : "x9", "x10", "memory");
    check_equal(value, 0xfffffffff0000000ull, "big-endian EL1: LDRSW extends the swapped value");
    write64(ROUTER, 0);
}

static void check_big_endian_el0(void)
{
    struct context user;

    write32(RTC_MR, 0x01020304);
    write_sysreg(sctlr_el1, read_sysreg(sctlr_el1) | SCTLR_E0E);
    isb();
    user = user_run(user_load32, WINDOW + 4, 0);
    check_equal(user.x[1], 0x04030201, "big-endian EL0: LDR w swaps the bytes");
    user = user_run(user_store32, WINDOW + 4, 0x0a0b0c0d);
    check_equal(ESR_EC(user.esr), EC_SVC64, "big-endian EL0: the store is done");
    write_sysreg(sctlr_el1, read_sysreg(sctlr_el1) & ~SCTLR_E0E);
    isb();
    check_equal(read32(RTC_MR), 0x0d0c0b0a, "big-endian EL0: STR w swaps the bytes");
    user = user_run(user_load32, WINDOW + 4, 0);
    check_equal(user.x[1], 0x0d0c0b0a, "little-endian EL0 reads what is there");
}

static void check_forms(void)
{
    check_sizes();
    check_stores();
    check_addressing();
    check_sp_base();
    check_pairs();
    check_simd();
    check_acquire_release();
}

int main(void)
{
    gic_init();
    print("MMU off\n");
    check_forms();
    check_unprivileged();
    check_big_endian();
    mmu_on();
    print("MMU on, Device-nGnRE\n");
    check_forms();
    user_map();
    mmu_map(WINDOW, RTC_BASE, PAGE_SIZE, MAP_DEVICE | PTE_EL0);
    check_big_endian_el0();
    return 0;
}
