#include "uart.h"

#include "cpu.h"
#include "rt.h"

#define UART_IMSC (UART_BASE + 0x38)
#define UART_MIS  (UART_BASE + 0x40)
#define UART_ICR  (UART_BASE + 0x44)
#define UART_TX   (1u << 5)

bool uart_raise_tx(void)
{
    uart_putc('\r');
    uart_unmask_tx();
    return read32(UART_MIS) & UART_TX;
}

void uart_unmask_tx(void)
{
    write32(UART_IMSC, UART_TX);
    dsb();
}

void uart_clear_tx(void)
{
    write32(UART_ICR, UART_TX);
    dsb();
}

void uart_mask_tx(void)
{
    write32(UART_IMSC, 0);
    dsb();
}
