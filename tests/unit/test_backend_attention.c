/* Fused attention on emulated blocks of one cube and two vector cores: one launch, equal to the reference interpreter
 * on the fused graph bit for bit whatever the tile, no hazard between units or cores. Each case is a graph as text,
 * fused by the pass. */
#include "backend_unit.h"

#include "ir/eval.h"
#include "ir/text.h"
#include "passes/pass.h"

struct attention_case {
    const char *name, *text;
    int64_t b, s, t;  /* values of the symbols of these names; t: rows of past keys or of all keys */
    int64_t capacity; /* of caches, 0: none */
    int launches;     /* 0: two appends at once, if any, and one attention; -1: not only these */
};

#define HEAD              "module {\n  sym b in 0..8\n  sym s in 0..4096\n  sym t in 0..100000\n  func @main("
#define TAIL              "\n    Yield %y\n  }\n}\n"
#define QKV(ty, n, nk, d) "%q: " ty "[b," n ",s," d "], %k: " ty "[b," nk ",t," d "], %v: " ty "[b," nk ",t," d "]"
#define LINE(text)        "    " text "\n"
#define SCORES(ty, n)     LINE("%a = FusedMatMul %q, %k {transB=1} : " ty "[b," n ",s,t]")
#define PRODUCT(ty, n, d) "    %y = MatMul %p, %v : " ty "[b," n ",s," d "]"
#define AXIS              LINE("%ax = Constant {value=i64[1] [-1]} : i64[1]")
#define NUMBER(name, v)   LINE("%" name " = Constant {value=f32[] [" v "]} : f32[]")

/* softmax with rows that may be masked out entirely, as lowering writes it */
#define GUARDED(n)                                                                                                     \
    AXIS LINE("%max = ReduceMax %m, %ax : f32[b," n ",s,1]") NUMBER("inf", "-inf")                                     \
        LINE("%e = Equal %max, %inf : bool[b," n ",s,1]") NUMBER("zero", "0") NUMBER("one", "1")                       \
            LINE("%g = Where %e, %zero, %max : f32[b," n ",s,1]") LINE("%d = Sub %m, %g : f32[b," n ",s,t]")           \
                LINE("%x = Exp %d : f32[b," n ",s,t]") LINE("%sum = ReduceSum %x, %ax : f32[b," n ",s,1]")             \
                    LINE("%h = Where %e, %one, %sum : f32[b," n ",s,1]") LINE("%p = Div %x, %h : f32[b," n ",s,t]")

static const char plain[] =
    HEAD QKV("f32", "2", "2", "16") ") -> (%y: f32[b,2,s,16]) {\n" SCORES("f32", "2") NUMBER("c", "0.25")
        LINE("%m = Mul %a, %c : f32[b,2,s,t]") LINE("%p = Softmax %m : f32[b,2,s,t]") PRODUCT("f32", "2", "16") TAIL;
static const char masked[] =
    HEAD QKV("f32", "2", "2", "24") ", %keep: bool[s,t]) -> (%y: f32[b,2,s,24]) {\n" SCORES("f32", "2")
        NUMBER("off", "-inf") LINE("%m = Where %keep, %a, %off : f32[b,2,s,t]") GUARDED("2") PRODUCT("f32", "2", "24")
            TAIL;
