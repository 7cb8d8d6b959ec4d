/* Entry: map, recognise, scan, unpack, check the model's frame, import. */
#include "frontend/onnx.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "frontend/priv.h"
#include "frontend/scan.h"

#define MAX_FILE_SIZE  ((INT64_C(2) << 30) - 1) /* protobuf's own limit */
#define MAX_OPSET      28
#define MAX_IR_VERSION 14

/* ---- what the file is */

static const struct {
    int at, len;
    const char *bytes, *what;
} other_formats[] = {
    {0, 4, "PK\3\4", "a zip archive (a PyTorch or Keras file, or an archive to unpack first)"},
    {0, 2, "\x80\2", "a Python pickle"},
    {0, 2, "\x80\3", "a Python pickle"},
    {0, 2, "\x80\4", "a Python pickle"},
    {0, 2, "\x80\5", "a Python pickle"},
    {0, 2, "\x1f\x8b", "gzip data"},
    {0, 4,
     "\x7f"
     "ELF",
     "an ELF program"},
    {0, 4, "GGUF", "a GGUF file"},
    {4, 4, "TFL3", "a TensorFlow Lite file"},
    {4, 4, "ORTM", "an onnxruntime (.ort) file"},
    {0, 8, "\x89HDF\r\n\x1a\n", "an HDF5 file"},
    {0, 4, "<ir_", "a model in ONNX text syntax"},
    {0, 1, "{", "text (JSON?)"},
};

static enum npuc_status recognise(const struct file_map *m, const char *path, struct diag *d)
{
    const struct diag_loc loc = {.file = path, .index = -1};
    if (m->size == 0)
        return diag_error(d, &loc, D_WIRE, 0LL, "the file is empty, not an ONNX model");
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(other_formats); i++)
        if (size_in(other_formats[i].at, other_formats[i].len, m->size) &&
            memcmp(m->data + other_formats[i].at, other_formats[i].bytes, (size_t)other_formats[i].len) == 0) {
            char text[160] = "this is no ONNX protobuf, but ";
            strncat(text, other_formats[i].what, sizeof text - 64);
            return diag_error(d, &loc, D_WIRE, (long long)other_formats[i].at, text);
        }
    return NPUC_OK;
}

static enum npuc_status open_model(struct import *im)
{
    struct diag *d = im->cx->diag;
    struct file_map *map = &im->model->map;
    enum npuc_status s = NPUC_OK;
    if (im->o.bytes)
        *map = (struct file_map){.data = im->o.bytes, .size = im->o.n_bytes};
    else
        s = file_map_open(map, im->path, d);
    const struct diag_loc loc = {.file = im->path, .index = -1};
    if (s == NPUC_OK && map->size > im->o.max_file_size)
        return diag_error(d, &loc, D_WIRE_LIMIT,
                          arena_printf(&im->tmp,
                                       "the file has a size of %" PRId64 " bytes, the limit is %" PRId64
                                       "; keep large weights "
                                       "in external data",
                                       map->size, im->o.max_file_size));
    return s == NPUC_OK ? recognise(map, im->path, d) : s;
}

static enum npuc_status read_model(struct import *im)
{
    enum npuc_status s = open_model(im);
    if (s != NPUC_OK)
        return s;
    struct diag *d = im->cx->diag;
    const struct file_map *map = &im->model->map;
    const struct scan_limits limits = {SCAN_MAX_DEPTH, im->o.max_unpacked_size ? im->o.max_unpacked_size
                                                                               : (INT64_C(96) << 20) + 32 * map->size};
    struct scan_skeleton sk;
    s = scan_message(map->data, map->size, SCAN_MODEL, &limits, &im->tmp, d, im->path, &sk);
    ProtobufCMessage *msg = NULL;
    if (s == NPUC_OK)
        s = skeleton_unpack(&onnx__model_proto__descriptor, &sk, &im->tmp, d, im->path, &msg);
    im->pb = (const Onnx__ModelProto *)(const void *)msg;
    return s;
}

/* ---- the model's frame */

enum npuc_status opsets_read(struct import *im, Onnx__OperatorSetIdProto *const *at, int64_t n, struct opset_list *out)
{
    struct opset *list = ARENA_ARRAY(&im->tmp, struct opset, n + 1);
    for (int64_t i = 0; i < n; i++) {
        list[i] = (struct opset){domain_sym(im, at[i]->domain), at[i]->version};
        const int64_t v = list[i].version;
        if (!list[i].domain && v < 1)
            return name_fail(im, 0, D_MODEL, "opset_import has opset version %" PRId64 " of ai.onnx, expected 1 to %d",
                             v, MAX_OPSET);
        if (!list[i].domain && v > MAX_OPSET)
            return name_fail(im, 0, D_UNSUPPORTED,
                             "opset version %" PRId64 " of ai.onnx is newer than the newest known, %d", v, MAX_OPSET);
        for (int64_t k = 0; k < i; k++)
            if (list[k].domain == list[i].domain && list[k].version != v)
                return name_fail(im, 0, D_MODEL,
                                 "opset_import names domain '%s' with versions %" PRId64 " and %" PRId64,
                                 sym_text(im, list[i].domain), list[k].version, v);
    }
    *out = (struct opset_list){n, list};
    return NPUC_OK;
}

int64_t opset_version(const struct import *im, const struct opset_list *l, sym domain)
{
    (void)im;
    for (int64_t i = 0; i < l->n; i++)
        if (l->at[i].domain == domain)
            return l->at[i].version;
    return 0;
}

