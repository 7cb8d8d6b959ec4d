/* Inside of the emulator: lowered programs, cores, and the context of the data observer.
 *
 * A program is one section of a kernel with every operand turned into an index into the core's array of values.
 * Expressions are grouped by the variable that is defined last among those they use and are evaluated once when that
 * variable changes: an instruction's operands are then plain copies, and a launch costs no lowering at all, whatever
 * its parameters. */
#ifndef RUNTIME_EMU_PRIV_H
#define RUNTIME_EMU_PRIV_H

#include "kernels/mac.h"
#include "runtime/emu/emu.h"

#include <stdatomic.h>

#define EMU_SUBS         2 /* vector cores of a mixed block */
#define EMU_BLOCK_CORES  3 /* cube, vector 0, vector 1 */
#define EMU_KERNEL_TIMES 256
#define EMU_MAX_BLOCKS   4096 /* more than any machine has cores */
/* Loop iterations of one core, a bound for broken plans: far more than the smallest tiles take for these bytes. */
#define EMU_FREE_STEPS     ((int64_t)1 << 16)
#define EMU_STEPS_PER_BYTE 16
#define EMU_MAX_STEPS      ((int64_t)1 << 36)

/* Evaluated operands by name: struct emu_LOAD { int64_t dst, dst_off, ...; }. */
#define B(x)  int64_t x;
#define BO(x) int64_t x;
#define T(x)  int64_t x;
#define TO(x) int64_t x;
#define E(x)  int64_t x;
#define I(x)  int64_t x;
#define D(x)  int64_t x;
#define F(x)  int64_t x;
#define U(x)  int64_t x;
#define FN(x) int64_t x;
#define V(x)  int64_t x;
#define INSN(nm, number, cls, fields)                                                                                  \
    struct emu_##nm {                                                                                                  \
        fields char end_;                                                                                              \
    };
#include "plan/insn.def"
#undef INSN
#undef B
#undef BO
#undef T
#undef TO
#undef E
#undef I
#undef D
#undef F
#undef U
#undef FN
#undef V
#define EMU_ARGS(nm, op) ((const struct emu_##nm *)(const void *)(op)->arg)
#define EMU_FIELD(nm, f) ((int)(offsetof(struct emu_##nm, f) / sizeof(int64_t)))

/* ---- views (view.c) ---- */
enum { EMU_VIEW_DEPTH = 3 }; /* of a slot: the newest first, older ones show what is not overwritten yet */
/* Bytes of a buffer's slot that have not been copied there, n runs `step` bytes apart: byte off + g*step + i is
 * src[g*pitch + i] for i < run. Before the source changes they are copied. */
struct emu_view {
    const uint8_t *src; /* NULL: no view, the bytes are in the scratchpad */
    int64_t pitch, off, run, n, step;
};

/* n runs of `run` bytes of GM, `pitch` bytes apart. */
struct emu_runs {
    const uint8_t *at;
    int64_t run, n, pitch;
};

/* ---- programs ---- */
struct emu_node { /* one compound expression */
    uint8_t op;
    int32_t n, at; /* operands; index of the result in the values */
    int64_t value;
    const int32_t *arg; /* indices of the operands */
    const int64_t *coef;
};
struct emu_group { /* nodes evaluated when a variable changes */
    int32_t first, n;
};
struct emu_ins {
    const struct tile_insn *insn;
    uint8_t op, n_fields, n_bufs, unit; /* unit: enum tile_unit */
    bool orders;                        /* a flag, barrier or NEXT: moves and computes nothing */
    bool flag;                          /* SET or WAIT */
    uint8_t buf_field[8];               /* operands that are buffers */
    int32_t jump;                       /* LOOP, IF: past the end; ENDLOOP: the first instruction of the body */
    int32_t loop;                       /* LOOP, ENDLOOP: number of the loop */
    int32_t var, group;                 /* LOOP, ENDLOOP, SLOAD, LET: index of the variable's value, its group */
    int32_t val[TILE_MAX_ARGS];
    uint8_t n_moving, moving[TILE_MAX_ARGS]; /* operands that may change within a launch */
};
struct emu_program {
    const struct tile_kernel *kernel;
    const struct tile_section *section;
    struct emu_ins *code;
    int32_t n_code, n_loops, n_values, n_groups;
    int64_t *values;     /* constants filled in */
    bool *varies;        /* per value: it is not the same all over a launch */
    int32_t *symbol;     /* symbol number -> index of its value, -1 unused */
    int32_t *first_view; /* buffer -> index of its first slot's views, -1: always copied */
    int32_t n_views;
    int32_t n_symbols;
    struct emu_node *nodes;
    struct emu_group *groups; /* 0: parameters, 1: block and sub, then variables in the order of their definition */
};
/* Lowers one section; the arena keeps it. NULL with `error` set when the section is not well formed. */
struct emu_program *emu_program_new(struct arena *a, const struct tile_kernel *k, enum tile_core core, char *error,
                                    size_t cap);
