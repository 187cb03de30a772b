/* What the cases in C share: words of the command line, and a wait that neither reads a clock nor leaves the guest. */
#ifndef CASE_H
#define CASE_H

#include "fdt.h"
#include "gic.h"
#include "gictest.h"
#include "rt.h"
#include "timer.h"

/* Whether the command line (/chosen/bootargs) has this word. */
static inline bool word(const char *wanted)
{
    size_t length = strlen(wanted);

    for (const char *at = fdt_string("bootargs"); *at; at++)
        if (!memcmp(at, wanted, length) && (at[length] == '\0' || at[length] == ' '))
            return true;
    return false;
}

static inline void spin(u64 rounds) { __asm__ volatile("1: subs %0, %0, #1\n\tb.ne 1b" : "+r"(rounds) : : "cc"); }

#endif