static enum npuc_status check_frame(struct import *im)
{
    const Onnx__ModelProto *pb = im->pb;
    if (!pb->graph)
        return name_fail(im, 0, D_MODEL, "the model has no graph (is this an ONNX file?)");
    if (!pb->has_ir_version || pb->ir_version < 1)
        return name_fail(im, 0, D_MODEL, "ir_version is missing or not positive (is this an ONNX file?)");
    if (pb->ir_version > MAX_IR_VERSION)
        return name_fail(im, 0, D_UNSUPPORTED, "ir_version is %" PRId64 ", the newest known is %d", pb->ir_version,
                         MAX_IR_VERSION);
    if (pb->n_opset_import == 0 && pb->ir_version >= 3)
        return name_fail(im, 0, D_MODEL, "the model has no opset_import");
    return opsets_read(im, pb->opset_import, (int64_t)pb->n_opset_import, &im->opsets);
}

static const char *keep_text(struct onnx_model *m, ProtobufCBinaryData t)
{
    return arena_strndup(&m->arena, t.len ? (const char *)t.data : "", (int64_t)t.len);
}

static void note_info(struct import *im)
{
    struct onnx_model *m = im->model;
    struct onnx_info *info = &m->info;
    info->producer = keep_text(m, im->pb->producer_name);
    info->producer_version = keep_text(m, im->pb->producer_version);
    info->ir_version = im->pb->ir_version;
    info->n_functions = (int64_t)im->pb->n_functions;
    info->n_opsets = im->opsets.n;
    info->opsets = ARENA_ARRAY(&m->arena, struct onnx_opset, im->opsets.n + 1);
    for (int64_t i = 0; i < im->opsets.n; i++) {
        const sym domain = im->opsets.at[i].domain;
        info->opsets[i].domain = arena_strndup(&m->arena, sym_text(im, domain), str_len(&im->cx->strings, domain));
        info->opsets[i].version = im->opsets.at[i].version;
    }
    struct strtab *st = &im->cx->strings;
    map_put(&im->m->meta, str_internz(st, "producer"), str_internz(st, info->producer));
    map_put(&im->m->meta, str_internz(st, "opset"),
            str_internz(st, arena_printf(&im->tmp, "%" PRId64, opset_version(im, &im->opsets, 0))));
}

/* ---- import */

static void import_init(struct import *im, struct ir_ctx *cx, const char *path, const struct onnx_options *o)
{
    *im = (struct import){.cx = cx, .path = path};
    if (o)
        im->o = *o;
    if (!im->o.max_file_size)
        im->o.max_file_size = MAX_FILE_SIZE;
    if (!im->o.max_inlined)
        im->o.max_inlined = 200000;
    arena_init(&im->tmp, cx->arena.hooks);
}

static enum npuc_status import_all(struct import *im)
{
    enum npuc_status s = read_model(im);
    if (s == NPUC_OK)
        s = check_frame(im);
    if (s != NPUC_OK)
        return s;
    im->m = ir_module_new(im->cx);
    im->m->path = im->path;
    map_init(&im->functions, &im->tmp);
    map_init(&im->dim_texts, &im->tmp);
    map_init(&im->operators, &im->tmp);
    map_init(&im->used, &im->tmp);
    map_init(&im->hints, &im->tmp);
    map_init(&im->guessed, &im->tmp);
    note_info(im);
    s = functions_index(im);
    if (s == NPUC_OK)
        s = operators_check(im);
    if (s == NPUC_OK || stand_in_heals(im, s))
        s = graph_import_main(im);
    if (s == NPUC_OK)
        ir_dce(im->m->funcs.data[0]);
    return s;
}

static struct onnx_model *model_new(const struct ir_ctx *cx)
{
    struct onnx_model *m = calloc(1, sizeof *m);
    if (m)
        arena_init(&m->arena, cx->arena.hooks);
    return m;
}

enum npuc_status onnx_import(struct ir_ctx *cx, const char *path, const struct onnx_options *o,
                             struct onnx_model **keep, struct module **out)
{
    *out = NULL;
    *keep = model_new(cx);
    if (!*keep)
        return diag_error(cx->diag, NULL, D_HOST_MEMORY);
    struct import *im =
        ARENA_NEW(&(*keep)->arena, struct import); /* so that onnx_close frees what an out-of-memory exit leaves */
    if (!im)
        return diag_error(cx->diag, NULL, D_HOST_MEMORY);
    import_init(im, cx, path, o);
    (*keep)->import = im;
    im->tmp.on_oom = (*keep)->arena.on_oom = cx->arena.on_oom;
    im->tmp.oom_user = (*keep)->arena.oom_user = cx->arena.oom_user;
    im->model = *keep;
    cx->file = path;
    const enum npuc_status s = import_all(im);
    arena_free(&im->tmp);
    (*keep)->import = NULL;
    if (s == NPUC_OK)
        *out = im->m;
    else if (im->m)
        ir_module_free(im->m);
    return s;
}

void onnx_close(struct onnx_model *model)
{
    if (!model)
        return;
    for (int64_t i = 0; i < model->files.len; i++)
        if (!model->files.data[i].missing)
            file_map_close(&model->files.data[i].map);
    if (model->map.base)
        file_map_close(&model->map);
    if (model->import) /* the import was left by a jump */
        arena_free(&model->import->tmp);
    arena_free(&model->arena);
    free(model);
}

const struct onnx_info *onnx_info(const struct onnx_model *model)
{
    return &model->info;
}
