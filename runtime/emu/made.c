/* Weights that a DEQUANT makes and a STORE puts into a workspace are not made there and then: the block keeps what they
 * are made of, codes of read-only memory that stay where they are. A product of one row multiplies codes (k_mac_codes)
 * and the values never exist; whoever else asks for the bytes has them made first, so that nobody can tell.
 *
 * What was put off has a place of its own, a shadow, where the bytes would lie as they do in the workspace. A LOAD of
 * them becomes a view of the shadow, so that the workspace's slot may be filled anew while its old bytes are still
 * seen. Shadows are used in turn; only those that somebody reads the bytes of are ever touched.
 *
 * Only workspaces that nobody reads when the launch has ended are treated so: what is left then is dropped. */
#include "runtime/emu/emu_priv.h"

#include "base/size.h"

#include <stdlib.h>

#define SHADOW_BYTES ((int64_t)1 << 17)
enum { LINE = 32 }; /* bytes of a column in a group */

static int64_t groups_of(const struct k_code_rows *g)
{
    return g->cols / g->group;
}

static struct emu_runs runs_at(const struct k_code_rows *g, const uint8_t *at)
{
    return (struct emu_runs){at, g->rows * g->dst_row, groups_of(g), g->group_step};
}

static const uint8_t *end_of(const struct emu_runs *r)
{
    return r->at + (r->n - 1) * r->pitch + r->run;
}

/* What of it belongs into the workspace. */
static struct k_code_rows for_workspace(const struct emu_made *m)
{
    struct k_code_rows g = m->g;
    g.dst = m->w + m->lost * g.group_step;
    g.first += m->lost * g.group;
    g.cols -= m->lost * g.group;
    return g;
}

static bool waits_at(const struct emu_made *m, const struct emu_runs *runs)
{
    struct emu_runs own = m->own;
    if (!m->w || (runs->pitch >= 0 && (runs->at >= m->to || end_of(runs) <= m->w)))
        return false;
    own.at = m->w + m->lost * own.pitch;
    own.n -= m->lost;
    return emu_runs_meet(&own, runs);
}

static void make_there(struct emu_made *m)
{
    const struct k_code_rows g = for_workspace(m);
    m->w = NULL;
    k_dequant_rows(&g);
}

static struct emu_shadow *shadow_at(struct emu_block *b, const uint8_t *p)
{
    const bool within = b->shade && p >= b->shade && p < b->shade + EMU_SHADOWS * SHADOW_BYTES;
    return within ? &b->shadow[(p - b->shade) / SHADOW_BYTES] : NULL;
}

void emu_made_now(struct emu_block *b, const struct emu_runs *runs)
{
    struct emu_shadow *s = shadow_at(b, runs->at);
    for (int i = 0; s && i < s->n; i++) {
        if (s->part[i].done || !emu_runs_meet(&s->part[i].own, runs))
            continue;
        s->part[i].done = true;
        k_dequant_rows(&s->part[i].g);
    }
    const struct emu_runs all = {b->made_from, b->made_to - b->made_from, 1, 0};
    if (s || !b->made_from || !emu_runs_meet(&all, runs))
        return;
    for (int k = 0; k < EMU_SHADOWS; k++)
        for (int i = 0; i < b->shadow[k].n; i++)
            if (waits_at(&b->shadow[k].part[i], runs))
                make_there(&b->shadow[k].part[i]);
}

/* g is about to lie where m waits to: leading groups are lost, anything else is made first. */
static void overwrite(struct emu_made *m, const struct k_code_rows *g)
{
    const int64_t n = groups_of(g), left = groups_of(&m->g) - m->lost;
    if (m->w + m->lost * m->g.group_step != g->dst || m->g.rows * m->g.dst_row != g->rows * g->dst_row ||
        m->g.group != g->group || (n > 1 && left > 1 && m->g.group_step != g->group_step)) {
        make_there(m);
        return;
    }
    m->lost += n;
    if (n >= left)
        m->w = NULL;
}

/* Has the shadow room for g beside what it has, in the same groups? */
static bool joins(const struct emu_shadow *s, const struct k_code_rows *g)
{
    const struct emu_made *m = s->part;
    if (s->n == 0 || s->n == EMU_SHADOW_PARTS || !m->w || m->lost > 0 || m->g.cols != g->cols ||
        m->g.group_step != g->group_step || g->dst - m->w >= g->group_step || m->w - g->dst >= g->group_step)
        return false;
    const struct emu_runs own = runs_at(g, g->dst + s->delta);
    for (int i = 0; i < s->n; i++)
        if (emu_runs_meet(&own, &s->part[i].own))
            return false;
    return true;
}

/* The shadow of what g lies between; else the next one in turn, emptied. */
static struct emu_shadow *shadow_for(struct emu_block *b, const struct k_code_rows *g)
{
    for (int k = 0; k < EMU_SHADOWS; k++)
        if (joins(&b->shadow[k], g))
            return &b->shadow[k];
    struct emu_shadow *s = &b->shadow[b->next_shadow];
    uint8_t *at = b->shade + b->next_shadow * SHADOW_BYTES;
    b->next_shadow = (b->next_shadow + 1) % EMU_SHADOWS;
    if (s->n > 0)
        emu_views_settle(b, &(struct emu_runs){at, SHADOW_BYTES, 1, 0});
    for (int i = 0; i < s->n; i++)
        if (s->part[i].w)
            make_there(&s->part[i]);
    s->n = 0;
    s->delta = at + g->group_step - g->dst;
    return s;
}

