/* Console output by polling, and the judgement. */
#include <stdarg.h>

#include "psci.h"
#include "rt.h"

#define UART_DR   (UART_BASE + 0x00)
#define UART_FR   (UART_BASE + 0x18)
#define UART_LCRH (UART_BASE + 0x2c)
#define UART_CR   (UART_BASE + 0x30)
#define UART_IMSC (UART_BASE + 0x38)

#define FR_TXFF   (1u << 5)

static u32 checks, failures;

void uart_init(void)
{
    write32(UART_IMSC, 0);
    write32(UART_LCRH, 0x70); /* 8 bits, FIFOs on */
    write32(UART_CR, 0x301);  /* enable, transmit, receive */
}

void uart_putc(char c)
{
    while (read32(UART_FR) & FR_TXFF)
        ;
    write32(UART_DR, (u8)c);
}

static void put(char c)
{
    if (c == '\n')
        uart_putc('\r');
    uart_putc(c);
}

static void put_string(const char *s)
{
    while (*s)
        put(*s++);
}

static void put_number(u64 value, u32 base, u32 width, char pad)
{
    char digits[24];
    u32 n = 0;

    do {
        digits[n++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value);
    while (width-- > n)
        put(pad);
    while (n)
        put(digits[--n]);
}

static void put_signed(s64 value)
{
    if (value < 0)
        put('-');
    put_number(value < 0 ? -(u64)value : (u64)value, 10, 1, ' ');
}

/* The conversion after its flags; ``wide`` says whether an l came before. */
static void convert(char kind, bool wide, u32 width, char pad, va_list *args)
{
    switch (kind) {
    case 's':
        put_string(va_arg(*args, const char *));
        break;
    case 'c':
        put((char)va_arg(*args, int));
        break;
    case 'd':
        put_signed(wide ? va_arg(*args, long) : va_arg(*args, int));
        break;
    case 'u':
    case 'x':
        put_number(wide ? va_arg(*args, unsigned long) : va_arg(*args, unsigned int), kind == 'x' ? 16 : 10, width,
                   pad);
        break;
    default:
        put(kind);
    }
}

static void vprint(const char *format, va_list *args)
{
    for (; *format; format++) {
        bool wide = false;
        u32 width = 0;
        char pad = ' ';

        if (*format != '%') {
            put(*format);
            continue;
        }
        if (*++format == '0')
            pad = *format++;
        for (; *format >= '0' && *format <= '9'; format++)
            width = width * 10 + (u32)(*format - '0');
        if (*format == 'l') {
            wide = true;
            format++;
        }
        convert(*format, wide, width ? width : 1, pad, args);
    }
}

void print(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vprint(format, &args);
    va_end(args);
}

static void line(const char *prefix, const char *format, va_list *args)
{
    put_string(prefix);
    vprint(format, args);
    put('\n');
}

void note(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    line("  ", format, &args);
    va_end(args);
}

static void judge(bool condition, const char *format, va_list *args)
{
    checks++;
    failures += !condition;
    line(condition ? "ok - " : "FAIL - ", format, args);
}

void check(bool condition, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    judge(condition, format, &args);
    va_end(args);
}

void check_equal(u64 got, u64 want, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    judge(got == want, format, &args);
    va_end(args);
    if (got != want)
        note("got %lx, expected %lx", got, want);
}

void finish(void)
{
    if (failures)
        print("VERDICT: FAIL (%u of %u checks)\n", failures, checks);
    else
        print("VERDICT: PASS (%u checks)\n", checks);
    psci_call(PSCI_SYSTEM_OFF, 0, 0, 0);
    for (;;)
        wfi();
}

void die(const char *format, ...)
{
    va_list args;

    irq_disable();
    va_start(args, format);
    judge(false, format, &args);
    va_end(args);
    finish();
}
