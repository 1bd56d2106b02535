// The ESP32 port's socket module, unchanged. The three calls that ESP-IDF's C library passes on to
// lwIP get lwIP's names here, so that they do not reach this machine's C library.
#include <fcntl.h>
#include <limits.h>
#include <strings.h>
#include <sys/select.h>
#include <unistd.h>
#include "py/mpconfig.h"
#include "py/mphal.h"
#include "py/mpthread.h"
#include "lwip/sockets.h"
#include "lwip/netif.h"

// The module calls fcntl() with two arguments or with three.
#define FCNTL(fd, command, value, ...) lwip_fcntl(fd, command, value)
#define fcntl(...) FCNTL(__VA_ARGS__, 0, 0)
#define select lwip_select
#define getsockopt lwip_getsockopt

// As on the ESP32 (py/mpconfig.h); the unix port has another.
#undef MICROPY_PY_SOCKET_LISTEN_BACKLOG_DEFAULT
#define MICROPY_PY_SOCKET_LISTEN_BACKLOG_DEFAULT (2)

// The unix port is compiled with more warnings, as errors, than the ESP32's.
#pragma GCC diagnostic ignored "-Wextra"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wunused-variable"
#include "ports/esp32/modsocket.c"