bool emu_made_fits(struct emu_block *b, const struct k_code_rows *g)
{
    const int64_t n = groups_of(g), run = g->rows * g->dst_row;
    if (n > 1 && g->group_step < run)
        return false;
    if (run > SHADOW_BYTES || g->group_step < 0 || g->group_step > SHADOW_BYTES ||
        (n + 2) * g->group_step + run > SHADOW_BYTES)
        return false;
    b->shade = b->shade ? b->shade : aligned_alloc(64, EMU_SHADOWS * SHADOW_BYTES);
    return b->shade != NULL;
}

uint8_t *emu_made_put_off(struct emu_block *b, const struct k_code_rows *g)
{
    const struct emu_runs own = runs_at(g, g->dst);
    for (int k = 0; k < EMU_SHADOWS; k++)
        for (int i = 0; i < b->shadow[k].n; i++)
            if (waits_at(&b->shadow[k].part[i], &own))
                overwrite(&b->shadow[k].part[i], g);
    struct emu_shadow *s = shadow_for(b, g);
    struct emu_made *m = &s->part[s->n++];
    *m = (struct emu_made){.g = *g, .w = g->dst, .to = end_of(&own)};
    m->g.dst += s->delta;
    m->own = runs_at(&m->g, m->g.dst);
    b->made_to = b->made_from && b->made_to > end_of(&own) ? b->made_to : end_of(&own);
    b->made_from = b->made_from && b->made_from < own.at ? b->made_from : own.at;
    b->shows_made = true;
    return m->g.dst;
}

/* One run in the groups of g: groups that follow each other are one. */
static struct emu_runs in_groups(const struct emu_runs *r, const struct k_code_rows *g)
{
    const int64_t step = g->group_step;
    return r->n == 1 && step > 0 && r->run % step == 0 ? (struct emu_runs){r->at, step, r->run / step, step} : *r;
}

const uint8_t *emu_made_find(const struct emu_block *b, const struct emu_runs *whole)
{
    const struct emu_shadow *found = NULL;
    struct emu_runs runs = *whole;
    int64_t run = 0;
    if (!b->made_from || runs.at >= b->made_to || runs.at < b->made_from)
        return NULL;
    for (int k = 0; k < EMU_SHADOWS; k++)
        for (int i = 0; i < b->shadow[k].n; i++) {
            const struct emu_made *m = &b->shadow[k].part[i];
            if (!waits_at(m, whole))
                continue;
            if (!found)
                runs = in_groups(whole, &m->g);
            const int64_t off = m->w - runs.at, own = m->own.run;
            if ((found && found != &b->shadow[k]) || m->lost > 0 || m->own.n < runs.n || off < 0 ||
                off + own > runs.run || (runs.n > 1 && m->g.group_step != runs.pitch))
                return NULL;
            found = &b->shadow[k];
            run += own;
        }
    return found && run == runs.run ? runs.at + found->delta : NULL; /* no two have a byte in common */
}

/* The columns of b that the rows of w are, from its first group on; false: w is something else. */
static bool part_of(const struct k_code_rows *w, const struct k_mac_args *g, int64_t pitch, struct k_code_part *p)
{
    const int64_t c0 = LINE / dtype_size(g->dtype), k1 = size_ceil_div(g->k, c0);
    const int64_t step = k1 > 1 ? pitch : w->group_step, off = w->dst - (const uint8_t *)g->b;
    if (w->group != c0 || w->to != g->dtype || w->dst_row != LINE || step <= 0 ||
        (groups_of(w) > 1 && w->group_step != step))
        return false;
    const int64_t group = off >= 0 ? off / step : -((step - 1 - off) / step), inner = off - group * step;
    *p = (struct k_code_part){.w = w, .n0 = inner / LINE, .rows = w->rows, .k0 = w->first - group * c0};
    return group <= 0 && group + groups_of(w) >= k1 && inner % LINE == 0 && p->n0 + p->rows <= g->n &&
           k_mac_takes_code_rows(w, p->k0, g->k);
}

static bool alike(const struct k_code_part *p, const struct k_code_part *q)
{
    return p->w->code == q->w->code && p->w->scale_type == q->w->scale_type && p->w->zero == q->w->zero &&
           p->w->block == q->w->block && p->k0 == q->k0;
}

int emu_made_parts(struct emu_block *b, const struct k_mac_args *g, int64_t pitch,
                   struct k_code_part part[EMU_SHADOW_PARTS])
{
    const struct emu_shadow *s = g->m == 1 ? shadow_at(b, g->b) : NULL;
    int64_t found = 0;
    for (int i = 0; s && i < s->n; i++) {
        if (!part_of(&s->part[i].g, g, pitch, &part[i]) || !alike(part, &part[i]))
            return 0;
        found += part[i].rows;
    }
    return s && found == g->n ? s->n : 0; /* no two have a column in common */
}
