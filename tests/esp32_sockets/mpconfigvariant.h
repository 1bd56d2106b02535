// The unix port with the ESP32 port's own socket module, and what of the ESP32 that module shows.
#define MICROPY_CONFIG_ROM_LEVEL (MICROPY_CONFIG_ROM_LEVEL_EXTRA_FEATURES)
#define MICROPY_PY_SYS_PLATFORM "esp32"
#define MICROPY_HW_ENABLE_MDNS_QUERIES (0)
#define MICROPY_PY_SOCKET_EVENTS (0)
// The numbers of errors are the C library's: newlib's, see include/newlib_errno.h.
#define MICROPY_USE_INTERNAL_ERRNO (0)
#define MICROPY_PY_THREAD_GIL_VM_DIVISOR (32)
#include "ports/unix/variants/mpconfigvariant_common.h"

// poll() asks each stream in turn, then sleeps until the next tick of FreeRTOS (100 a second),
// whatever the network does meanwhile.
#undef MICROPY_PY_SELECT_POSIX_OPTIMISATIONS
#define MICROPY_PY_SELECT_POSIX_OPTIMISATIONS (0)
void hostnet_wait_tick(void);
#define MICROPY_EVENT_POLL_HOOK \
    do { \
        extern void mp_handle_pending(bool); \
        mp_handle_pending(true); \
        MP_THREAD_GIL_EXIT(); \
        hostnet_wait_tick(); \
        MP_THREAD_GIL_ENTER(); \
    } while (0);
