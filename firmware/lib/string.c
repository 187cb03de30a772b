/* What the compiler expects to exist. */
#include "rt.h"

void *memcpy(void *to, const void *from, size_t n)
{
    u8 *t = to;
    const u8 *f = from;

    while (n--)
        *t++ = *f++;
    return to;
}

void *memset(void *to, int byte, size_t n)
{
    u8 *t = to;

    while (n--)
        *t++ = (u8)byte;
    return to;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const u8 *p = a, *q = b;

    for (; n; n--, p++, q++)
        if (*p != *q)
            return *p - *q;
    return 0;
}

size_t strlen(const char *s)
{
    size_t n = 0;

    while (s[n])
        n++;
    return n;
}
