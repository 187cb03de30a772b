/* SMC Calling Convention (Arm DEN 0028) by HVC, for calls with several results. */
#ifndef SMCCC_H
#define SMCCC_H

#include "types.h"

#define SMCCC_VERSION         0x80000000ul
#define SMCCC_ARCH_FEATURES   0x80000001ul
#define SMCCC_NOT_SUPPORTED   (~0ul)

/* Paravirtual time (Arm DEN 0057). */
#define PV_TIME_FEATURES 0xc5000020ul
#define PV_TIME_ST       0xc5000021ul

/* KVM's own services. */
#define VENDOR_UID      0x8600ff01ul
#define VENDOR_FEATURES 0x86000000ul
#define VENDOR_PTP      0x86000001ul

struct smccc_result {
    u64 x0, x1, x2, x3;
};

/* ``function`` with its first argument; a conduit that knows no such function says NOT_SUPPORTED in x0 or, if
 * ``function`` is a 32-bit one, in w0. */
struct smccc_result smccc_call(u64 function, u64 argument);

/* Whether the firmware is there at all (SMCCC 1.1, found by PSCI_FEATURES) and ARCH_FEATURES knows ``function``. */
bool smccc_has(u64 function);

#endif
