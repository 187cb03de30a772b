/* One body of checks over both EL1 timers. */
#ifndef TIMER_CHECKS_H
#define TIMER_CHECKS_H

#include "timer.h"

void timer_checks(const struct timer *timer);

#endif
