/* Broken on purpose: works for ever and never says so. Only a limit ends it. */
#include "rt.h"

static volatile u64 rounds;

int main(void)
{
    print("about to count for ever\n");
    for (;;)
        rounds++;
}
