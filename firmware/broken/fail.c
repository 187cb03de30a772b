/* Broken on purpose: one of its three checks does not hold. */
#include "rt.h"
#include "timer.h"

int main(void)
{
    check(frequency() > 0, "the counter has a frequency");
    check_equal(2 + 2, 5, "two and two are five");
    check(read_sysreg(CurrentEL) >> 2 == 1, "the guest runs at EL1");
    return 0;
}
