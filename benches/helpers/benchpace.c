/* benchpace STAMPFILE SLOT RESULT BYTES TICK_US SECONDS
 * Every TICK_US microseconds, on a grid that depends on SLOT, writes BYTES bytes of 100-byte lines to stdout.
 * Slot SLOT: ready. Slot RESULT: the longest time that one write took, in ns, at the end. Then it sleeps. */
#include "stamp.h"
#include <string.h>

int main(int argc, char **argv)
{
    if (argc < 7)
        return 2;
    static char buf[1 << 20];
    long slot = atol(argv[2]), result = atol(argv[3]);
    size_t bytes = strtoul(argv[4], 0, 10);
    uint64_t tick = strtoull(argv[5], 0, 10) * 1000, longest = 1;
    if (bytes > sizeof buf || !tick)
        return 2;
    memset(buf, 'x', sizeof buf);
    for (size_t i = 99; i < sizeof buf; i += 100)
        buf[i] = '\n';
    put_stamp(argv[1], slot, now_ns());
    uint64_t end = now_ns() + strtoull(argv[6], 0, 10) * 1000000000u;
    uint64_t next = now_ns() + tick * (uint64_t)(slot % 997) / 997;
    while (next < end) {
        struct timespec at = {(time_t)(next / 1000000000u), (long)(next % 1000000000u)};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, 0);
        uint64_t before = now_ns();
        for (size_t done = 0; done < bytes;) {
            ssize_t n = write(1, buf + done, bytes - done);
            if (n <= 0)
                _exit(98);
            done += (size_t)n;
        }
        uint64_t took = now_ns() - before;
        if (took > longest)
            longest = took;
        next += tick;
    }
    put_stamp(argv[1], result, longest);
    for (;;)
        pause();
}
