#include "tools/outcome.h"

#include <math.h>

#include "tools/analysis/measure.h"

enum { RUNS = 4 };

bool outcome_of_inputs(struct args *a, const struct quant_request *ask, double *noise, int *exit_code)
{
    struct analysis *an = ARENA_NEW(&a->arena, struct analysis);
    struct quant_recipe *r = ARENA_NEW(&a->arena, struct quant_recipe);
    struct effect_summary e = {0};
    *an = (struct analysis){.arena = &a->arena, .runs = ask->runs < RUNS ? ask->runs : RUNS, .shows = ask->shows};
    *noise = 0;
    bool ok = analysis_open(an, a, ask->model, ask->calib, exit_code);
    if (ok && !an->outputs.text) {
        const enum npuc_status s = quant_recipe_read(r, ask->recipe, &a->arena, &an->plain.c.diag);
        *exit_code = diag_exit_code(s);
        if (s == NPUC_OK) {
            const struct quantiser base = quant_recipe_quantiser(r);
            const struct variant_want want = {.base = &base, .part = PART_INPUTS};
            ok = analysis_outputs(an, &want, an->runs, &e, exit_code);
            *noise = e.noise;
        } else {
            ok = false;
        }
        quant_recipe_close(r);
    }
    analysis_close(an);
    return ok;
}

double outcome_largest(const struct quantization *q)
{
    double most = 0;
    for (int64_t i = 0; i < q->sources.len; i++)
        most = q->sources.data[i].wide ? most : fmax(most, q->sources.data[i].after);
    return most;
}