/* query heads of a group as rows; mask, bias and a number per head over the heads; softcap */
static const char grouped[] = HEAD QKV(
    "f32", "8", "2",
    "16") ", %keep: bool[b,1,s,t], %bias: f32[1,8,1,t], %head: f32[8,1,1])"
          " -> (%y: f32[b,8,s,16]) {\n" LINE("%qd = SizeOf {exprs=[\"b\", \"2\", \"4*s\", \"16\"]} : i64[4]")
              LINE("%sd = SizeOf {exprs=[\"b\", \"8\", \"s\", \"t\"]} : i64[4]")
                  LINE("%pd = SizeOf {exprs=[\"b\", \"2\", \"4*s\", \"t\"]} : i64[4]")
                      LINE("%yd = SizeOf {exprs=[\"b\", \"8\", \"s\", \"16\"]} : i64[4]")
                          LINE("%q4 = Reshape %q, %qd : f32[b,2,4*s,16]")
                              LINE("%s4 = FusedMatMul %q4, %k {transB=1} : f32[b,2,4*s,t]")
                                  LINE("%a = Reshape %s4, %sd : f32[b,8,s,t]") NUMBER("cap", "4") NUMBER("off", "-inf")
                                      LINE("%a1 = Div %a, %cap : f32[b,8,s,t]") LINE("%a2 = Tanh %a1 : f32[b,8,s,t]")
                                          LINE("%a3 = Mul %a2, %cap : f32[b,8,s,t]")
                                              LINE("%a4 = Add %a3, %bias : f32[b,8,s,t]")
                                                  LINE("%a5 = Mul %a4, %head : f32[b,8,s,t]")
                                                      LINE("%m = Where %keep, %a5, %off : f32[b,8,s,t]") GUARDED("8")
                                                          LINE("%r = Reshape %p, %pd : f32[b,2,4*s,t]")
                                                              LINE("%y4 = MatMul %r, %v : f32[b,2,4*s,16]")
                                                                  LINE("%y = Reshape %y4, %yd : f32[b,8,s,16]") TAIL;
/* exporters' form: a float mask, and rows of NaN replaced */
static const char guarded[] =
    HEAD QKV("f32", "4", "4", "16") ", %bias: f32[b,1,s,t]) -> (%y: f32[b,4,s,16]) {\n" SCORES("f32", "4")
        LINE("%m = Add %a, %bias : f32[b,4,s,t]") LINE("%w = Softmax %m : f32[b,4,s,t]")
            LINE("%n = IsNaN %w : bool[b,4,s,t]") NUMBER("zero", "0") LINE("%p = Where %n, %zero, %w : f32[b,4,s,t]")
                PRODUCT("f32", "4", "16") TAIL;
#define HALF(ty, to)                                                                                                   \
    HEAD QKV(ty, "4", "4", "32") ", %keep: bool[s,t]) -> (%y: " ty "[b,4,s,32]) {\n" SCORES(ty, "4")                   \
        LINE("%f = Cast %a {to=1} : f32[b,4,s,t]") NUMBER("off", "-inf")                                               \
            LINE("%m = Where %keep, %f, %off : f32[b,4,s,t]") GUARDED("4")                                             \
                LINE("%p16 = Cast %p {to=" to "} : " ty "[b,4,s,t]") LINE("%y = MatMul %p16, %v : " ty "[b,4,s,32]")   \
                    TAIL
static const char half[] = HALF("f16", "10"), bfloat[] = HALF("bf16", "16");
/* head sizes of their own for keys and values, none of them a multiple of anything */
static const char unequal[] =
    HEAD "%q: f16[b,4,s,72], %k: f16[b,1,t,72], %v: f16[b,1,t,40], %keep: bool[s,t]) -> (%y: f16[b,4,s,40]) {\n" LINE(
        "%qd = SizeOf {exprs=[\"b\", \"1\", \"4*s\", \"72\"]} : i64[4]")
        LINE("%sd = SizeOf {exprs=[\"b\", \"4\", \"s\", \"t\"]} : i64[4]")
            LINE("%pd = SizeOf {exprs=[\"b\", \"1\", \"4*s\", \"t\"]} : i64[4]")
                LINE("%yd = SizeOf {exprs=[\"b\", \"4\", \"s\", \"40\"]} : i64[4]")
                    LINE("%q4 = Reshape %q, %qd : f16[b,1,4*s,72]")
                        LINE("%s4 = FusedMatMul %q4, %k {transB=1} : f16[b,1,4*s,t]")
                            LINE("%a4 = Reshape %s4, %sd : f16[b,4,s,t]") LINE("%a = Cast %a4 {to=1} : f32[b,4,s,t]")
                                NUMBER("off", "-inf") LINE("%m = Where %keep, %a, %off : f32[b,4,s,t]") GUARDED("4")
                                    LINE("%p16 = Cast %p {to=10} : f16[b,4,s,t]")
                                        LINE("%r = Reshape %p16, %pd : f16[b,1,4*s,t]")
                                            LINE("%y4 = MatMul %r, %v : f16[b,1,4*s,40]")
                                                LINE("%y = Reshape %y4, %yd : f16[b,4,s,40]") TAIL;
