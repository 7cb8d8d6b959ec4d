/* What a person sees: messages on stderr, colour and progress only on a terminal (and never with NO_COLOR). */
#ifndef TOOLS_TERM_H
#define TOOLS_TERM_H

#include "base/compiler.h"

void term_error(const char *fmt, ...) NPUC_PRINTF(1, 2); /* one line on stderr */
void term_diag(void *user, const char *line);            /* a diag_sink */
bool term_is_tty(int fd);
/* A stage line of a long command on stderr: "  read      3,214 nodes ...   0.3 s". Nothing with `quiet`. */
void term_stage(const char *stage, const char *text, double seconds);
/* Paths that Ctrl-C removes besides: files, behind them the folder that they are in. They stay where they are until
 * term_release, which takes back the last ones. */
void term_hold(const char *const *paths, int n);
void term_release(void);
/* Ctrl-C: removes temporary files and leaves with 130. Installed by main. */
void term_handle_signals(void);

#endif
