/* Broadcast maintenance: after CPU 0 has remapped a page or changed code, CPU 1 must see the new one. */
#include "mmu.h"
#include "rt.h"
#include "smp.h"

#define MOV_X0(imm) (0xd2800000u | (u32)(imm) << 5)
#define RET 0xd65f03c0u

static u64 pages[2][512] __attribute__((aligned(4096)));
static u32 code[2][1024] __attribute__((aligned(4096)));

static u64 read_there(u64 va) { return read64(va); }

static u64 run_there(u64 va)
{
    isb();
    return ((u64(*)(void))va)();
}

static u64 faults_there(u64 va)
{
    fault_begin();
    read64(va);
    return fault_end().count;
}

static void check_remap(void)
{
    u32 good = 0;

    pages[0][0] = 10;
    pages[1][0] = 11;
    for (u32 n = 0; n < 100; n++) {
        mmu_remap(WINDOW, (u64)pages[n & 1], MAP_RW);
        good += smp_call(1, read_there, WINDOW) == 10 + (n & 1);
    }
    check_equal(good, 100, "CPU 1 sees each of 100 remaps of CPU 0 (TLBI VAE1IS)");
    mmu_unmap(WINDOW, PAGE_SIZE);
    check_equal(smp_call(1, faults_there, WINDOW), 1, "CPU 1 faults on a page that CPU 0 unmapped");
    mmu_map(WINDOW, (u64)pages[0], PAGE_SIZE, MAP_RW);
    check_equal(smp_call(1, faults_there, WINDOW), 0, "and reads it when it is mapped again");
}

static void check_remap_all(void)
{
    u32 good = 0;

    for (u32 n = 0; n < 50; n++) {
        WRITE_ONCE(*mmu_entry(WINDOW, 3), 0);
        tlbi_all();
        mmu_map(WINDOW, (u64)pages[n & 1], PAGE_SIZE, MAP_RW);
        good += smp_call(1, read_there, WINDOW) == 10 + (n & 1);
    }
    check_equal(good, 50, "the same by TLBI VMALLE1IS");
}

static void emit(u64 where, u32 value)
{
    write32(where, MOV_X0(value));
    write32(where + 4, RET);
}

static void check_code(void)
{
    u64 where = (u64)code[0];
    u32 good = 0;

    for (u32 n = 0; n < 100; n++) {
        emit(where, n);
        sync_code(where, 8);
        good += smp_call(1, run_there, where) == n;
    }
    check_equal(good, 100, "CPU 1 runs what CPU 0 wrote (IC IVAU)");
    good = 0;
    for (u32 n = 0; n < 100; n++) {
        emit(where, 500 + n);
        __asm__ volatile("dc cvau, %0\n\tdsb ish\n\tic ialluis\n\tdsb ish\n\tisb" : : "r"(where) : "memory");
        good += smp_call(1, run_there, where) == 500 + n && run_there(where) == 500 + n;
    }
    check_equal(good, 100, "both CPUs run what CPU 0 wrote (IC IALLUIS)");
}

/* The reverse way: CPU 1 writes, CPU 0 runs. */
static u64 write_there(u64 value)
{
    emit((u64)code[1], (u32)value);
    sync_code((u64)code[1], 8);
    return 0;
}

static void check_code_reverse(void)
{
    u32 good = 0;

    for (u32 n = 0; n < 50; n++) {
        smp_call(1, write_there, n);
        good += run_there((u64)code[1]) == n;
    }
    check_equal(good, 50, "CPU 0 runs what CPU 1 wrote");
}

static void check_remapped_code(void)
{
    u32 good = 0;

    emit((u64)code[0], 1);
    emit((u64)code[1], 2);
    sync_code((u64)code[0], 8);
    sync_code((u64)code[1], 8);
    for (u32 n = 0; n < 100; n++) {
        mmu_remap(WINDOW, (u64)code[n & 1], MAP_RX);
        good += smp_call(1, run_there, WINDOW) == 1 + (n & 1);
    }
    check_equal(good, 100, "CPU 1 runs the page of code that CPU 0 mapped");
}

/* A block broken by one address in it: no page of it may stay in the other CPU's TLB. */
static void check_block(void)
{
    u64 va = WINDOW + BLOCK_SIZE, block = 0x42000000;
    u32 good = 0;

    mmu_map_block(va, block, MAP_RW);
    for (u32 page = 0; page < 512; page += 32)
        good += smp_call(1, faults_there, va + page * PAGE_SIZE) == 0;
    WRITE_ONCE(*mmu_entry(va, 2), 0);
    tlbi_va(va + 77 * PAGE_SIZE);
    for (u32 page = 0; page < 512; page += 32)
        good += smp_call(1, faults_there, va + page * PAGE_SIZE) == 1;
    check_equal(good, 32, "one TLBI by any address of a 2 MiB block removes it from CPU 1");
}

int main(void)
{
    mmu_on();
    smp_start(1);
    check_remap();
    check_remap_all();
    check_code();
    check_code_reverse();
    check_remapped_code();
    check_block();
    smp_stop(1);
    return 0;
}