/* softmax in f16 throughout, the mask added in rank 4, the products in rank 3 */
static const char flat[] = HEAD
    "%q: f16[4*b,s,16], %k: f16[4*b,t,16], %v: f16[4*b,t,16], %bias: f16[b,1,s,t]) -> (%y: f16[4*b,s,16]) {\n" LINE(
        "%sd = SizeOf {exprs=[\"b\", \"4\", \"s\", \"t\"]} : i64[4]")
        LINE("%pd = SizeOf {exprs=[\"4*b\", \"s\", \"t\"]} : i64[3]")
            LINE("%a = FusedMatMul %q, %k {transB=1} : f16[4*b,s,t]") LINE("%a4 = Reshape %a, %sd : f16[b,4,s,t]")
                LINE("%m4 = Add %a4, %bias : f16[b,4,s,t]") LINE("%m = Reshape %m4, %pd : f16[4*b,s,t]")
                    LINE("%p = Softmax %m : f16[4*b,s,t]") LINE("%y = MatMul %p, %v : f16[4*b,s,16]") TAIL;
/* keys stored one column each, values one row per column */
static const char turned[] =
    HEAD "%q: f32[b,2,s,16], %k: f32[b,1,16,t], %v: f32[b,2,40,t]) -> (%y: f32[b,2,s,40]) {\n" LINE(
        "%a = MatMul %q, %k : f32[b,2,s,t]") LINE("%p = Softmax %a : f32[b,2,s,t]")
        LINE("%y = FusedMatMul %p, %v {transB=1} : f32[b,2,s,40]") TAIL;
/* query heads of a group as rows; the result turned, and narrowed */
static const char ended[] = HEAD QKV("f32", "4", "2", "16") ", %keep: bool[b,1,s,t]) -> (%y: f16[b,s,4,16]) {\n" LINE(
    "%qd = SizeOf {exprs=[\"b\", \"2\", \"2*s\", \"16\"]} : i64[4]")
    LINE("%sd = SizeOf {exprs=[\"b\", \"4\", \"s\", \"t\"]} : i64[4]")
        LINE("%pd = SizeOf {exprs=[\"b\", \"2\", \"2*s\", \"t\"]} : i64[4]")
            LINE("%yd = SizeOf {exprs=[\"b\", \"4\", \"s\", \"16\"]} : i64[4]")
                LINE("%q4 = Reshape %q, %qd : f32[b,2,2*s,16]")
                    LINE("%s4 = FusedMatMul %q4, %k {transB=1} : f32[b,2,2*s,t]")
                        LINE("%a = Reshape %s4, %sd : f32[b,4,s,t]") NUMBER("off", "-65504")
                            LINE("%m = Where %keep, %a, %off : f32[b,4,s,t]") LINE("%p = Softmax %m : f32[b,4,s,t]")
                                LINE("%r = Reshape %p, %pd : f32[b,2,2*s,t]")
                                    LINE("%y4 = MatMul %r, %v : f32[b,2,2*s,16]")
                                        LINE("%yh = Reshape %y4, %yd : f32[b,4,s,16]")
                                            LINE("%yt = Transpose %yh {perm=[0, 2, 1, 3]} : f32[b,s,4,16]")
                                                LINE("%y = Cast %yt {to=10} : f16[b,s,4,16]") TAIL;
/* heads of their own; the result turned */
static const char ended_heads[] = HEAD QKV("f16", "3", "3", "24") ") -> (%y: f16[b,s,3,24]) {\n" SCORES("f16", "3")
    LINE("%p = Softmax %a : f16[b,3,s,t]") LINE("%yh = MatMul %p, %v : f16[b,3,s,24]")
        LINE("%y = Transpose %yh {perm=[0, 2, 1, 3]} : f16[b,s,3,24]") TAIL;
