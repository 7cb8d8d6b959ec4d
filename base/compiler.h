/* Compiler-specific spellings; no other file uses extensions directly. */
#ifndef BASE_COMPILER_H
#define BASE_COMPILER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define NPUC_MUST_CHECK         __attribute__((warn_unused_result))
#define NPUC_PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))
#define NPUC_NORETURN           __attribute__((noreturn))
#define NPUC_UNUSED             __attribute__((unused))
#define NPUC_NOINLINE           __attribute__((noinline))
#define NPUC_INLINE             inline __attribute__((always_inline))
#define NPUC_LIKELY(x)          __builtin_expect(!!(x), 1)
#define NPUC_UNLIKELY(x)        __builtin_expect(!!(x), 0)
#else
#define NPUC_MUST_CHECK
#define NPUC_PRINTF(fmt, first)
#define NPUC_NORETURN
#define NPUC_UNUSED
#define NPUC_NOINLINE
#define NPUC_INLINE      inline
#define NPUC_LIKELY(x)   (x)
#define NPUC_UNLIKELY(x) (x)
#endif

/* Does this CPU run the *_avx2.c files (AVX2, FMA, F16C; whatever has the first two has F16C)? Only meaningful without
 * NPUC_SCALAR_ONLY. */
#if defined(__x86_64__) && defined(__GNUC__)
static inline bool npuc_cpu_has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
/* The *_avx512.c files: what servers since Ice Lake and Zen 4 have (F, BW, VL, DQ, VNNI), and AVX2. */
static inline bool npuc_cpu_has_avx512(void)
{
    return npuc_cpu_has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni");
}
#endif

/* Between two looks at memory that another thread will change. */
static inline void npuc_pause(void)
{
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_ia32_pause();
#endif
}

/* Memory that must not be touched, seen by AddressSanitizer. */
#if defined(__SANITIZE_ADDRESS__)
#define NPUC_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define NPUC_ASAN 1
#endif
#endif
#ifdef NPUC_ASAN
void __asan_poison_memory_region(void const volatile *p, size_t size);
void __asan_unpoison_memory_region(void const volatile *p, size_t size);
#define NPUC_POISON(p, size)   __asan_poison_memory_region((p), (size))
#define NPUC_UNPOISON(p, size) __asan_unpoison_memory_region((p), (size))
#else
#define NPUC_ASAN              0
#define NPUC_POISON(p, size)   ((void)(p), (void)(size))
#define NPUC_UNPOISON(p, size) ((void)(p), (void)(size))
#endif

#define NPUC_ARRAY_LEN(a) ((int64_t)(sizeof(a) / sizeof((a)[0])))

/* A broken invariant, never bad input. Active in debug and release-with-asserts builds. */
NPUC_NORETURN void npuc_assert_failed(const char *file, int line, const char *what);
#ifdef NPUC_NO_ASSERT
#define NPUC_ASSERT(x) ((void)0)
#else
#define NPUC_ASSERT(x) ((x) ? (void)0 : npuc_assert_failed(__FILE__, __LINE__, #x))
#endif

#endif
