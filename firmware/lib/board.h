/* The QEMU "virt" machine as these guests see it: addresses and interrupt numbers. */
#ifndef BOARD_H
#define BOARD_H

#define GICD_BASE  0x08000000ul
#define GICC_BASE  0x08010000ul
#define V2M_BASE   0x08020000ul
#define ITS_BASE   0x08080000ul
#define GICR_BASE  0x080a0000ul
#define UART_BASE  0x09000000ul
#define RTC_BASE   0x09010000ul
#define RAM_BASE   0x40000000ul

#define INTID_VTIMER 27u
#define INTID_PTIMER 30u
#define INTID_UART   33u
#define INTID_RTC    34u

#define MAX_CPUS   8
#define STACK_SIZE 16384

#endif
