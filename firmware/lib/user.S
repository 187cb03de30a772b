/* What runs at EL0. Position independent: it is executed where it is mapped. */

    .macro stub name
    .global \name
    .type \name, %function
\name:
    .endm

    .section .user, "ax"
    .balign 4096
    .global user_start
user_start:

stub user_svc
    svc     #0x1234
stub user_svc_twice
    mov     x2, #1
    svc     #1
    mov     x2, #2
    svc     #0xffff
stub user_load
    ldr     x1, [x0]
    svc     #0
stub user_store
    str     x1, [x0]
    svc     #0
stub user_load32
    ldr     w1, [x0]
    svc     #0
stub user_store32
    str     w1, [x0]
    svc     #0
stub user_branch
    br      x0
stub user_hvc
    hvc     #0
    svc     #0
stub user_smc
    smc     #0
    svc     #0
stub user_icc_iar1
    mrs     x0, S3_0_C12_C12_0
    svc     #0
stub user_icc_pmr_write
    msr     S3_0_C4_C6_0, x0
    svc     #0
stub user_icc_sgi1r
    msr     S3_0_C12_C11_5, x0
    svc     #0
stub user_sctlr
    mrs     x0, sctlr_el1
    svc     #0
stub user_cntvct
    mrs     x0, cntvct_el0
    svc     #0
stub user_cntpct
    mrs     x0, cntpct_el0
    svc     #0
stub user_cntfrq
    mrs     x0, cntfrq_el0
    svc     #0
stub user_cntv_ctl
    mrs     x0, cntv_ctl_el0
    svc     #0
stub user_cntp_ctl
    msr     cntp_ctl_el0, x0
    svc     #0
stub user_brk
    brk     #0x77
stub user_udf
    .inst   0x00000000
/* Counts in x0 until the word at x1 is not zero. */
stub user_loop
    add     x0, x0, #1
    ldr     w2, [x1]
    cbz     w2, user_loop
    svc     #0
/* Pushes and pops on its own stack. */
stub user_stack
    stp     x0, x1, [sp, #-16]!
    ldp     x2, x3, [sp], #16
    svc     #0
/* Comes back with N, Z, C, V from x0 compared with x1. */
stub user_flags
    cmp     x0, x1
    svc     #0
stub user_daif
    msr     daifset, #2
    svc     #0

    .global user_end
    .balign 4096
user_end:
