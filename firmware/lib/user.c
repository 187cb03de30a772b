#include "user.h"

#include "mmu.h"
#include "rt.h"

u64 user_page[512] __attribute__((aligned(4096)));
static bool mapped;

void user_map(void)
{
    mmu_map(USER_TEXT, (u64)user_start, (u64)(user_end - user_start), MAP_USER_RX);
    mmu_map(USER_DATA, (u64)user_page, PAGE_SIZE, MAP_USER_RW);
    mapped = true;
}

u64 user_address(const char *stub)
{
    return mapped ? USER_TEXT + (u64)(stub - user_start) : (u64)stub;
}

struct context user_run(const char *stub, u64 x0, u64 x1)
{
    struct context user = {
        .x = {x0, x1},
        .sp_el0 = (mapped ? USER_DATA : (u64)user_page) + sizeof(user_page),
        .elr = user_address(stub),
        .spsr = PSTATE_EL0T,
    };

    el0_run(&user);
    return user;
}
