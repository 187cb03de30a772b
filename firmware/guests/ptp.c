/* KVM's clock for PTP: one call gives the host's wall clock and the counter at the same moment. */
#include "rt.h"
#include "smccc.h"
#include "timer.h"

#define FEATURE_PTP (1ul << 1)
#define PTP_VIRTUAL  0u
#define PTP_PHYSICAL 1u
#define ROUNDS   20u
#define APART_US 100u

/* Both in the units of their own: ns since 1970, ticks of a counter. */
struct moment {
    u64 wall_ns, count;
};

static bool have_ptp(void)
{
    static const u32 uid[4] = {0xb66fb428, 0xe911c52e, 0x564bcaa9, 0x743a004d};
    struct smccc_result r = smccc_call(VENDOR_UID, 0);

    return (u32)r.x0 == uid[0] && (u32)r.x1 == uid[1] && (u32)r.x2 == uid[2] && (u32)r.x3 == uid[3] &&
           smccc_call(VENDOR_FEATURES, 0).x0 & FEATURE_PTP;
}

static u64 joined(u64 high, u64 low)
{
    return high << 32 | (low & 0xffffffff);
}

static struct moment read_ptp(u32 counter)
{
    struct smccc_result r = smccc_call(VENDOR_PTP, counter);

    return (struct moment){joined(r.x0, r.x1), joined(r.x2, r.x3)};
}

/* The count must lie between one read before and one after, and both clocks must go on. */
static void check_counter(const char *name, u32 counter, u64 (*count)(void))
{
    struct moment last = read_ptp(counter);
    u32 between = 0, forward = 0;

    for (u32 n = 0; n < ROUNDS; n++) {
        u64 before = count();
        struct moment now = read_ptp(counter);

        between += now.count >= before && now.count <= count();
        forward += now.count > last.count && now.wall_ns >= last.wall_ns;
        last = now;
        delay_us(2);
    }
    check_equal(between, ROUNDS, "%s: the count given lies between those read before and after", name);
    check_equal(forward, ROUNDS, "%s: neither clock goes back", name);
}

/* Over a while both advance; by how much is a note, as the host's clock may be adjusted. */
static void note_rates(void)
{
    struct moment first = read_ptp(PTP_VIRTUAL), last;

    delay_us(APART_US);
    last = read_ptp(PTP_VIRTUAL);
    note("%lu ns of the counter were %lu ns of the wall clock", ns_of_ticks(last.count - first.count),
         last.wall_ns - first.wall_ns);
}

int main(void)
{
    if (!have_ptp()) {
        check(true, "no PTP clock here: nothing to do");
        return 0;
    }
    check_counter("virtual", PTP_VIRTUAL, virtual_count);
    check_counter("physical", PTP_PHYSICAL, physical_count);
    check_equal((u32)smccc_call(VENDOR_PTP, 2).x0, (u32)SMCCC_NOT_SUPPORTED, "there is no third counter");
    note_rates();
    return 0;
}
