/* PSCI by HVC (Arm DEN 0022) and CPUs started by it. */
#ifndef PSCI_H
#define PSCI_H

#include "types.h"

#define PSCI_VERSION           0x84000000ul
#define PSCI_CPU_SUSPEND       0xc4000001ul
#define PSCI_CPU_OFF           0x84000002ul
#define PSCI_CPU_ON            0xc4000003ul
#define PSCI_AFFINITY_INFO     0xc4000004ul
#define PSCI_MIGRATE_INFO_TYPE 0x84000006ul
#define PSCI_SYSTEM_OFF        0x84000008ul
#define PSCI_SYSTEM_RESET      0x84000009ul
#define PSCI_FEATURES          0x8400000aul

#define PSCI_SUCCESS            0l
#define PSCI_NOT_SUPPORTED      (-1l)
#define PSCI_INVALID_PARAMETERS (-2l)
#define PSCI_ALREADY_ON         (-4l)

#define AFFINITY_ON  0l
#define AFFINITY_OFF 1l

/* The result is sign-extended from 32 bits, as error codes of 32-bit functions come that way. */
long psci_call(u64 function, u64 a, u64 b, u64 c);

/* Start ``cpu`` in ``function(argument)`` on its own stack. Returns the PSCI code. */
long cpu_start(u32 cpu, void (*function)(u64 argument), u64 argument);

/* Wait, at most ``us`` microseconds, until AFFINITY_INFO says that ``cpu`` is off. */
bool cpu_wait_off(u32 cpu, u32 us);

/* Turn this CPU off. */
void cpu_park(void) __attribute__((noreturn));

#endif
