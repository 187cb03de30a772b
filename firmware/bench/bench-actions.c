/* Benchmark: one action many times. The command line (/chosen/bootargs) says which, how often, and for `pending` how
 * many SPIs at once: `--append "pending 100000 64"`. Without a count an action is repeated a few times; without a name
 * every action is. `nothing` does nothing: what remains is the start. */
#include "bench_actions.h"
#include "fdt.h"
#include "gic.h"
#include "mmu.h"
#include "rt.h"
#include "timer.h"

static u64 nothing(u64 count) { return count; }

/* Each action, and how often it is repeated without a count. */
static const struct row {
    const char *name;
    u64 (*repeat)(u64 count);
    u64 count;
} rows[] = {
    {"nothing", nothing, 1},
    {"poll", poll_1ms, 2},
    {"shot-asleep", one_shot_asleep, 20},
    {"shot-polled", one_shot_polled, 20},
    {"storm", storm, 100},
    {"pending", acknowledge, 40},
    {"mmio", read_fr, 100},
    {"hypercall", psci_version, 100},
    {"svc", svc_and_return, 100},
    {"brk", brk_and_return, 100},
    {"fault", fault_and_map, 600},
    {"walk", walk_after_tlbi, 600},
    {"patch", patch_and_run, 50},
    {"ipi", ipi_and_spin, 5},
    {"hand-over", hand_over, 50},
    {"share", share_out, 1000},
    {"sleepers", one_shot_among_sleepers, 20}, /* the last: the other CPUs sleep for ever */
};

/* The next word of ``*text``, which moves behind the word; the length of the word is 0 at the end. */
static size_t next_word(const char **text, const char **word)
{
    size_t length = 0;

    while (**text == ' ')
        (*text)++;
    *word = *text;
    for (; **text && **text != ' '; (*text)++)
        length++;
    return length;
}

/* The next word as a decimal number; ``otherwise`` where there is none. */
static u64 next_number(const char **text, u64 otherwise)
{
    const char *word;
    size_t length = next_word(text, &word);
    u64 value = 0;

    for (size_t n = 0; n < length; n++) {
        if (word[n] < '0' || word[n] > '9')
            die("a count is a decimal number");
        value = value * 10 + (u64)(word[n] - '0');
    }
    return length ? value : otherwise;
}

static const struct row *find(const char *name, size_t length)
{
    for (size_t n = 0; n < ARRAY_SIZE(rows); n++)
        if (strlen(rows[n].name) == length && !memcmp(rows[n].name, name, length))
            return &rows[n];
    die("the command line names an action");
}

static void run(const struct row *row, u64 count)
{
    u64 began = virtual_count(), done = row->repeat(count), ns = ns_of_ticks(virtual_count() - began);

    check_equal(done, count, "%s", row->name);
    note("%s: %lu times, %lu ns of guest time each", row->name, count, count ? ns / count : 0);
}

int main(void)
{
    const char *text = fdt_string("bootargs"), *name;
    size_t length = next_word(&text, &name);

    mmu_on();
    gic_init();
    if (length) {
        const struct row *row = find(name, length);
        u64 count = next_number(&text, row->count);

        pending_at_once = (u32)next_number(&text, pending_at_once);
        run(row, count);
        return 0;
    }
    for (size_t n = 0; n < ARRAY_SIZE(rows); n++)
        run(&rows[n], rows[n].count);
    return 0;
}
