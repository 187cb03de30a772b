/* Echoes lines typed at the console, received by interrupt; the line "quit" ends it. */
#include "gic.h"
#include "rt.h"

#define UART_DR   (UART_BASE + 0x00)
#define UART_FR   (UART_BASE + 0x18)
#define UART_IMSC (UART_BASE + 0x38)
#define UART_ICR  (UART_BASE + 0x44)
#define FR_RXFE   (1u << 4)
#define INT_RX    (1u << 4)
#define INT_RT    (1u << 6) /* receive timeout: a FIFO below its trigger level is waiting */

#define LINE 80u

static char ring[256];
static volatile u32 head, tail, interrupts;

static void on_uart(u32 intid)
{
    (void)intid;
    interrupts++;
    while (!(read32(UART_FR) & FR_RXFE)) {
        ring[head % sizeof(ring)] = (char)read32(UART_DR);
        head++;
    }
    write32(UART_ICR, INT_RX | INT_RT);
}

/* The next character; the CPU sleeps until there is one. */
static char next_character(void)
{
    for (;;) {
        irq_disable();
        if (head != tail)
            break;
        wfi();
        irq_enable();
    }
    irq_enable();
    return ring[tail++ % sizeof(ring)];
}

static void read_line(char *line)
{
    u32 n = 0;

    for (;;) {
        char c = next_character();

        if (c == '\r' || c == '\n')
            break;
        if (n < LINE - 1)
            line[n++] = c;
    }
    line[n] = 0;
}

static bool same(const char *a, const char *b)
{
    return strlen(a) == strlen(b) && !memcmp(a, b, strlen(a));
}

int main(void)
{
    char line[LINE];
    u32 lines = 0;

    gic_init();
    gic_set_edge(INTID_UART, false);
    gic_enable(INTID_UART, on_uart);
    write32(UART_IMSC, INT_RX | INT_RT);
    irq_enable();
    do {
        print("echo> ");
        read_line(line);
        print("%s\n", line);
        lines++;
    } while (!same(line, "quit"));
    irq_disable();
    check(lines > 0, "the line \"quit\" was received");
    check(interrupts > 0, "by interrupt");
    return 0;
}
