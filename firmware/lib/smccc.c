#include "smccc.h"

#include "psci.h"

struct smccc_result smccc_call(u64 function, u64 argument)
{
    register u64 x0 __asm__("x0") = function;
    register u64 x1 __asm__("x1") = argument;
    register u64 x2 __asm__("x2") = 0;
    register u64 x3 __asm__("x3") = 0;

    __asm__ volatile("hvc #0"
                     : "+r"(x0), "+r"(x1), "+r"(x2), "+r"(x3)
                     :
                     : "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15", "x16", "x17",
                       "memory");
    return (struct smccc_result){x0, x1, x2, x3};
}

bool smccc_has(u64 function)
{
    return psci_call(PSCI_FEATURES, SMCCC_VERSION, 0, 0) == PSCI_SUCCESS &&
           (s32)smccc_call(SMCCC_VERSION, 0).x0 >= 0x10001 && (s32)smccc_call(SMCCC_ARCH_FEATURES, function).x0 >= 0;
}
