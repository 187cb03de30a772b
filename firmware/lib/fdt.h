/* The device tree that the board hands over, as far as the guests ask it (Devicetree Specification, chapter 5). */
#ifndef FDT_H
#define FDT_H

#include "types.h"

/* Number of nodes whose string-list property ``property`` holds ``value``; 0 where there is no tree. */
u32 fdt_count(const char *property, const char *value);

/* The first string of the first property of that name; "" where there is none. */
const char *fdt_string(const char *property);

/* Number of CPUs, at least 1. */
u32 fdt_cpus(void);

#endif
