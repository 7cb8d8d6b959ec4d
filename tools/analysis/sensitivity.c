#include "tools/analysis/sensitivity.h"

#include "tools/analysis/present.h"
#include "tools/term.h"

enum { SHOWN = 20 };

int sensitivity_run(const struct command *cmd, struct args *a, const struct quant_request *ask, json_t **ranking)
{
    struct analysis *an = ARENA_NEW(&a->arena, struct analysis);
    const char *csv = args_value(a, "csv");
    int code = 0;
    *an = (struct analysis){.arena = &a->arena, .runs = ask->runs, .shows = ask->shows};
    if (!ask->calib) {
        term_error("npuc quantize: --sensitivity measures on calibration data: give --calib DATA");
        return diag_exit_code(NPUC_E_USAGE);
    }
    if (!args_number(cmd, a, "each", (struct arg_range){0, INT64_MAX, 0}, &an->each_runs, &code))
        return code;
    const bool ok = analysis_open(an, a, ask->model, ask->calib, &code) && analysis_add_recipe(an, ask->recipe, &code);
    if (ok && csv)
        code = analysis_write_csv(an, csv);
    if (ok && code == 0 && args_flag(a, "json"))
        *ranking = analysis_json(an);
    else if (ok && code == 0)
        analysis_print(an, SHOWN);
    analysis_close(an);
    return code;
}
