/* spliceloop FILE: stdin, a pipe that it makes 1 MiB large, to FILE by splice(2): nothing captures with less. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    int out = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC, 0644);
    fcntl(0, F_SETPIPE_SZ, 1 << 20);
    while (splice(0, 0, out, 0, 1 << 20, SPLICE_F_MOVE) > 0)
        ;
    return 0;
}