void emu_program_eval(const struct emu_program *p, int64_t *values, int32_t group);
NPUC_MUST_CHECK bool emu_program_views(struct emu_program *p, struct arena *a); /* view.c: fills first_view */

/* ---- cores ---- */
/* EMU_TURN: another core of the block may go on from here, so let it. */
enum emu_stop { EMU_DONE, EMU_TURN, EMU_XWAIT, EMU_BARRIER, EMU_FAULT };
struct emu_sync { /* counting flags of a block */
    int32_t to_vector[EMU_SUBS][TILE_MAX_XEVENTS];
    int32_t to_cube[EMU_SUBS][TILE_MAX_XEVENTS];
};
struct emu_core {
    const struct emu_program *prog;
    struct emu_core_id id;
    struct emu_launch *launch;
    struct emu_sync *sync;
    int64_t *values; /* n_values */
    int32_t *slot;   /* current slot per buffer */
    int64_t *loop_i, *loop_n;
    struct emu_view *views; /* n_views */
    int32_t pc;
    bool done, released;      /* released: the barrier at pc may be passed */
    int64_t steps, max_steps; /* loop iterations */
    const char *fault;        /* why it stopped with EMU_FAULT, when no observer did */
    struct emu_op op;
    struct emu_op *ops; /* by instruction, once it has been met: what does not change stays; NULL: always `op` */
    void *room;         /* behind values, slot, loop_i, loop_n, views, ops */
    size_t room_size;
    const struct emu_program *bound; /* program whose parameters are in values */
};
/* Gives the core room for the program and evaluates what depends on the launch's parameters. Once per launch. `keeps`:
 * operands that do not change are fetched once, which pays where few cores run many blocks. */
NPUC_MUST_CHECK bool emu_core_bind(struct emu_core *c, const struct emu_program *p, struct emu_launch *l, bool keeps);
void emu_core_start(struct emu_core *c, struct emu_core_id id, struct emu_sync *sync); /* at its first instruction */
enum emu_stop emu_core_run(struct emu_core *c, const struct emu_observer *o);
void emu_core_free(struct emu_core *c);

/* ---- machine ---- */
struct emu_memory { /* scratchpads of one core */
    uint8_t *at[TS_COUNT];
};
struct emu_hazard;

/* ---- data observer ---- */
struct emu_data {
    struct emu_launch *launch;
    const struct emu_core *core;
    struct emu_block *block; /* the core's */
    const struct tile_section *section;
    const struct emu_memory *mem;
    struct emu_hazard *hazard; /* NULL: unchecked */
    int hazard_core;           /* number of the core within the hazard state */
    char *error;               /* 512 bytes */
    uint8_t *row;              /* scratch, EMU_ROW_BYTES */
    struct emu_view *views;    /* the core's; NULL: every move copies */
    struct emu_op waiting;     /* a DEQUANT that is still to be carried out, if `waits` */
    bool waits;
};
#define EMU_ROW_BYTES 65536
typedef bool emu_handler(struct emu_data *d, struct emu_op *op);
extern emu_handler *const emu_handlers[TILE_OP_END];
bool emu_data_op(void *user, struct emu_launch *l, const struct emu_core_id *core,
                 struct emu_op *op);      /* user: struct emu_data */
bool emu_dequant_end(struct emu_data *d); /* carries out what waits: before anything else, also the core's end */
/* The same together with a STORE when it takes the result: *done. */
bool emu_dequant_store(struct emu_data *d, const struct emu_op *op, bool *done);