/* turned otherwise than the kernel writes: the Transpose stays */
static const char ended_apart[] = HEAD QKV("f32", "2", "2", "16") ") -> (%y: f32[s,b,2,16]) {\n" SCORES("f32", "2")
    LINE("%p = Softmax %a : f32[b,2,s,t]") LINE("%yh = MatMul %p, %v : f32[b,2,s,16]")
        LINE("%y = Transpose %yh {perm=[2, 0, 1, 3]} : f32[s,b,2,16]") TAIL;
/* one key head for all queries, values the first columns of its keys (latent attention); the same of a cache */
static const char latent[] = HEAD
    "%q: f16[b,1,s,48], %k: f16[b,1,t,48]) -> (%y: f16[b,1,s,32]) {\n" LINE("%0 = Constant {value=i64[1] [0]} : i64[1]")
        LINE("%n = Constant {value=i64[1] [32]} : i64[1]") AXIS SCORES("f16", "1")
            LINE("%v = Slice %k, %0, %n, %ax : f16[b,1,t,32]") LINE("%p = Softmax %a : f16[b,1,s,t]")
                PRODUCT("f16", "1", "32") TAIL;
static const char latent_cache[] =
    HEAD "%q: f32[b,1,4,48], %kp: f32[b,1,t,48], %kn: f32[b,1,s,48]) -> (%y: f32[b,1,4,32], %ko: f32[b,1,t + s,48]) "
         "{\n" LINE("%0 = Constant {value=i64[1] [0]} : i64[1]") LINE("%n = Constant {value=i64[1] [32]} : i64[1]")
             AXIS LINE("%ko = Concat %kp, %kn {axis=2} : f32[b,1,t + s,48]")
                 LINE("%a = FusedMatMul %q, %ko {transB=1} : f32[b,1,4,t + s]")
                     LINE("%v = Slice %ko, %0, %n, %ax : f32[b,1,t + s,32]") LINE("%p = Softmax %a : f32[b,1,4,t + s]")
                         LINE("%y = MatMul %p, %v : f32[b,1,4,32]") "    Yield %y, %ko\n  }\n}\n";
static const char cached[] = HEAD
    "%q: f32[b,4,s,16], %kp: f32[b,2,t,16], %kn: f32[b,2,s,16], %vp: f32[b,2,t,16], %vn: f32[b,2,s,16],"
    " %keep: bool[b,1,s,t + s]) -> (%y: f32[b,4,s,16], %ko: f32[b,2,t + s,16], %vo: f32[b,2,t + s,16]) {\n" LINE(
        "%ko = Concat %kp, %kn {axis=2} : f32[b,2,t + s,16]") LINE("%vo = Concat %vp, %vn {axis=2} : f32[b,2,t + s,16]")
        LINE("%qd = SizeOf {exprs=[\"b\", \"2\", \"2*s\", \"16\"]} : i64[4]")
            LINE("%sd = SizeOf {exprs=[\"b\", \"4\", \"s\", \"t + s\"]} : i64[4]")
                LINE("%pd = SizeOf {exprs=[\"b\", \"2\", \"2*s\", \"t + s\"]} : i64[4]") LINE(
                    "%yd = SizeOf {exprs=[\"b\", \"4\", \"s\", \"16\"]} : i64[4]")
                    LINE("%q4 = Reshape %q, %qd : f32[b,2,2*s,16]") LINE(
                        "%s4 = FusedMatMul %q4, %ko {transB=1} : f32[b,2,2*s,t + s]")
                        LINE("%a = Reshape %s4, %sd : f32[b,4,s,t + s]") NUMBER("off", "-65504") LINE(
                            "%m = Where %keep, %a, %off : f32[b,4,s,t + s]") LINE("%p = Softmax %m : f32[b,4,s,t + s]")
                            LINE("%r = Reshape %p, %pd : f32[b,2,2*s,t + s]")
                                LINE("%y4 = MatMul %r, %vo : f32[b,2,2*s,16]")
                                    LINE("%y = Reshape %y4, %yd : f32[b,4,s,16]") "    Yield %y, %ko, %vo\n  }\n}\n";

