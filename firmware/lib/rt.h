/* What every guest includes: output, checks, the end. */
#ifndef RT_H
#define RT_H

#include "board.h"
#include "cpu.h"
#include "types.h"

/* printf subset: %s %c %d %u %x with l, width and 0 flag, %%. */
void print(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* One line of the judgement: "ok - sentence" or "FAIL - sentence". Sentences and their order are the
 * same on every machine, so that two machines can be compared line by line: no measured figures. */
void check(bool condition, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Compare two numbers; on a mismatch a note with both follows. */
void check_equal(u64 got, u64 want, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* A line that is not part of the judgement (figures, progress). */
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Print the verdict and power off. Also what returning from main() does. */
void finish(void) __attribute__((noreturn));

/* Give up: one FAIL line, then finish(). */
void die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

void uart_init(void);
void uart_putc(char c);

void *memcpy(void *to, const void *from, size_t n);
void *memset(void *to, int byte, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);

int main(void);

#endif
