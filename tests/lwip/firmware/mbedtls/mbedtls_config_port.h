#ifndef LAN_MBEDTLS_CONFIG_H
#define LAN_MBEDTLS_CONFIG_H
#include <time.h>
time_t lan_time(time_t *timer);
#define MBEDTLS_ECP_NIST_OPTIM
#define MBEDTLS_PLATFORM_TIME_MACRO lan_time
#define MBEDTLS_PLATFORM_MS_TIME_ALT mbedtls_ms_time
#define MICROPY_MBEDTLS_CONFIG_BARE_METAL (1)
#include "extmod/mbedtls/mbedtls_config_common.h"
#endif
