// The qemu port's configuration, and what a board like the Pico W has beside it.
#include <stddef.h>
#include <stdint.h>
#include "mpconfigport.h"

#undef MICROPY_PY_SYS_PLATFORM
#define MICROPY_PY_SYS_PLATFORM "rp2" // programs take what they have for the Pico W
#undef MICROPY_PY_ASYNCIO
#define MICROPY_PY_ASYNCIO (1)
// Older versions of the port leave these out.
#undef MICROPY_PY_SELECT
#define MICROPY_PY_SELECT (1)
#undef MICROPY_PY_TIME
#define MICROPY_PY_TIME (1)
#undef MICROPY_PY_SYS_STDIO_BUFFER
#define MICROPY_PY_SYS_STDIO_BUFFER (1)

#define MICROPY_TRACKED_ALLOC (1)
#define MICROPY_SCHEDULER_DEPTH (8)
#define MICROPY_SCHEDULER_STATIC_NODES (1)
#define MICROPY_ENABLE_FINALISER (1)
#define MICROPY_PY_NETWORK (1)
#define MICROPY_PY_SOCKET (1)
#define MICROPY_PY_NETWORK_HOSTNAME_DEFAULT "mpy-qemu"
#define MICROPY_PY_MACHINE_TIMER (0) // lan_timer.c has one
#define MICROPY_PY_MACHINE_DISABLE_IRQ_ENABLE_IRQ (0)
#define MICROPY_PY_OS_URANDOM (1)
#define MICROPY_PY_OS_INCLUDEFILE "lan_modos.h"
#define MICROPY_PY_OS_SYNC (1)
#define MICROPY_PY_OS_UNAME (1)
#define MICROPY_PY_RANDOM_SEED_INIT_FUNC (lan_random32())
#define MICROPY_EPOCH_IS_1970 (1)
#define MICROPY_PY_TIME_GMTIME_LOCALTIME_MKTIME (1)
#define MICROPY_PY_TIME_TIME_TIME_NS (1)
#define MICROPY_PY_TIME_INCLUDEFILE "lan_modtime.h"
#define MICROPY_PY_SSL_FINALISER (1)
#define MICROPY_SOFT_TIMER_TICKS_MS lan_ticks_ms

extern const struct _mp_obj_type_t lan_type, lan_timer_type;
#define MICROPY_PORT_NETWORK_INTERFACES \
    { MP_ROM_QSTR(MP_QSTR_LAN), MP_ROM_PTR(&lan_type) }, \
    { MP_ROM_QSTR(MP_QSTR_WLAN), MP_ROM_PTR(&lan_type) }, \
    { MP_ROM_QSTR(MP_QSTR_STA_IF), MP_ROM_INT(0) }, \
    { MP_ROM_QSTR(MP_QSTR_AP_IF), MP_ROM_INT(1) },

extern const struct _mp_obj_fun_builtin_fixed_t lan_unique_id_obj, lan_set_time_obj;
#define MICROPY_PY_MACHINE_EXTRA_GLOBALS \
    { MP_ROM_QSTR(MP_QSTR_unique_id), MP_ROM_PTR(&lan_unique_id_obj) }, \
    { MP_ROM_QSTR(MP_QSTR_set_time), MP_ROM_PTR(&lan_set_time_obj) }, \
    { MP_ROM_QSTR(MP_QSTR_Timer), MP_ROM_PTR(&lan_timer_type) },

void mp_hal_get_random(size_t n, uint8_t *buf);
void lan_port_init(void);
uint32_t lan_random32(void);
void lan_wfe(void);
#define MICROPY_PORT_INIT_FUNC lan_port_init()
#define MICROPY_INTERNAL_WFE(TIMEOUT_MS) lan_wfe()

// As in mimxrt and stm32: an atomic section has interrupts off; lwIP and the soft timers run as
// PendSV, which BASEPRI keeps away.
static inline uint32_t lan_disable_irq(void) {
    uint32_t state;
    __asm volatile ("mrs %0, primask" : "=r" (state));
    __asm volatile ("cpsid i" ::: "memory");
    return state;
}
static inline void lan_enable_irq(uint32_t state) {
    __asm volatile ("msr primask, %0" :: "r" (state) : "memory");
}
#define LAN_PRI_PENDSV (0xf0)
static inline uint32_t lan_raise_pri(void) {
    uint32_t state;
    __asm volatile ("mrs %0, basepri" : "=r" (state));
    __asm volatile ("msr basepri_max, %0" :: "r" (LAN_PRI_PENDSV) : "memory");
    return state;
}
static inline void lan_restore_pri(uint32_t state) {
    __asm volatile ("msr basepri, %0" :: "r" (state) : "memory");
}
#define MICROPY_BEGIN_ATOMIC_SECTION() lan_disable_irq()
#define MICROPY_END_ATOMIC_SECTION(state) lan_enable_irq(state)
#define MICROPY_PY_PENDSV_ENTER uint32_t atomic_state = lan_raise_pri();
#define MICROPY_PY_PENDSV_REENTER atomic_state = lan_raise_pri();
#define MICROPY_PY_PENDSV_EXIT lan_restore_pri(atomic_state);
#define MICROPY_PY_LWIP_ENTER MICROPY_PY_PENDSV_ENTER
#define MICROPY_PY_LWIP_REENTER MICROPY_PY_PENDSV_REENTER
#define MICROPY_PY_LWIP_EXIT MICROPY_PY_PENDSV_EXIT
#ifndef __IO
#define __IO volatile
#endif
