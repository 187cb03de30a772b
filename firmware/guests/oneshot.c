/* The EL1 virtual timer, one shot at a time. */
#include "rt.h"
#include "timer_checks.h"

int main(void)
{
    timer_checks(&virtual_timer);
    return 0;
}