/* A block of elements: off + sum i[k]*stride[k] for i[k] < n[k], all in elements of `size` bytes. */
struct emu_span {
    int64_t off, n[4], stride[4];
    int32_t size;
};
/* Address of element `off`, after checking that the whole span lies within the buffer's current slot (or the tensor);
 * NULL after a fault. An empty span is always within. With hazards on, the access is recorded. */
void *emu_buf(struct emu_data *d, const struct emu_op *op, int field, const struct emu_span *s, bool write);
void *emu_gm(struct emu_data *d, const struct emu_op *op, int field, const struct emu_span *s, bool write);
/* The same as emu_gm, but what is still codes there stays codes. */
void *emu_gm_unmade(struct emu_data *d, const struct emu_op *op, int field, const struct emu_span *s, bool write);
/* The same as emu_buf, but a view of the slot stays one: the address is where the bytes would be. */
void *emu_buf_unsettled(struct emu_data *d, const struct emu_op *op, int field, const struct emu_span *s, bool write);
/* rows x cols elements with the given strides. */
struct emu_span emu_rows(int64_t off, int64_t rows, int64_t row, int64_t cols, int64_t col, int32_t size);
bool emu_fault(struct emu_data *d, const struct emu_op *op, const char *fmt, ...) NPUC_PRINTF(3, 4); /* false */
/* Element size of a dtype operand, or 0 after a fault (packed types have no addressable elements). */
int32_t emu_esize(struct emu_data *d, const struct emu_op *op, int64_t dtype);
/* Are all extents >= 0? Sets *empty when one is 0. */
bool emu_extents(struct emu_data *d, const struct emu_op *op, int n, const int64_t *extent, bool *empty);

bool emu_runs_meet(const struct emu_runs *a, const struct emu_runs *b); /* false: they have no byte in common */
/* Copies what the cores of a block show of runs of GM before they are written. */
void emu_views_settle(struct emu_block *b, const struct emu_runs *written);
/* Copies what the slot of `field` shows into the scratchpad, if it is a view. */
void emu_view_settle(struct emu_data *d, const struct emu_op *op, int field);
/* Makes the slot that LOAD writes a view of x, the first element read. false: copy. */
bool emu_view_load(struct emu_data *d, const struct emu_op *op, const struct emu_span *dst, const uint8_t *x,
                   const struct emu_span *src);
/* n groups of `run` bytes whose starts are `pitch` bytes apart from byte `off` of a slot on. */
struct emu_groups {
    int64_t off, run, n, pitch;
};
/* Makes the slot of `dst` a view of what the groups of the slot of `src` show, packed from byte 0 on. false: copy. */
bool emu_view_copy(struct emu_data *d, const struct emu_op *op, int dst, int src, const struct emu_groups *g);
/* May the slot of `field` show GM that the launch writes? Then emu_view_written makes it do so, or show a shadow. */
bool emu_view_takes(const struct emu_data *d, const struct emu_op *op, int field);
void emu_view_written(struct emu_data *d, const struct emu_op *op, int field, const struct emu_view *v, bool shadow);
/* Where the groups of the slot of `field` are without a copy, and how far apart; else NULL. The second: some may still
 * be codes (made.c). */
const void *emu_view_read(const struct emu_data *d, const struct emu_op *op, int field, const struct emu_groups *g,
                          int64_t *pitch);
const void *emu_view_find(const struct emu_data *d, const struct emu_op *op, int field, const struct emu_groups *g,
                          int64_t *pitch);