/* the same with keys that are embedded on their way to the cache */
static const char rotated[] = HEAD
    "%q: f32[b,4,s,16], %kp: f32[b,2,t,16], %kn: f32[b,2,s,16], %vp: f32[b,2,t,16], %vn: f32[b,2,s,16],"
    " %keep: bool[b,1,s,t + s], %cos: f32[b,s,8], %sin: f32[b,s,8]) -> (%y: f32[b,4,s,16], %ko: f32[b,2,t + s,16], "
    "%vo: f32[b,2,t + s,16]) {\n" LINE("%kr = RotaryEmbedding %kn, %cos, %sin : f32[b,2,s,16]") LINE(
        "%ko = Concat %kp, %kr {axis=2} : f32[b,2,t + s,16]") LINE("%vo = Concat %vp, %vn {axis=2} : f32[b,2,t + s,16]")
        LINE("%qd = SizeOf {exprs=[\"b\", \"2\", \"2*s\", \"16\"]} : i64[4]")
            LINE("%sd = SizeOf {exprs=[\"b\", \"4\", \"s\", \"t + s\"]} : i64[4]")
                LINE("%pd = SizeOf {exprs=[\"b\", \"2\", \"2*s\", \"t + s\"]} : i64[4]") LINE(
                    "%yd = SizeOf {exprs=[\"b\", \"4\", \"s\", \"16\"]} : i64[4]")
                    LINE("%q4 = Reshape %q, %qd : f32[b,2,2*s,16]") LINE(
                        "%s4 = FusedMatMul %q4, %ko {transB=1} : f32[b,2,2*s,t + s]")
                        LINE("%a = Reshape %s4, %sd : f32[b,4,s,t + s]") NUMBER("off", "-65504") LINE(
                            "%m = Where %keep, %a, %off : f32[b,4,s,t + s]") LINE("%p = Softmax %m : f32[b,4,s,t + s]")
                            LINE("%r = Reshape %p, %pd : f32[b,2,2*s,t + s]")
                                LINE("%y4 = MatMul %r, %vo : f32[b,2,2*s,16]")
                                    LINE("%y = Reshape %y4, %yd : f32[b,4,s,16]") "    Yield %y, %ko, %vo\n  }\n}\n";

/* one row per head, of a fixed number; one more score per head that has no value */
static const char sink[] = HEAD
    "%q: f32[b,8,1,16], %k: f32[b,2,t,16], %v: f32[b,2,t,16], %keep: bool[b,1,1,t], %sink: f32[1,8,1,1])"
    " -> (%y: f32[b,8,1,16]) {\n" LINE("%qd = SizeOf {exprs=[\"b\", \"2\", \"4\", \"16\"]} : i64[4]") LINE(
        "%sd = SizeOf {exprs=[\"b\", \"8\", \"1\", \"t\"]} : i64[4]")
        LINE("%pd = SizeOf {exprs=[\"b\", \"2\", \"4\", \"t\"]} : i64[4]") LINE(
            "%yd = SizeOf {exprs=[\"b\", \"8\", \"1\", \"16\"]} : i64[4]") LINE("%q4 = Reshape %q, %qd : f32[b,2,4,16]")
            LINE("%s4 = FusedMatMul %q4, %k {transB=1} : f32[b,2,4,t]") LINE("%a = Reshape %s4, %sd : f32[b,8,1,t]")
                NUMBER("off", "-inf") LINE("%m = Where %keep, %a, %off : f32[b,8,1,t]")
                    AXIS LINE("%m0 = ReduceMax %m, %ax : f32[b,8,1,1]") LINE("%max = Max %m0, %sink : f32[b,8,1,1]")
                        LINE("%d = Sub %m, %max : f32[b,8,1,t]") LINE("%x = Exp %d : f32[b,8,1,t]")
                            LINE("%s0 = ReduceSum %x, %ax : f32[b,8,1,1]") LINE("%sd0 = Sub %sink, %max : f32[b,8,1,1]")
                                LINE("%se = Exp %sd0 : f32[b,8,1,1]") LINE("%sum = Add %s0, %se : f32[b,8,1,1]")
                                    LINE("%p = Div %x, %sum : f32[b,8,1,t]") LINE("%r = Reshape %p, %pd : f32[b,2,4,t]")
                                        LINE("%y4 = MatMul %r, %v : f32[b,2,4,16]")
                                            LINE("%y = Reshape %y4, %yd : f32[b,8,1,16]") TAIL;

