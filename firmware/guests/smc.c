/* Self-modifying code. Every change is followed by what the architecture asks for (DDI 0487 B2.7.4.2:
 * DC CVAU, DSB, IC IVAU, DSB, ISB) and then the new instructions must be what runs. */
#include "mmu.h"
#include "rt.h"

#define MOV_X0(imm) (0xd2800000u | (u32)(imm) << 5)
#define ADD_X0(imm) (0x91000000u | (u32)(imm) << 10)
#define RET 0xd65f03c0u
#define NOP 0xd503201fu

#define PAGES 4u
#define WORDS 1024u

typedef u64 (*function)(void);

static u32 code[PAGES][WORDS] __attribute__((aligned(4096)));

static u64 call(u64 address)
{
    return ((function)address)();
}

/* A function that returns ``value``, at ``where`` as it is written; not yet synchronised. */
static void emit(u64 where, u32 value)
{
    write32(where, MOV_X0(value));
    write32(where + 4, RET);
}

static void emit_and_sync(u64 where, u32 value)
{
    emit(where, value);
    sync_code(where, 8);
}

/* One function, written anew each time. */
static u32 patch_rounds(u64 where, u32 rounds)
{
    u32 good = 0;

    for (u32 n = 0; n < rounds; n++) {
        emit_and_sync(where, n);
        good += call(where) == n;
    }
    return good;
}

/* Only the first instruction changes; the rest was executed before. */
static u32 patch_one_word(u64 where, u32 rounds)
{
    u32 good = 0;

    emit_and_sync(where, 0);
    call(where);
    for (u32 n = 1; n <= rounds; n++) {
        write32(where, MOV_X0(n));
        sync_code(where, 4);
        good += call(where) == n;
    }
    return good;
}

/* Many functions in one page: changing one leaves its neighbours as they were. */
static u32 patch_neighbours(u64 page)
{
    u32 good = 0;

    for (u32 n = 0; n < 64; n++)
        emit(page + 8 * n, n);
    sync_code(page, 64 * 8);
    for (u32 n = 0; n < 63; n += 3) {
        emit_and_sync(page + 8 * n, 1000 + n);
        good += call(page + 8 * n) == 1000 + n;
        good += call(page + 8 * ((n + 1) % 64)) == (n + 1) % 64;
    }
    return good;
}

/* A function that runs over the end of one page into the next; the part in the second page changes. */
static u32 patch_across_pages(u64 boundary)
{
    u32 good = 0;

    write32(boundary - 8, MOV_X0(7));
    write32(boundary - 4, NOP);
    for (u32 n = 0; n < 50; n++) {
        write32(boundary, ADD_X0(n));
        write32(boundary + 4, RET);
        sync_code(boundary - 8, 16);
        good += call(boundary - 8) == 7 + n;
    }
    return good;
}

/* Code that rewrites the instruction right after its own barriers: str, dc, dsb, ic, dsb, isb, target. */
extern char self_start[], self_end[];
__asm__(".pushsection .text.self, \"ax\"\n.global self_start\nself_start:\n\t"
        "adr x2, 1f\n\tstr w0, [x2]\n\tdc cvau, x2\n\tdsb ish\n\tic ivau, x2\n\tdsb ish\n\tisb\n"
        "1:\tmov x0, #0\n\tret\n.global self_end\nself_end:\n.popsection");

static u32 patch_own_next(u64 where)
{
    u32 good = 0;

    memcpy((void *)where, self_start, (size_t)(self_end - self_start));
    sync_code(where, (u64)(self_end - self_start));
    for (u32 n = 0; n < 50; n++)
        good += ((u64(*)(u64))where)(MOV_X0(n)) == n;
    return good;
}

/* A page full of functions copied elsewhere runs there, and the original may change afterwards. */
static u32 copy_page(u64 from, u64 to)
{
    u32 good = 0;

    for (u32 n = 0; n < 16; n++) {
        emit(from, 100 + n);
        sync_code(from, 8);
        good += call(from) == 100 + n;
        memcpy((void *)to, (void *)from, PAGE_SIZE);
        sync_code(to, PAGE_SIZE);
        emit_and_sync(from, 900);
        good += call(to) == 100 + n && call(from) == 900;
    }
    return good;
}

static u32 patch_with_ic_iallu(u64 where)
{
    u32 good = 0;

    for (u32 n = 0; n < 50; n++) {
        emit(where, n);
        __asm__ volatile("dc cvau, %0\n\tdsb ish\n\tic iallu\n\tdsb ish\n\tisb" : : "r"(where) : "memory");
        good += call(where) == n;
    }
    return good;
}