/* ---- what is still codes (made.c) ---- */
enum { EMU_SHADOWS = 8, EMU_SHADOW_PARTS = 4 };
struct emu_made {         /* values put off */
    struct k_code_rows g; /* in the shadow */
    struct emu_runs own;  /* its bytes there */
    uint8_t *w;           /* the same in the workspace; NULL: they are there, or something else is */
    const uint8_t *to;    /* one past its last byte in the workspace */
    int64_t lost;         /* leading groups that something else is in the place of there */
    bool done;            /* the shadow has them */
};
struct emu_shadow {
    struct emu_made part[EMU_SHADOW_PARTS]; /* without a byte in common, in the same groups */
    int n;
    int64_t delta; /* from a byte of the workspace to its shadow */
};
/* Can the values be put off? Then emu_made_put_off gives their place in a shadow, as g->dst is in the workspace. */
bool emu_made_fits(struct emu_block *b, const struct k_code_rows *g);
uint8_t *emu_made_put_off(struct emu_block *b, const struct k_code_rows *g);
void emu_made_now(struct emu_block *b, const struct emu_runs *runs); /* whatever the runs meet */
/* The runs of a workspace in the shadow that has all of them, or NULL. */
const uint8_t *emu_made_find(const struct emu_block *b, const struct emu_runs *whole);
/* The codes of all columns of g->b, whose groups are `pitch` bytes apart: the number of parts; 0: not all are codes. */
int emu_made_parts(struct emu_block *b, const struct k_mac_args *g, int64_t pitch,
                   struct k_code_part part[EMU_SHADOW_PARTS]);

/* A copy with extents of 1 dropped and neighbouring dimensions merged that are contiguous on both sides. */
struct emu_shape {
    int64_t n[4], d[4], s[4]; /* outermost first, unused leading ones 1; strides in elements */
};
struct emu_shape emu_simplify(const int64_t d[4], const int64_t s[4], const int64_t n[4]);
/* dst[sum i*d] = src[sum i*s] for the spans' common extents. */
void emu_copy(uint8_t *dst, const int64_t d[4], const uint8_t *src, const int64_t s[4], const int64_t n[4],
              int32_t size);
/* dst[c*dst_row + r] = src[r*src_row + c]. */
void emu_transpose(uint8_t *dst, int64_t dst_row, const uint8_t *src, int64_t src_row, int64_t rows, int64_t cols,
                   int32_t size);

/* ---- machine ---- */
struct emu_block { /* everything to run one block: cube core, vector cores */
    struct emu_core core[EMU_BLOCK_CORES];
    struct emu_memory mem[EMU_BLOCK_CORES];
    struct emu_data data[EMU_BLOCK_CORES];
    struct emu_sync sync;
    struct emu_hazard *hazard;
    int64_t fault_block;  /* number of the block that found `error` */
    bool ready, finished; /* cores bound to the launch; block done (kernels with barriers) */
    bool alone;           /* no barriers: what the block reads, no other block writes during the launch */
    bool shows_written;   /* some view shows memory that the launch may write */
    bool shows_made;      /* some view shows a shadow */
    struct emu_shadow shadow[EMU_SHADOWS];
    int next_shadow;
    uint8_t *shade;                     /* their bytes, NULL: none was ever used */
    const uint8_t *made_from, *made_to; /* of the workspaces: what was put off belongs there; NULL: nothing was */
    char error[512];
};
struct emu_machine {
    struct arena arena;  /* programs */
    struct map programs; /* kernel -> array of TCORE_COUNT programs */
    const struct target *target;
    int64_t size[TS_COUNT];
    int64_t
        last_ns[EMU_KERNEL_TIMES]; /* by hash of the kernel: how long its last launch took; decides how, never what */
    bool no_views;                 /* every move copies: slower, the same results */
    struct emu_block **blocks;
    int32_t n_blocks;
};
/* The kernel's programs, lowered on first use; NULL entries for absent sections. NULL with l->error set. */
struct emu_program *const *emu_machine_programs(struct emu_machine *m, struct emu_launch *l);
NPUC_MUST_CHECK bool emu_machine_reserve(struct emu_machine *m, int64_t n); /* n sets of scratchpads and cores */

/* ---- handlers ---- */
emu_handler emu_do_load, emu_do_store, emu_do_load_nz, emu_do_loadx, emu_do_storex, emu_do_sload;
emu_handler emu_do_copy_l0a, emu_do_copy_l0b, emu_do_copy_bt, emu_do_im2col, emu_do_mac, emu_do_fixp, emu_do_fixp_nz;
emu_handler emu_do_vec, emu_do_cast, emu_do_red_add, emu_do_red_end, emu_do_fill, emu_do_iota;
emu_handler emu_do_dequant, emu_do_transp, emu_do_copy_ub, emu_do_castp, emu_do_order, emu_do_pick;
emu_handler emu_do_mac_rows, emu_do_mac_out, emu_do_copy_rows, emu_do_windows, emu_do_copy_mx, emu_do_mac_mx;

#endif
