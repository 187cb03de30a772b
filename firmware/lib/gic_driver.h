/* What differs between the two GIC architectures, behind the functions of gic.h. */
#ifndef GIC_DRIVER_H
#define GIC_DRIVER_H

#include "types.h"

struct gic_driver {
    u32 group; /* that the interrupts of this runtime are in */

    /* Registers of interrupts. wait() returns when writes to those of ``intid`` have had their effect. */
    u64 (*frame)(u32 intid);
    void (*wait)(u32 intid);
    void (*forward)(bool enable);
    void (*route)(u32 intid, u32 cpu);

    void (*sgi)(u32 intid, u32 cpu_mask);
    void (*sgi_others)(u32 intid);
    void (*sgi_self)(u32 intid);

    /* CPU interface. */
    void (*cpu_init)(void);
    u32 (*ack)(void);
    void (*eoi)(u32 ack);
    void (*dir)(u32 ack);
    u32 (*highest)(void);
    u32 (*running)(void);
    void (*set_mask)(u8 priority);
    void (*set_eoimode)(u32 mode);
    void (*cpu_forward)(bool enable);
    void (*set_subpriority)(u32 bits);
};

extern const struct gic_driver gic_v2, gic_v3;

#endif
