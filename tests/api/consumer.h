/* Runs a plan by the public runtime interface alone. */
#ifndef CONSUMER_H
#define CONSUMER_H

#ifdef __cplusplus
extern "C" {
#endif

int run_plan(const char *path); /* 0, or 1 after a message */

#ifdef __cplusplus
}
#endif
#endif
