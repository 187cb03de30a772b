/* The processing element: system registers, barriers, interrupt masks, exceptions. */
#ifndef CPU_H
#define CPU_H

#include "types.h"

#define STRINGIFY_(x) #x
#define STRINGIFY(x) STRINGIFY_(x)

#define read_sysreg(name) ({ \
    u64 value_; \
    __asm__ volatile("mrs %0, " STRINGIFY(name) : "=r"(value_) : : "memory"); \
    value_; })
#define write_sysreg(name, value) \
    __asm__ volatile("msr " STRINGIFY(name) ", %x0" : : "rZ"((u64)(value)) : "memory")

/* GIC CPU interface, encodings of IHI 0069 chapter 12. */
#define ICC_PMR_EL1     S3_0_C4_C6_0
#define ICC_IAR0_EL1    S3_0_C12_C8_0
#define ICC_EOIR0_EL1   S3_0_C12_C8_1
#define ICC_HPPIR0_EL1  S3_0_C12_C8_2
#define ICC_BPR0_EL1    S3_0_C12_C8_3
#define ICC_DIR_EL1     S3_0_C12_C11_1
#define ICC_RPR_EL1     S3_0_C12_C11_3
#define ICC_SGI1R_EL1   S3_0_C12_C11_5
#define ICC_IAR1_EL1    S3_0_C12_C12_0
#define ICC_EOIR1_EL1   S3_0_C12_C12_1
#define ICC_HPPIR1_EL1  S3_0_C12_C12_2
#define ICC_BPR1_EL1    S3_0_C12_C12_3
#define ICC_CTLR_EL1    S3_0_C12_C12_4
#define ICC_SRE_EL1     S3_0_C12_C12_5
#define ICC_IGRPEN0_EL1 S3_0_C12_C12_6
#define ICC_IGRPEN1_EL1 S3_0_C12_C12_7

#define ICC_CTLR_EOIMODE (1ul << 1)

/* SCTLR_EL1 bits (DDI 0487, D17.2.118). */
#define SCTLR_M   (1ul << 0)
#define SCTLR_A   (1ul << 1)
#define SCTLR_C   (1ul << 2)
#define SCTLR_I   (1ul << 12)
#define SCTLR_E0E (1ul << 24)
#define SCTLR_EE  (1ul << 25)
#define SCTLR_UCI (1ul << 26)

/* PSTATE as SPSR_EL1 holds it. */
#define PSTATE_EL0T 0x0ul
#define PSTATE_EL1T 0x4ul
#define PSTATE_EL1H 0x5ul
#define PSTATE_MODE 0xful
#define PSTATE_F    (1ul << 6)
#define PSTATE_I    (1ul << 7)
#define PSTATE_DAIF 0x3c0ul
#define PSTATE_IL   (1ul << 20)

/* ESR_EL1.EC values used here. */
#define EC_UNKNOWN   0x00u
#define EC_WFX       0x01u
#define EC_ILLEGAL   0x0eu
#define EC_SVC64     0x15u
#define EC_SYSREG    0x18u
#define EC_IABT_LOW  0x20u
#define EC_IABT_SAME 0x21u
#define EC_PC_ALIGN  0x22u
#define EC_DABT_LOW  0x24u
#define EC_DABT_SAME 0x25u
#define EC_BRK64     0x3cu

#define ESR_IL       (1ul << 25)
#define ESR_WNR      (1ul << 6)
#define ESR_EC(esr)  ((u32)((esr) >> 26) & 0x3f)
#define ESR_ISS(esr) ((u32)(esr) & 0x1ffffff)
#define ESR_FSC(esr) ((u32)(esr) & 0x3f)

/* Fault status codes; the low two bits are the level of the walk. */
#define FSC_ACCESS_FLAG 0x08u
#define FSC_TRANSLATION 0x04u
#define FSC_PERMISSION  0x0cu
#define FSC_ALIGNMENT   0x21u
#define FSC_EXTERNAL    0x10u

/* Vector numbers: offset from VBAR_EL1 divided by 0x80. */
#define VECTOR_EL1T_SYNC 0u
#define VECTOR_EL1T_IRQ  1u
#define VECTOR_EL1H_SYNC 4u
#define VECTOR_EL1H_IRQ  5u
#define VECTOR_EL1H_FIQ  6u
#define VECTOR_EL0_SYNC  8u
#define VECTOR_EL0_IRQ   9u
#define VECTOR_EL0_FIQ   10u

static inline void isb(void) { __asm__ volatile("isb" : : : "memory"); }
static inline void dsb(void) { __asm__ volatile("dsb sy" : : : "memory"); }
static inline void wfi(void) { __asm__ volatile("wfi" : : : "memory"); }
static inline void wfe(void) { __asm__ volatile("wfe" : : : "memory"); }
/* In every loop that waits for another CPU: where CPUs share one host thread, it lets the other run. */
static inline void yield(void) { __asm__ volatile("yield" : : : "memory"); }
static inline void sev(void) { __asm__ volatile("dsb sy\n\tsev" : : : "memory"); }

static inline void irq_enable(void) { __asm__ volatile("msr daifclr, #2\n\tisb" : : : "memory"); }
static inline void irq_disable(void) { __asm__ volatile("msr daifset, #2" : : : "memory"); }
static inline void fiq_enable(void) { __asm__ volatile("msr daifclr, #1\n\tisb" : : : "memory"); }
static inline void fiq_disable(void) { __asm__ volatile("msr daifset, #1" : : : "memory"); }

/* Index of this CPU: Aff0 of MPIDR_EL1, which numbers the CPUs of the board up to 8. */
static inline u32 cpu_id(void) { return (u32)read_sysreg(mpidr_el1) & 0xff; }

/* What the vectors save. The layout is known to start.S. */
struct context {
    u64 x[31];
    u64 sp_el0;
    u64 elr;
    u64 spsr;
    u64 esr;
    u64 far;
    u64 vector;
    u64 sp_el1;
};

typedef void (*trap_handler)(struct context *ctx);

/* Handlers by kind. A null sync handler records expected faults and otherwise ends the guest; a null
 * IRQ handler is the dispatcher of gic.c; FIQ and SError end the guest unless handled. */
extern trap_handler sync_handler, irq_handler, fiq_handler;

/* A synchronous exception at EL1 that the guest provoked on purpose. */
struct fault {
    u32 count;
    u32 vector;
    u64 esr, far, elr, spsr, sp;
};

/* Between begin and end, synchronous exceptions from EL1 are recorded and stepped over: execution
 * goes on after the instruction, or, where the fetch itself failed, at the caller (x30). */
void fault_begin(void);
struct fault fault_end(void);

/* Run EL0 code from *user until it takes a synchronous exception, which is left in *user (registers,
 * esr, far, vector, and in elr the preferred return address). Interrupts are handled on the way. */
void el0_run(struct context *user);

/* The address in x0 at entry (0 where the loader gives none). */
extern u64 boot_x0;

/* Address of the vector table, for guests that move VBAR_EL1. */
extern char vectors[];

#endif
