/* One description of a record serves three passes: MARK finds the expressions in use, WRITE appends bytes, READ fills
 * the record from bytes. In READ every count is checked against the bytes that are left before memory is taken; after
 * the first error everything reads as zero and empty. */
#ifndef PLAN_CODER_PRIV_H
#define PLAN_CODER_PRIV_H

#include "plan/format.h"
#include "plan/plan.h"

enum coder_mode { CODER_MARK, CODER_WRITE, CODER_READ };

/* Expressions of one pool and their numbers in the file. */
struct expr_numbers {
    struct expr_pool *pool;
    int32_t *number; /* MARK: 1 = used; WRITE: file number by id. Not used in READ, where both are equal */
    int32_t n;
};
struct coder {
    enum coder_mode mode;
    struct arena *arena;
    VEC(uint8_t) out;
    const uint8_t *p, *end;    /* READ: what is left */
    const char *error;         /* READ: first problem */
    const struct strtab *from; /* WRITE: table of the syms being coded */
    struct strtab *names;      /* strings of the file; READ: file number == sym */
    struct expr_numbers exprs; /* pool that expr fields refer to */
};

void code_fail(struct coder *c, const char *error); /* READ */
bool code_reading(const struct coder *c);
void code_u8(struct coder *c, uint8_t *v);
void code_bool(struct coder *c, bool *v);
void code_u16(struct coder *c, uint16_t *v);
void code_i32(struct coder *c, int32_t *v);
void code_i64(struct coder *c, int64_t *v);
void code_sym(struct coder *c, sym *v);
void code_dtype(struct coder *c, uint8_t *v); /* as ONNX number; 0: none */
void code_expr(struct coder *c, expr *v);     /* 0: none */
/* Number of elements that follow, each of at least min_size bytes in the file. */
int64_t code_count(struct coder *c, int64_t n, int64_t min_size);
/* READ: n zeroed elements of `size` bytes, NULL for n == 0; else `list`. */
void *code_list(struct coder *c, const void *list, int64_t n, int64_t size);
void code_expr_list(struct coder *c, int32_t n, const expr **list);
void code_i32_list(struct coder *c, int32_t n, const int32_t **list);
void code_sym_list(struct coder *c, int32_t n, const sym **list);

/* Makes the elements of a VEC ready for coding: READ allocates n of them. */
#define CODE_VEC(c, v, min_size)                                                                                       \
    do {                                                                                                               \
        (v)->len = code_count((c), (v)->len, (min_size));                                                              \
        if (code_reading(c)) {                                                                                         \
            (v)->data = code_list((c), NULL, (v)->len, (int64_t)sizeof *(v)->data);                                    \
            (v)->cap = (v)->len;                                                                                       \
        }                                                                                                              \
    } while (0)

/* plan/records.c: sections other than weights; `section` is an enum plan_section. The strings are coded last when
 * writing and first when reading. */
void code_section(struct coder *c, struct plan *p, int section);
/* Symbols and nodes of c->exprs.pool; between MARK and WRITE call expr_numbers_assign. */
void code_pool(struct coder *c);
void expr_numbers_begin(struct coder *c, struct expr_pool *pool);
void expr_numbers_assign(struct coder *c);

void plan_put_u32(uint8_t *to, uint32_t v);
void plan_put_u64(uint8_t *to, uint64_t v);
uint32_t plan_get_u32(const uint8_t *from);
uint64_t plan_get_u64(const uint8_t *from);
uint64_t plan_hash(const void *p, int64_t size); /* XXH3 */
uint64_t plan_hash_avx2(const void *p, int64_t size);

#endif
