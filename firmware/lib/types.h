/* Fixed-width names and the two ways to touch memory that the compiler must not optimise. */
#ifndef TYPES_H
#define TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t s32;
typedef int64_t s64;

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define READ_ONCE(x) (*(const volatile __typeof__(x) *)&(x))
#define WRITE_ONCE(x, value) (*(volatile __typeof__(x) *)&(x) = (value))

/* One plain LDR or STR each. The asm fixes the instruction form: base register, no writeback, so
 * that an abort carries a complete syndrome (ISV=1). The forms without one are in mmio-forms. */
static inline u32 read32(u64 address)
{
    u32 value;
    __asm__ volatile("ldr %w0, [%1]" : "=r"(value) : "r"(address) : "memory");
    return value;
}

static inline void write32(u64 address, u32 value)
{
    __asm__ volatile("str %w0, [%1]" : : "rZ"(value), "r"(address) : "memory");
}

static inline u64 read64(u64 address)
{
    u64 value;
    __asm__ volatile("ldr %0, [%1]" : "=r"(value) : "r"(address) : "memory");
    return value;
}

static inline void write64(u64 address, u64 value)
{
    __asm__ volatile("str %x0, [%1]" : : "rZ"(value), "r"(address) : "memory");
}

static inline void write8(u64 address, u8 value)
{
    __asm__ volatile("strb %w0, [%1]" : : "rZ"(value), "r"(address) : "memory");
}

#endif
