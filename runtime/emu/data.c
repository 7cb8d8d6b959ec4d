/* The data observer: performs every instruction on the core's scratchpads. Rows of one table; the instructions' files
 * hold them. */
#include "runtime/emu/hazard.h"

static bool do_nothing(struct emu_data *d, struct emu_op *op)
{
    (void)d;
    (void)op;
    return true;
}

/* LOOP, IF and their ends never reach an observer; NEXT and BARRIER change the interpreter's state alone. */
emu_handler *const emu_handlers[TILE_OP_END] = {
    [TILE_NEXT] = do_nothing,
    [TILE_BARRIER] = do_nothing,
    [TILE_SET] = emu_do_set,
    [TILE_WAIT] = emu_do_wait,
    [TILE_XSET] = emu_do_xset,
    [TILE_XWAIT] = emu_do_xwait,
    [TILE_SLOAD] = emu_do_sload,
    [TILE_LOAD] = emu_do_load,
    [TILE_STORE] = emu_do_store,
    [TILE_LOAD_NZ] = emu_do_load_nz,
    [TILE_LOADX] = emu_do_loadx,
    [TILE_STOREX] = emu_do_storex,
    [TILE_COPY_L0A] = emu_do_copy_l0a,
    [TILE_COPY_L0B] = emu_do_copy_l0b,
    [TILE_COPY_BT] = emu_do_copy_bt,
    [TILE_IM2COL] = emu_do_im2col,
    [TILE_FIXP] = emu_do_fixp,
    [TILE_MAC] = emu_do_mac,
    [TILE_VEC] = emu_do_vec,
    [TILE_CAST] = emu_do_cast,
    [TILE_RED_ADD] = emu_do_red_add,
    [TILE_RED_END] = emu_do_red_end,
    [TILE_FILL] = emu_do_fill,
    [TILE_IOTA] = emu_do_iota,
    [TILE_DEQUANT] = emu_do_dequant,
    [TILE_CASTP] = emu_do_castp,
    [TILE_ORDER] = emu_do_order,
    [TILE_PICK] = emu_do_pick,
    [TILE_MAC_ROWS] = emu_do_mac_rows,
    [TILE_MAC_OUT] = emu_do_mac_out,
    [TILE_COPY_ROWS] = emu_do_copy_rows,
    [TILE_LOADC] = emu_do_load,
    [TILE_WINDOWS] = emu_do_windows,
    [TILE_TRANSP] = emu_do_transp,
    [TILE_FIXP_NZ] = emu_do_fixp_nz,
    [TILE_COPY_MX] = emu_do_copy_mx,
    [TILE_MAC_MX] = emu_do_mac_mx,
    [TILE_COPY_UB] = emu_do_copy_ub,
};

bool emu_data_op(void *user, struct emu_launch *l, const struct emu_core_id *core, struct emu_op *op)
{
    struct emu_data *d = user;
    (void)l;
    (void)core;
    emu_handler *handler = emu_handlers[op->insn->op];
    if (!handler)
        return emu_fault(d, op, "instruction %d is unknown to the emulator", op->insn->op);
    if (d->waits) {
        bool done = false;
        if (!(op->insn->op == TILE_STORE ? emu_dequant_store(d, op, &done) : emu_dequant_end(d)))
            return false;
        if (done)
            return true;
    }
    if (d->hazard)
        emu_hazard_issue(d->hazard, d->hazard_core, tile_insn_unit(d->section, op->insn));
    return handler(d, op);
}