static void check_plain(const char *mode)
{
    u64 page = (u64)code[0];

    check_equal(patch_rounds(page, 300), 300,
                "%s: a function rewritten 300 times returns the new value each time", mode);
    check_equal(patch_one_word(page + 64, 300), 300, "%s: so does one with a single word changed", mode);
    check_equal(patch_neighbours(page), 42, "%s: changing a function leaves its neighbours alone", mode);
    check_equal(patch_across_pages((u64)code[1]), 50, "%s: code over a page boundary changes in the second page", mode);
    check_equal(patch_own_next(page), 50, "%s: code that changes its own next instruction runs the new one", mode);
    check_equal(copy_page((u64)code[2], (u64)code[3]), 32, "%s: code copied from page to page runs in both", mode);
    check_equal(patch_with_ic_iallu(page), 50, "%s: IC IALLU does as well", mode);
}

/* Write through a writable mapping, take it away, map executable, run: the way of a careful JIT. */
static u32 write_xor_execute(u64 va, u64 pa)
{
    u32 good = 0;

    for (u32 n = 0; n < 200; n++) {
        mmu_remap(va, pa, MAP_RW);
        emit(va, n);
        sync_code(va, 8);
        mmu_remap(va, pa, MAP_RX);
        isb();
        good += call(va) == n;
    }
    return good;
}

/* The attributes change in place, without a break: only permissions differ. */
static u32 toggle_permissions(u64 va, u64 pa)
{
    u32 good = 0;

    mmu_remap(va, pa, MAP_RW);
    for (u32 n = 0; n < 200; n++) {
        mmu_map(va, pa, PAGE_SIZE, MAP_RW);
        tlbi_va(va);
        emit(va + 16, n);
        sync_code(va + 16, 8);
        mmu_map(va, pa, PAGE_SIZE, MAP_RX);
        tlbi_va(va);
        good += call(va + 16) == n;
    }
    return good;
}

/* One physical page at two addresses: written at one, executed at the other. */
static u32 dual_mapping(u64 writable, u64 executable, u64 pa)
{
    u32 good = 0;

    mmu_map(writable, pa, PAGE_SIZE, MAP_RW);
    mmu_map(executable, pa, PAGE_SIZE, MAP_RX);
    for (u32 n = 0; n < 200; n++) {
        emit(writable, n);
        sync_code(writable, 8);
        good += call(executable) == n;
    }
    return good;
}

/* As above, and the executable address is the one that is maintained. */
static u32 dual_mapping_by_executable(u64 writable, u64 executable)
{
    u32 good = 0;

    for (u32 n = 0; n < 200; n++) {
        emit(writable + 32, n);
        sync_code(executable + 32, 8);
        good += call(executable + 32) == n;
    }
    return good;
}

/* The same address shows one page of code, then another. */
static u32 switch_pages(u64 va, u64 a, u64 b)
{
    u32 good = 0;

    emit_and_sync(a, 1);
    emit_and_sync(b, 2);
    for (u32 n = 0; n < 100; n++) {
        mmu_remap(va, n & 1 ? b : a, MAP_RX);
        good += call(va) == 1 + (n & 1);
    }
    return good;
}

static void check_execute_never(u64 va, u64 pa)
{
    struct fault fault;

    mmu_remap(va, pa, MAP_RX);
    call(va);
    mmu_remap(va, pa, MAP_RW);
    fault_begin();
    ((void (*)(void))va)();
    fault = fault_end();
    check(fault.count == 1 && ESR_EC(fault.esr) == EC_IABT_SAME,
          "a page made execute-never does not run what ran before");
}

int main(void)
{
    u64 a = (u64)code[0], b = (u64)code[1];

    check_plain("MMU off");
    mmu_on();
    check_plain("MMU on");
    check_equal(write_xor_execute(WINDOW, a), 200, "a JIT that maps W or X in turn runs what it wrote");
    check_equal(toggle_permissions(WINDOW, b), 200, "so does one that only changes permissions");
    check_equal(dual_mapping(WINDOW + 2 * PAGE_SIZE, WINDOW + 3 * PAGE_SIZE, a), 200,
                "code written at one address runs at its other address");
    check_equal(dual_mapping_by_executable(WINDOW + 2 * PAGE_SIZE, WINDOW + 3 * PAGE_SIZE), 200,
                "also when the executable address is maintained");
    check_equal(switch_pages(WINDOW, a, b), 100, "an address remapped between two pages of code runs the mapped one");
    check_execute_never(WINDOW, a);
    mmu_disable();
    check_plain("MMU off again");
    return 0;
}