/* What is added is -inf for keys behind a row's own, for those 300 rows back or more, and for data: chunks outside
 * of the band are no steps. The sums of the mask stand in front of the region, as exporters have them. */
static const char biased[] = HEAD QKV("f32", "2", "2", "16") ", %seen: bool[b,1,1,t]) -> (%y: f32[b,2,s,16]) {\n" LINE(
    "%0 = Constant {value=i64[] [0]} : i64[]") LINE("%1 = Constant {value=i64[] [1]} : i64[]")
    LINE("%ns = SizeOf {exprs=[\"s\"], scalar=1} : i64[]") LINE("%nt = SizeOf {exprs=[\"t\"], scalar=1} : i64[]")
        LINE("%ax1 = Constant {value=i64[1] [1]} : i64[1]") LINE("%r0 = Range %0, %ns, %1 : i64[s]")
            LINE("%row = Unsqueeze %r0, %ax1 : i64[s,1]") LINE("%key = Range %0, %nt, %1 : i64[t]")
                LINE("%late = Greater %key, %row : bool[s,t]") LINE("%on = Not %late : bool[s,t]")
                    LINE("%back = Constant {value=i64[] [300]} : i64[]") LINE("%old = Sub %row, %back : i64[s,1]")
                        LINE("%new = Greater %key, %old : bool[s,t]") LINE("%near = And %on, %new : bool[s,t]")
                            LINE("%keep = And %near, %seen : bool[b,1,s,t]") NUMBER("z", "0") NUMBER("off", "-inf")
                                LINE("%bias = Where %keep, %z, %off : f32[b,1,s,t]") SCORES("f32", "2")
                                    LINE("%m = Add %bias, %a : f32[b,2,s,t]") GUARDED("2") PRODUCT("f32", "2", "16")
                                        TAIL;

