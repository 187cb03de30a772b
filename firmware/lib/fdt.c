#include "fdt.h"

#include "rt.h"

#define FDT_MAGIC      0xd00dfeedu
#define FDT_BEGIN_NODE 1u
#define FDT_PROP       3u
#define FDT_END        9u

/* Byte offsets in the header. */
#define FDT_OFF_STRUCT  8u
#define FDT_OFF_STRINGS 12u

static u32 word(u64 address)
{
    return __builtin_bswap32(read32(address));
}

/* A loader that starts a plain ELF need not set x0; the board then keeps the tree at the base of RAM. */
static u64 tree(void)
{
    u64 base = boot_x0 ? boot_x0 : RAM_BASE;

    return word(base) == FDT_MAGIC ? base : 0;
}

static bool same(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

static bool list_holds(const char *list, u32 size, const char *value)
{
    for (const char *s = list; s < list + size; s += strlen(s) + 1)
        if (same(s, value))
            return true;
    return false;
}

u32 fdt_count(const char *property, const char *value)
{
    u64 base = tree(), at = base + (base ? word(base + FDT_OFF_STRUCT) : 0);
    u32 found = 0, token;

    if (!base)
        return 0;
    while ((token = word(at)) != FDT_END) {
        at += 4;
        if (token == FDT_BEGIN_NODE) {
            at += (strlen((const char *)at) + 4) & ~3ul;
        } else if (token == FDT_PROP) {
            u32 size = word(at);
            const char *name = (const char *)(base + word(base + FDT_OFF_STRINGS) + word(at + 4));

            found += same(name, property) && list_holds((const char *)(at + 8), size, value);
            at += 8 + ((size + 3) & ~3u);
        }
    }
    return found;
}

const char *fdt_string(const char *property)
{
    u64 base = tree(), at = base + (base ? word(base + FDT_OFF_STRUCT) : 0);
    u32 token;

    for (; base && (token = word(at)) != FDT_END; at += 4) {
        const char *name = (const char *)(base + word(base + FDT_OFF_STRINGS) + word(at + 8));

        if (token == FDT_BEGIN_NODE)
            at += (strlen((const char *)at + 4) + 4) & ~3ul;
        else if (token == FDT_PROP && same(name, property))
            return (const char *)(at + 12);
        else if (token == FDT_PROP)
            at += 8 + ((word(at + 4) + 3) & ~3u);
    }
    return "";
}

u32 fdt_cpus(void)
{
    u32 cpus = fdt_count("device_type", "cpu");

    return cpus ? cpus : 1;
}
