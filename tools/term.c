#include "tools/term.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"

/* Names on the command line may hold anything: control characters are shown as '?'. */
static void put_clean(const char *s)
{
    for (; *s; s++)
        fputc((unsigned char)*s < 0x20 || *s == 0x7f ? '?' : *s, stderr);
    fputc('\n', stderr);
}

void term_error(const char *fmt, ...)
{
    char line[2048];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    put_clean(line);
}

void term_diag(void *user, const char *line)
{
    (void)user;
    put_clean(line);
}

bool term_is_tty(int fd)
{
    return isatty(fd) != 0 && getenv("NO_COLOR") == NULL;
}

void term_stage(const char *stage, const char *text, double seconds)
{
    fprintf(stderr, "  %-10s%-60s %6.2f s\n", stage, text, seconds);
}

static void on_signal(int number)
{
    file_writer_abort_all();
    _exit(number == SIGINT ? 130 : 128 + number);
}

void term_handle_signals(void)
{
    struct sigaction a;
    memset(&a, 0, sizeof a);
    a.sa_handler = on_signal;
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a full quota is an error of write */
}
