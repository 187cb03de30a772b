/* What the files of driver-bugs share: which bug is planted, and a driver of the GIC in which each line can be wrong. */
#ifndef DRIVER_BUGS_H
#define DRIVER_BUGS_H

#include "rt.h"
#include "timer.h"

#define GICD_CTLR     (GICD_BASE + 0x000)
#define GICD_SGIR     (GICD_BASE + 0xf00)
#define GICC_CTLR     (GICC_BASE + 0x00)
#define GICC_PMR      (GICC_BASE + 0x04)
#define GICC_IAR      (GICC_BASE + 0x0c)
#define GICC_EOIR     (GICC_BASE + 0x10)
#define GICR_STRIDE   0x20000ul
#define RD_BASE(cpu)  (GICR_BASE + GICR_STRIDE * (cpu))
#define SGI_BASE(cpu) (RD_BASE(cpu) + 0x10000)

#define IGROUPR    0x080u
#define ISENABLER  0x100u
#define ICENABLER  0x180u
#define ISPENDR    0x200u
#define ICPENDR    0x280u
#define ISACTIVER  0x300u
#define IPRIORITYR 0x400u
#define ITARGETSR  0x800u
#define ICFGR      0xc00u
#define IROUTER    0x6000u

#define PRIORITY 0xa0u
#define LOW_SPI  50u /* no device has it: ISPENDR makes it pending */

/* Whether this bug is the one that the command line plants. */
bool bug(const char *name);

/* The version of the GIC that the device tree names. */
extern u32 version;

/* Distributor (once); then redistributor and CPU interface of this CPU. */
void distributor_init(void);
void interface_init(void);

/* The frame with the bits of an interrupt, and its word there. */
u64 frame_of(u32 intid);
u64 word_of(u32 intid, u32 array);
static inline u32 bit_of(u32 intid) { return 1u << intid % 32; }

/* Group, priority, route to CPU 0, enable. */
void enable_interrupt(u32 intid, u8 priority);
void enable_bit(u32 intid);

/* What the handler of an interrupt does, but for IAR and EOIR; then the vectors lead to the driver's dispatcher. */
void set_handler(u32 intid, void (*handler)(u32 intid));
void take_interrupts(void);

/* IAR; EOIR as the planted bug has it, and as it is. */
u32 acknowledge(void);
void end(u32 ack);
void write_eoir(u32 ack);

/* What CPU 0 acknowledged and leaves to CPU 1 to end. */
extern volatile u32 ended_by_cpu1;

/* Sleep until `*count` is `want`; for ever if that does not come. */
void wait_for(const volatile u32 *count, u32 want);

/* The subjects, each in a file of its own. They return when the driver is right. */
void timer_ticks(void);
void timer_stopped(void);
void nested(void);
void behind(void);
void device(void);
void ipi(void);
void lpi(void);

#endif
