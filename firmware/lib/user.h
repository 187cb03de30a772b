/* EL0: small pieces of code that do one thing and come back with an exception. */
#ifndef USER_H
#define USER_H

#include "cpu.h"

/* Where user_map() puts things; without it, and with the MMU off, EL0 uses physical addresses. */
#define USER_TEXT 0x2000000000ul
#define USER_DATA 0x2000010000ul

/* Stubs in user.S. Those that do not end by themselves end with SVC #0. */
extern char user_start[], user_end[];
extern char user_svc[], user_svc_twice[], user_load[], user_store[], user_load32[], user_store32[];
extern char user_branch[], user_hvc[], user_smc[], user_icc_iar1[], user_icc_pmr_write[], user_icc_sgi1r[];
extern char user_sctlr[], user_cntvct[], user_cntpct[], user_cntfrq[], user_cntv_ctl[], user_cntp_ctl[];
extern char user_brk[], user_udf[], user_loop[], user_stack[], user_flags[], user_daif[];

/* Map the stubs at USER_TEXT and one page of data at USER_DATA. The MMU must be on. */
void user_map(void);

/* The page that USER_DATA maps, as EL1 sees it. */
extern u64 user_page[512];

/* Address of a stub as EL0 sees it. */
u64 user_address(const char *stub);

/* Run a stub at EL0 with x0 and x1 (interrupts open) until a synchronous exception. */
struct context user_run(const char *stub, u64 x0, u64 x1);

#endif
