/* npuc run: a plan on the emulated cores, inputs and outputs as files. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/str.h"
#include "tools/json.h"
#include "tools/npz.h"
#include "tools/report.h"
#include "tools/session.h"
#include "tools/tensor_io.h"
#include "tools/term.h"

static const struct arg_option options[] = {
    {"input", "NAME=FILE", "an input: .npy, .npz (member NAME, or FILE.npz:MEMBER), .pb, or raw bytes FILE:f32:1x8"},
    {"output-dir", "FOLDER", "one file per output and outputs.json: {output name: file name}"},
    {"o", "OUT.npz", "all outputs in one archive"},
    {"output-format", "FORMAT", "files of --output-dir: npy, or pb (ONNX TensorProto, every type exactly)"},
    SESSION_OPTIONS,
    {"D", "NAME=SIZE", "a dimension, where no input is given (mode clock)"},
    {"profile", NULL, "a table of kernels with their times on the target (mode clock or both)"},
    {"json", NULL, "the report as JSON on stdout"},
    {NULL, NULL, NULL},
};

struct output {
    const char *name;
    struct k_tensor tensor;
};
struct outputs {
    VEC(struct output) list;
};

/* One output as tensors: elements of a sequence or optional value are NAME.0, NAME.1, ... */
static void add_output(struct outputs *all, struct arena *a, const char *name, const struct npurt_tensor *t)
{
    if (t->kind != NPURT_TENSOR) {
        for (int64_t i = 0; i < t->dims[0]; i++)
            add_output(all, a, arena_printf(a, "%s.%lld", name, (long long)i),
                       (const struct npurt_tensor *)t->data + i);
        return;
    }
    struct output o = {.name = name};
    struct k_tensor *k = &o.tensor;
    *k = (struct k_tensor){.dtype = dtype_from_onnx(t->dtype), .rank = t->rank, .size = t->size};
    memcpy(k->dims, t->dims, (size_t)t->rank * sizeof *t->dims);
    k->data = arena_copy(a, t->size ? t->data : "", t->size ? t->size : 1); /* valid until the next call only */
    vec_push(a, &all->list, o);
}

static bool collect(struct session *s, struct args *a, struct output **out, int *n, int *exit_code)
{
    struct outputs all = {0};
    for (int i = 0; i < npurt_plan_outputs(s->plan); i++) {
        struct npurt_tensor t;
        const char *name = npurt_plan_output(s->plan, i)->name;
        enum npuc_status st = npurt_output(s->run, name, &t);
        if (st != NPUC_OK) {
            *exit_code = session_fail(s, st);
            return false;
        }
        add_output(&all, &a->arena, name, &t);
    }
    *out = all.list.data;
    *n = (int)all.list.len;
    return true;
}

static enum npuc_status write_npz(const char *path, const struct output *out, int n, struct arena *a, struct diag *d)
{
    struct file_writer *w = ARENA_NEW(a, struct file_writer);
    struct npz_writer z;
    enum npuc_status s = file_writer_open(w, path, d);
    if (s != NPUC_OK)
        return s;
    npz_begin(&z, w, a);
    for (int i = 0; i < n && s == NPUC_OK; i++)
        s = npz_put(&z, out[i].name, &out[i].tensor, d);
    npz_end(&z);
    if (s == NPUC_OK)
        s = file_writer_commit(w, d);
    if (s != NPUC_OK)
        file_writer_abort(w);
    return s;
}

