/* The interrupt controller of the board, found in the device tree: a GICv3 with affinity routing and system
 * registers (IHI 0069), all interrupts in group 1, or a GICv2 (IHI 0048), all in group 0. Both come as IRQs. */
#ifndef GIC_H
#define GIC_H

#include "cpu.h"

/* Register offsets that exist in the distributor and, for INTIDs 0-31 of a GICv3, in the SGI frame. */
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
#define INTID_LPI      8192u
#define PRIORITY_DEFAULT 0xa0u

typedef void (*irq_function)(u32 intid);

/* 2 or 3; known after gic_init(). */
extern u32 gic_version;

/* Distributor (once) and this CPU's redistributor and CPU interface; PMR open, the group on. */
void gic_init(void);
void gic_cpu_init(void);

/* Frame that holds the registers of ``intid``: this CPU's SGI frame or the distributor. */
u64 gic_frame(u32 intid);

/* This CPU's RD_base frame (GICv3). */
u64 gic_redistributor(void);

/* Write 1 to / read the bit of ``intid`` in a one-bit-per-INTID register at ``offset``. */
void gic_bit_write(u32 intid, u32 offset);
bool gic_bit_read(u32 intid, u32 offset);

/* The group of this runtime, default priority, handler attached, enabled. SPIs are routed to this CPU;
 * whether one is edge-triggered is unknown after reset and is the caller's to set before. */
void gic_enable(u32 intid, irq_function handler);
void gic_disable(u32 intid);
void gic_set_priority(u32 intid, u8 priority);
u8 gic_priority(u32 intid);
void gic_set_group(u32 intid, u32 group);
void gic_set_edge(u32 intid, bool edge);
void gic_attach(u32 intid, irq_function handler);

/* What LPIs call. */
void gic_attach_lpis(irq_function handler);

/* Send SPI ``intid`` to ``cpu``: IROUTER or ITARGETSR. */
void gic_route(u32 intid, u32 cpu);

/* Forwarding of the group by the distributor: GICD_CTLR. */
void gic_forward(bool enable);

/* Generate SGI ``intid`` on the CPUs of ``cpu_mask`` (Aff3-1 zero), on all others, or here. */
void gic_sgi(u32 intid, u32 cpu_mask);
void gic_sgi_others(u32 intid);
void gic_sgi_self(u32 intid);

/* The CPU interface by hand. What gic_ack() returned is what gic_eoi() and gic_dir() take: on a GICv2 it
 * carries the sender of an SGI too; gic_intid() is the number in it. */
u32 gic_ack(void);
u32 gic_intid(u32 ack);
void gic_eoi(u32 ack);
void gic_dir(u32 ack);

/* HPPIR and RPR. The running priority is idle when it is at least PRIORITY_IDLE_LEAST. */
u32 gic_highest(void);
u32 gic_running(void);
#define PRIORITY_IDLE_LEAST 0xf0u

/* PMR; EOImode; the group at the CPU interface. */
void gic_set_mask(u8 priority);
void gic_set_eoimode(u32 mode);
void gic_cpu_forward(bool enable);

/* Priorities that differ in the low ``bits`` (1-7) only do not preempt each other: BPR. More may be the least. */
void gic_set_subpriority(u32 bits);

/* Wait, at most ``us`` microseconds, until ``intid`` is the highest pending interrupt here. */
bool gic_wait_pending(u32 intid, u64 us);

/* The IRQ handler when no other is set: acknowledge, call, end. */
void gic_dispatch(struct context *ctx);

/* Interrupts that found nothing to acknowledge, per machine. */
extern volatile u32 gic_spurious;

#endif
