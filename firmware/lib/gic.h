/* GICv3 with affinity routing and system registers (IHI 0069). */
#ifndef GIC_H
#define GIC_H

#include "cpu.h"

/* Register offsets that exist in the distributor and, for INTIDs 0-31, in the SGI frame. */
#define GIC_IGROUPR    0x080u
#define GIC_ISENABLER  0x100u
#define GIC_ICENABLER  0x180u
#define GIC_ISPENDR    0x200u
#define GIC_ICPENDR    0x280u
#define GIC_ISACTIVER  0x300u
#define GIC_ICACTIVER  0x380u
#define GIC_IPRIORITYR 0x400u
#define GIC_ICFGR      0xc00u
#define GICD_IROUTER   0x6000u

#define INTID_SPURIOUS 1023u
#define PRIORITY_DEFAULT 0xa0u

typedef void (*irq_function)(u32 intid);

/* Distributor (once) and this CPU's redistributor and CPU interface; PMR open, group 1 on. */
void gic_init(void);
void gic_cpu_init(void);

/* Frame that holds the registers of ``intid``: this CPU's SGI frame or the distributor. */
u64 gic_frame(u32 intid);

/* Write 1 to / read the bit of ``intid`` in a one-bit-per-INTID register at ``offset``. */
void gic_bit_write(u32 intid, u32 offset);
bool gic_bit_read(u32 intid, u32 offset);

/* Group 1, default priority, handler attached, enabled. SPIs are routed to this CPU; whether one is
 * edge-triggered is unknown after reset and is the caller's to set before. */
void gic_enable(u32 intid, irq_function handler);
void gic_disable(u32 intid);
void gic_set_priority(u32 intid, u8 priority);
void gic_set_group(u32 intid, u32 group);
void gic_set_edge(u32 intid, bool edge);
void gic_attach(u32 intid, irq_function handler);

/* Generate SGI ``intid`` on the CPUs of ``aff0_mask`` (Aff3-1 zero), or on all others. */
void gic_sgi(u32 intid, u32 aff0_mask);
void gic_sgi_others(u32 intid);

/* Wait, at most ``us`` microseconds, until ``intid`` is the highest pending interrupt here. */
bool gic_wait_pending(u32 intid, u64 us);

/* The IRQ handler when no other is set: acknowledge, call, end. */
void gic_dispatch(struct context *ctx);

/* Interrupts that found nothing to acknowledge, per machine. */
extern volatile u32 gic_spurious;

#endif