static const struct attention_case cases[] = {
    {"sink", sink, 3, 1, 200, 0, 0},
    {"plain", plain, 2, 5, 37, 0, 0},
    {"plain_decode", plain, 1, 1, 100, 0, 0},
    {"plain_rows", plain, 1, 300, 70, 0, 0},
    {"plain_empty", plain, 2, 3, 0, 0, 0},
    {"plain_none", plain, 0, 3, 5, 0, 0},
    {"plain_no_rows", plain, 1, 0, 5, 0, 0},
    {"plain_long", plain, 1, 3, 20000, 0, 0},
    {"masked", masked, 2, 17, 33, 0, 0},
    {"masked_one", masked, 1, 1, 1, 0, 0},
    {"masked_long", masked, 1, 2, 9000, 0, 0},
    {"grouped", grouped, 2, 7, 65, 0, 0},
    {"grouped_decode", grouped, 3, 1, 90, 0, 0},
    {"grouped_rows", grouped, 1, 210, 40, 0, 0},
    {"grouped_long", grouped, 1, 3, 8000, 0, 0},
    {"guarded", guarded, 2, 9, 50, 0, 0},
    {"half", half, 2, 19, 75, 0, 0},
    {"half_decode", half, 1, 1, 513, 0, 0},
    {"bfloat", bfloat, 1, 20, 30, 0, 0},
    {"flat", flat, 2, 6, 45, 0, 0},
    {"turned", turned, 2, 18, 77, 0, 0},
    {"unequal", unequal, 2, 5, 300, 0, 0},
    {"unequal_rows", unequal, 1, 45, 520, 0, 0},
    {"unequal_decode", unequal, 3, 1, 256, 0, 0},
    {"plain_chunks", plain, 3, 130, 769, 0, 0},
    {"guarded_chunks", guarded, 1, 70, 513, 0, 0},
    {"half_chunks", half, 1, 150, 257, 0, 0},
    {"sink_chunks", sink, 2, 1, 600, 0, 0},
    {"grouped_chunks", grouped, 1, 33, 515, 0, 0},
    {"cached", cached, 2, 3, 29, 64, 0},
    {"cached_decode", cached, 1, 1, 40, 64, 0},
    {"cached_first", cached, 2, 20, 0, 64, 0},
    {"rotated", rotated, 2, 3, 29, 64, 0},
    {"rotated_decode", rotated, 1, 1, 40, 64, 0},
    {"ended", ended, 2, 7, 65, 0, 0},
    {"ended_decode", ended, 3, 1, 90, 0, 0},
    {"ended_rows", ended, 1, 210, 300, 0, 0},
    {"ended_long", ended, 1, 3, 8000, 0, 0},
    {"ended_heads", ended_heads, 2, 19, 75, 0, 0},
    {"ended_heads_decode", ended_heads, 2, 1, 300, 0, 0},
    {"ended_apart", ended_apart, 2, 5, 37, 0, 2},
    {"latent", latent, 2, 19, 75, 0, 0},
    {"latent_decode", latent, 3, 1, 300, 0, 0},
    {"latent_cache", latent_cache, 2, 1, 290, 512, 2},
    {"biased_chunks", biased, 1, 290, 580, 0, -1},
    {"biased_few", biased, 1, 5, 900, 0, -1},
};

static void fill(struct k_tensor *t, uint64_t *seed)
{
    const int64_t n = k_count(t);
    for (int64_t i = 0; i < n; i++) {
        const int64_t r = (int64_t)(unit_random(seed) % 2001) - 1000;
        if (dtype_is_float(t->dtype))
            k_set_f64(t, i, (double)r / 256.0);
        else
            k_set_i64(t, i, t->dtype == DT_BOOL ? r & 3 : r);
    }
}

static struct k_tensor make_input(struct infer_unit *f, struct arena *a, const struct value *v, const int64_t *symbols,
                                  uint64_t *seed)
{
    struct k_tensor t = {.dtype = v->type->dtype, .rank = v->type->rank};
    int64_t n = 1;
    for (int i = 0; i < t.rank; i++) {
        assert_true(expr_eval(&f->cx.exprs, v->type->dims[i], symbols, &t.dims[i]));
        n *= t.dims[i];
    }
    assert_true(dtype_bytes(t.dtype, n, &t.size));
    t.data = arena_zalloc(a, t.size + 1);
    fill(&t, seed);
    return t;
}

/* Placement and fusion, with caches in place. */
static void run_passes(struct backend_unit *u, const struct attention_case *c)
{
    static const struct pass_step steps[] = {
        {PASS_kv_cache, ""}, {PASS_place, ""}, {PASS_layout, ""}, {PASS_fuse_attention, ""}};
    const struct pass_run run = {.verify_each = true};
    struct target_info info;
    struct pass_ctx px;
    backend_target_info(&u->machine, &info);
    pass_ctx_init(&px, u->f->m, &info);
    px.options.cache_capacity = c->capacity;
    if (pass_run_all(&px, steps, NPUC_ARRAY_LEN(steps), &run) != NPUC_OK)
        fail_msg("%s: %s", c->name, u->f->last);
    if (px.stats[STAT_fuse_attention_regions] != 1)
        fail_msg("%s: not fused", c->name);
    pass_ctx_free(&px);
}

