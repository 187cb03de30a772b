/* The PL011's transmit interrupt as a level-sensitive source (ARM DDI 0183). On this board the transmit FIFO is
 * empty at once, so that each character sent raises the interrupt (RIS.TXRIS) until ICR clears it. */
#ifndef UART_H
#define UART_H

#include "types.h"

/* The line of INTID_UART goes high: a character that shows nothing is sent, the interrupt let through.
 * Returns whether the UART says so (MIS.TXMIS). */
bool uart_raise_tx(void);

/* The line goes low: the interrupt is cleared at its source, or only masked (IMSC). */
void uart_clear_tx(void);
void uart_mask_tx(void);

/* Let through what is raised already. */
void uart_unmask_tx(void);

#endif
