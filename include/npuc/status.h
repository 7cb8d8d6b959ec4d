/* Status codes shared by both libraries. They map one to one to the exit codes of the npuc command. */
#ifndef NPUC_STATUS_H
#define NPUC_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

enum npuc_status {
    NPUC_OK = 0,
    NPUC_E_NEGATIVE,     /* the question was answered with no (exit 1) */
    NPUC_E_USAGE,        /* wrong argument (exit 2) */
    NPUC_E_INVALID,      /* invalid model, plan or input file (exit 3) */
    NPUC_E_UNSUPPORTED,  /* valid, but outside what npuc or the target can do (exit 4) */
    NPUC_E_LIMIT,        /* a limit or the target's memory is exceeded (exit 5) */
    NPUC_E_NOMEM,        /* host memory exhausted (exit 5) */
    NPUC_E_IO,           /* reading or writing failed (exit 6) */
    NPUC_E_INCOMPATIBLE, /* plan of another version or target (exit 7) */
    NPUC_E_INTERNAL,     /* a bug in npuc (exit 70) */
    NPUC_E_CANCELLED     /* interrupted (exit 130) */
};

#ifdef __cplusplus
}
#endif
#endif
