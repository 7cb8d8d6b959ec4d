#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "tools/analysis/present.h"

/* tools/analysis/page.html, by cmake/embed.cmake. */
extern const char analysis_page[];

static const char mark[] = "/*DATA*/";

/* '<' would let a name end the script that holds it: as \u003c it stands for itself. */
static void put_json(struct file_writer *w, const char *text)
{
    for (const char *next; *text; text = next + 1) {
        next = strchr(text, '<');
        file_writer_put(w, text, next ? next - text : (int64_t)strlen(text));
        if (!next)
            return;
        file_writer_put(w, "\\u003c", 6);
    }
}

int analysis_write_page(json_t *data, const char *path, struct diag *d)
{
    struct file_writer w;
    const char *at = strstr(analysis_page, mark);
    char *text = json_dumps(data, JSON_COMPACT | JSON_REAL_PRECISION(6));
    enum npuc_status s = text ? file_writer_open(&w, path, d) : diag_error(d, NULL, D_HOST_MEMORY);
    if (s == NPUC_OK) {
        file_writer_put(&w, analysis_page, at - analysis_page);
        put_json(&w, text);
        file_writer_put(&w, at + sizeof mark - 1, (int64_t)strlen(at + sizeof mark - 1));
        s = file_writer_commit(&w, d);
    }
    free(text);
    return diag_exit_code(s);
}