/* A name that is a legal and harmless file name stays; others get a number. */
static const char *file_name(struct arena *a, const char *name, int i, const char *suffix)
{
    size_t len = strlen(name);
    bool plain = len > 0 && len < 200 && name[0] != '.';
    for (const char *c = name; *c; c++)
        plain = plain && ((*c >= '0' && *c <= '9') || (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') ||
                          strchr("._-+", *c));
    return plain ? arena_printf(a, "%s%s", name, suffix) : arena_printf(a, "output_%d%s", i, suffix);
}

static enum npuc_status write_index(const char *dir, json_t *index, struct arena *a, struct diag *d)
{
    struct file_writer *w = ARENA_NEW(a, struct file_writer);
    char *text = json_dumps(index, JSON_INDENT(1));
    enum npuc_status s = file_writer_open(w, arena_printf(a, "%s/outputs.json", dir), d);
    if (s == NPUC_OK && text) {
        file_writer_put(w, text, (int64_t)strlen(text));
        file_writer_put(w, "\n", 1);
        s = file_writer_commit(w, d);
        if (s != NPUC_OK)
            file_writer_abort(w);
    }
    free(text);
    return s;
}

static enum npuc_status write_dir(const char *dir, enum tensor_format format, const struct output *out, int n,
                                  struct arena *a, struct diag *d)
{
    json_t *index = json_object();
    enum npuc_status s = NPUC_OK;
    int written = 0;
    if (mkdir(dir, 0777) != 0 && errno != EEXIST)
        s = diag_error(d, &(struct diag_loc){.file = dir, .index = -1}, D_FILE_WRITE, strerror(errno));
    for (; written < n && s == NPUC_OK; written++) {
        const char *name = file_name(a, out[written].name, written, format == TENSOR_PB ? ".pb" : ".npy");
        s = tensor_write(arena_printf(a, "%s/%s", dir, name), format, out[written].name, &out[written].tensor, a, d);
        json_object_set_new_nocheck(index, out[written].name, json_string_nocheck(name));
    }
    if (s == NPUC_OK)
        s = write_index(dir, index, a, d);
    for (int i = 0; i < written && s != NPUC_OK; i++)
        unlink(arena_printf(a, "%s/%s", dir, file_name(a, out[i].name, i, format == TENSOR_PB ? ".pb" : ".npy")));
    json_decref(index);
    return s;
}

static void print_outputs(const struct output *out, int n, struct arena *a)
{
    for (int i = 0; i < n; i++) {
        const struct k_tensor *t = &out[i].tensor;
        const char *dims = "";
        for (int d = 0; d < t->rank; d++)
            dims = arena_printf(a, "%s%s%lld", dims, d ? "," : "", (long long)t->dims[d]);
        printf("%-32s %s[%s]\n", str_escape(a, out[i].name, (int64_t)strlen(out[i].name), 60),
               dtype_table[t->dtype].name, dims);
    }
}

static int write_outputs(struct session *s, struct args *a, struct diag *d)
{
    struct output *out;
    int n, code = 0;
    enum npuc_status st = NPUC_OK;
    const char *format = args_value(a, "output-format"), *npz = args_value(a, "o"), *dir = args_value(a, "output-dir");
    if (s->mode == NPURT_CLOCK || !collect(s, a, &out, &n, &code))
        return code;
    if (npz)
        st = write_npz(npz, out, n, &a->arena, d);
    if (st == NPUC_OK && dir)
        st = write_dir(dir, format && strcmp(format, "pb") == 0 ? TENSOR_PB : TENSOR_NPY, out, n, &a->arena, d);
    if (st == NPUC_OK && !npz && !dir && !args_flag(a, "json"))
        print_outputs(out, n, &a->arena);
    return diag_exit_code(st);
}

static int run_session(struct session *s, struct args *a)
{
    struct diag d;
    int code = 0;
    diag_init(&d, term_diag, NULL);
    if (!session_inputs(s, a, &d, &code) || !session_dims(s, a, &code))
        return code;
    enum npuc_status st = npurt_run(s->run);
    if (st != NPUC_OK)
        return session_fail(s, st);
    if (s->mode != NPURT_DATA && args_flag(a, "json"))
        print_json(report_json(npurt_report(s->run)));
    else if (s->mode != NPURT_DATA && args_flag(a, "profile"))
        report_print(stdout, npurt_report(s->run), s->path);
    else if (s->mode != NPURT_DATA)
        report_summary(stdout, npurt_report(s->run));
    return write_outputs(s, a, &d);
}

static int run(const struct command *cmd, int argc, char **argv)
{
    struct args a;
    struct session s = {0};
    int code = 0;
    if (!args_parse(cmd, argc, argv, &a, &code))
        return code;
    const char *format = args_value(&a, "output-format");
    if (format && strcmp(format, "npy") != 0 && strcmp(format, "pb") != 0) {
        term_error("npuc run: --output-format takes npy or pb, not %s", format);
        code = 2;
    } else if (args_words(cmd, &a, 1, &code) &&
               session_open(&s, &a, a.words.data[0], args_flag(&a, "profile") ? NPURT_BOTH : NPURT_DATA, &code)) {
        code = run_session(&s, &a);
    }
    session_close(&s);
    args_free(&a);
    return code;
}

const struct command command_run = {
    .name = "run",
    .what = "run a plan on the emulated cores",
    .usage = "PLAN --input NAME=FILE ... [options]",
    .examples =
        "  npuc run bard.plan --input input_ids=ids.npy --input attention_mask=mask.npy --input position_ids=pos.npy "
        "-o out.npz\n"
        "  npuc run bard.plan --mode clock -D batch_size=1 -D sequence_length=12 -D past_sequence_length=0 --profile\n",
    .options = options,
    .run = run,
};
