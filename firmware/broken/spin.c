/* Broken on purpose: a branch to itself with interrupts masked. Nothing can ever happen again. */
#include "rt.h"

int main(void)
{
    print("about to branch to itself\n");
    __asm__ volatile("msr daifset, #15\n1:\tb 1b");
    return 0;
}
