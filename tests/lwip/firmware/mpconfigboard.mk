# MicroPython's ports/qemu on the machine mps2-an385 (Cortex-M3), with what a board on a network has
# and that port lacks: lwIP on QEMU's LAN9118, mbedTLS, littlefs, machine.Timer, asyncio. Nothing in
# MicroPython's tree is changed: this folder is BOARD_DIR, lan/ is a user C module, and `ld --wrap`
# puts our functions before the port's own.
HERE := $(patsubst %/,%,$(dir $(abspath $(lastword $(MAKEFILE_LIST)))))

QEMU_ARCH = arm
QEMU_MACHINE = mps2-an385

# What a Pico W leaves to a program, about.
MICROPY_HEAP_SIZE ?= 192512
MICROPY_STACK_SIZE ?= 8192

CFLAGS += -mthumb -mcpu=cortex-m3 -mfloat-abi=soft
CFLAGS += -DQEMU_SOC_MPS2
CFLAGS += -DMICROPY_HW_MCU_NAME='"Cortex-M3"'
CFLAGS += -DMP_CONFIGFILE='"mpconfig_board.h"'
CFLAGS += -I$(HERE) -I$(HERE)/lan

MICROPY_HW_ROMFS_PART0_START = 0x21000000
MICROPY_HW_ROMFS_PART0_SIZE = 0x00400000

LDSCRIPT = $(HERE)/board.ld
SRC_C += shared/runtime/softtimer.c shared/timeutils/timeutils.c
SRC_BOARD_O = shared/runtime/gchelper_native.o shared/runtime/gchelper_thumb2.o
MPY_CROSS_FLAGS += -march=armv7m

MICROPY_PY_LWIP = 1
MICROPY_PY_LWIP_LOOPBACK = 1
MICROPY_PY_SSL = 1
MICROPY_SSL_MBEDTLS = 1
MICROPY_VFS_LFS2 = 1
FROZEN_MANIFEST ?= $(HERE)/manifest.py
USER_C_MODULES = $(HERE)

WRAPPED = exit gc_helper_collect_regs_and_stack gc_sweep_all mp_hal_delay_ms mp_hal_delay_us \
	mp_hal_get_random mp_hal_stdin_rx_chr mp_hal_stdio_poll mp_hal_ticks_cpu mp_hal_ticks_ms \
	mp_hal_ticks_us pyexec_friendly_repl pyexec_raw_repl
comma := ,
# Some versions of the port link with ld, some with gcc.
ifeq ($(shell grep -cF '(Q)$$(LD) $$(LDFLAGS)' Makefile),0)
LDFLAGS += $(addprefix -Wl$(comma)--wrap=,$(WRAPPED))
else
LDFLAGS += $(addprefix --wrap=,$(WRAPPED))
endif
QSTR_GLOBAL_DEPENDENCIES += $(HERE)/mpconfig_board.h
