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

enum { MOST_HELD = 8 };
static struct {
    const char *const *paths;
    int n;
} held[MOST_HELD];
static volatile sig_atomic_t n_held;

void term_hold(const char *const *paths, int n)
{
    const int at = n_held;
    if (at < MOST_HELD) {
        held[at].paths = paths;
        held[at].n = n;
    }
    n_held = at + 1;
}

void term_release(void)
{
    n_held = n_held - 1;
}

static void remove_held(void)
{
    for (int i = 0; i < n_held && i < MOST_HELD; i++)
        for (int k = 0; k < held[i].n; k++)
            if (unlink(held[i].paths[k]) != 0)
                (void)rmdir(held[i].paths[k]);
}

static void on_signal(int number)
{
    file_writer_abort_all();
    remove_held();
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
