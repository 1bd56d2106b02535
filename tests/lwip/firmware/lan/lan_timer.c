// machine.Timer, with hard=True as on rp2: extmod/machine_timer.c has it from 1.28 on only.
#include "py/gc.h"
#include "py/mphal.h"
#include "py/runtime.h"
#include "shared/runtime/softtimer.h"

typedef struct {
    soft_timer_entry_t entry; // begins with the object's base
    mp_obj_t callback;
} lan_timer_t;

extern const mp_obj_type_t lan_timer_type;

static void call_soft(soft_timer_entry_t *entry) {
    mp_sched_schedule(((lan_timer_t *)entry)->callback, MP_OBJ_FROM_PTR(entry));
}

// In PendSV, between any two instructions of the program: the heap is locked.
static void call_hard(soft_timer_entry_t *entry) {
    mp_sched_lock();
    gc_lock();
    nlr_buf_t nlr;
    if (nlr_push(&nlr) == 0) {
        mp_call_function_1(((lan_timer_t *)entry)->callback, MP_OBJ_FROM_PTR(entry));
        nlr_pop();
    } else {
        entry->mode = SOFT_TIMER_MODE_ONE_SHOT; // ends it
        mp_printf(&mp_plat_print, "uncaught exception in a Timer's callback\n");
        mp_obj_print_exception(&mp_plat_print, MP_OBJ_FROM_PTR(nlr.ret_val));
    }
    gc_unlock();
    mp_sched_unlock();
}

static mp_obj_t init(size_t n_args, const mp_obj_t *args, mp_map_t *kwargs) {
    enum { ARG_mode, ARG_callback, ARG_period, ARG_freq, ARG_hard };
    static const mp_arg_t allowed[] = {
        { MP_QSTR_mode, MP_ARG_KW_ONLY | MP_ARG_INT, {.u_int = SOFT_TIMER_MODE_PERIODIC} },
        { MP_QSTR_callback, MP_ARG_KW_ONLY | MP_ARG_OBJ, {.u_rom_obj = MP_ROM_NONE} },
        { MP_QSTR_period, MP_ARG_KW_ONLY | MP_ARG_INT, {.u_int = 1000} },
        { MP_QSTR_freq, MP_ARG_KW_ONLY | MP_ARG_INT, {.u_int = 0} },
        { MP_QSTR_hard, MP_ARG_KW_ONLY | MP_ARG_BOOL, {.u_bool = false} },
    };
    mp_arg_val_t values[MP_ARRAY_SIZE(allowed)];
    mp_arg_parse_all(n_args - 1, args + 1, kwargs, MP_ARRAY_SIZE(allowed), allowed, values);
    lan_timer_t *self = MP_OBJ_TO_PTR(args[0]);
    soft_timer_remove(&self->entry);
    self->callback = values[ARG_callback].u_obj;
    self->entry.mode = values[ARG_mode].u_int;
    mp_int_t period_ms = values[ARG_period].u_int;
    if (values[ARG_freq].u_int > 0) {
        period_ms = 1000 / values[ARG_freq].u_int;
    }
    self->entry.delta_ms = MIN(MAX(period_ms, 1), 0x3fffffff);
    self->entry.c_callback = values[ARG_hard].u_bool ? call_hard : call_soft;
    if (self->callback != mp_const_none) {
        soft_timer_insert(&self->entry, self->entry.delta_ms);
    }
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_KW(init_obj, 1, init);

// Only the timers of software, as on rp2: Timer() or Timer(-1).
static mp_obj_t make_new(const mp_obj_type_t *type, size_t n_args, size_t n_kw, const mp_obj_t *args) {
    mp_arg_check_num(n_args, n_kw, 0, 1, true);
    if (n_args == 1 && mp_obj_get_int(args[0]) != -1) {
        mp_raise_ValueError(MP_ERROR_TEXT("Timer doesn't exist"));
    }
    lan_timer_t *self = mp_obj_malloc(lan_timer_t, type);
    soft_timer_static_init(&self->entry, SOFT_TIMER_MODE_ONE_SHOT, 0, call_soft);
    self->entry.flags = SOFT_TIMER_FLAG_GC_ALLOCATED;
    if (n_kw > 0) {
        mp_map_t kwargs;
        mp_map_init_fixed_table(&kwargs, n_kw, args + n_args);
        mp_obj_t self_out = MP_OBJ_FROM_PTR(self);
        init(1, &self_out, &kwargs);
    }
    return MP_OBJ_FROM_PTR(self);
}

static mp_obj_t deinit(mp_obj_t self_in) {
    lan_timer_t *self = MP_OBJ_TO_PTR(self_in);
    self->entry.mode = SOFT_TIMER_MODE_ONE_SHOT; // also when its own hard callback calls this
    soft_timer_remove(&self->entry);
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(deinit_obj, deinit);

static const mp_rom_map_elem_t locals_table[] = {
    { MP_ROM_QSTR(MP_QSTR_init), MP_ROM_PTR(&init_obj) },
    { MP_ROM_QSTR(MP_QSTR_deinit), MP_ROM_PTR(&deinit_obj) },
    { MP_ROM_QSTR(MP_QSTR_ONE_SHOT), MP_ROM_INT(SOFT_TIMER_MODE_ONE_SHOT) },
    { MP_ROM_QSTR(MP_QSTR_PERIODIC), MP_ROM_INT(SOFT_TIMER_MODE_PERIODIC) },
};
static MP_DEFINE_CONST_DICT(locals, locals_table);
MP_DEFINE_CONST_OBJ_TYPE(
    lan_timer_type, MP_QSTR_Timer, MP_TYPE_FLAG_NONE, make_new, make_new, locals_dict, &locals
    );