/* An input as the plan stores it: caches have room between batch members. */
static void put_input(struct backend_unit *u, const struct value *v, const struct k_tensor *t, int64_t capacity)
{
    const char *name = str_text(&u->f->cx.strings, v->name);
    if (v->type->layout.kind != LAYOUT_CACHE) {
        memcpy(backend_bytes(u, name), t->data, (size_t)t->size);
        return;
    }
    char store[64];
    snprintf(store, sizeof store, "cache:%s", name);
    uint8_t *to = backend_bytes(u, store);
    const int64_t row = t->dims[3] * dtype_size(t->dtype), members = t->dims[0] * t->dims[1];
    for (int64_t i = 0; i < members; i++)
        memcpy(to + i * capacity * row, (const uint8_t *)t->data + i * t->dims[2] * row, (size_t)(t->dims[2] * row));
}

static void check(const struct attention_case *c, struct tiling tiling, const struct k_tensor *want, const uint8_t *got)
{
    const uint8_t *bytes = want->data;
    int64_t i = 0;
    while (i < want->size && bytes[i] == got[i])
        i++;
    if (i < want->size)
        fail_msg("%s (m %lld, k %lld, rows %lld, cols %lld): byte %lld of %lld differs", c->name, (long long)tiling.m,
                 (long long)tiling.k, (long long)tiling.rows, (long long)tiling.cols, (long long)i,
                 (long long)want->size);
}

static void run_case(const struct attention_case *c, struct tiling tiling)
{
    void *state = NULL;
    assert_int_equal(infer_unit_setup(&state), 0);
    struct infer_unit *f = state;
    struct backend_unit u;
    struct arena a;
    uint64_t seed = 7;
    struct module *m = NULL, *own = f->m;
    if (ir_parse(&f->cx, c->text, (int64_t)strlen(c->text), &m) != NPUC_OK)
        fail_msg("%s: %s", c->name, f->last);
    f->m = m;
    backend_setup(&u, f);
    u.tiling = tiling;
    unit_arena(&a);
    const struct graph *g = m->funcs.data[0];
    int64_t symbols[64] = {0};
    const struct {
        const char *name;
        int64_t v;
    } bound[] = {{"b", c->b}, {"s", c->s}, {"t", c->t}};
    for (int i = 0; i < 3; i++)
        symbols[expr_symbol_find(&f->cx.exprs, str_internz(&f->cx.strings, bound[i].name))] = bound[i].v;
    struct k_tensor in[8], out[4];
    for (int32_t i = 0; i < g->n_inputs; i++)
        in[i] = make_input(f, &a, g->inputs[i], symbols, &seed);
    run_passes(&u, c);
    if (ir_eval(&f->cx, g, in, out, &a) != NPUC_OK)
        fail_msg("%s: eval: %s", c->name, f->last);
    backend_compile(&u);
    for (int64_t i = 0; i < u.plan.kernels.len; i++)
        if (tile_verify(u.plan.kernels.data[i], &u.plan, c->name, &f->diag) != NPUC_OK)
            fail_msg("%s: %s", c->name, f->last);
    for (int i = 0; i < 3; i++)
        if (expr_symbol_find(&u.plan.exprs, str_internz(&u.plan.strings, bound[i].name)) >= 0)
            backend_bind(&u, bound[i].name, bound[i].v);
    backend_allocate(&u);
    for (int32_t i = 0; i < g->n_inputs; i++)
        put_input(&u, g->inputs[i], &in[i], c->capacity);
    backend_run(&u);
    check(c, tiling, &out[0], backend_bytes(&u, "y"));
    if (c->launches >= 0)
        assert_int_equal(u.n_launched, c->launches ? c->launches : c->capacity ? 2 : 1);
    backend_teardown(&u);
    arena_free(&a);
    f->m = own;
    ir_module_free(m);
    infer_unit_teardown(&state);
}

static void test_cases(void **state)
{
    static const struct tiling tilings[] = {
        {0}, {.m = 32, .n = 32, .k = 32, .rows = 3, .cols = 64}, {.m = 16, .n = 16, .rows = 1, .cols = 192}};
    (void)state;
    for (int64_t i = 0; i < NPUC_ARRAY_LEN(cases); i++)
        for (int64_t k = 0; k < NPUC_ARRAY_LEN(tilings); k++)
            run_case(&cases[i], tilings[k]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cases)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
