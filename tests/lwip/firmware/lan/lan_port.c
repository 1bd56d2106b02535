// Clock, interrupts and start: what ports/qemu lacks for a network stack in the background.
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "py/gc.h"
#include "py/mphal.h"
#include "py/runtime.h"
#include "py/stream.h"
#include "extmod/modnetwork.h"
#include "shared/runtime/interrupt_char.h"
#include "shared/runtime/pyexec.h"
#include "shared/runtime/softtimer.h"
#include "lwip/init.h"
#include "lwip/netif.h"
#include "lwip/timeouts.h"
#include "lan.h"

#define LWIP_POLL_MS (64) // as rp2

volatile uint32_t lan_ticks_ms;
static uint32_t vectors[64] __attribute__((aligned(256)));
static volatile bool is_poll_due;

// ---------------------------------------------------------------------------
// Clock and interrupts. Older versions of the port start no clock.
// ---------------------------------------------------------------------------
#define CPU_MHZ (25)
#define SYSTICK(offset) REG32(0xe000e010 + (offset))
#define COUNTER_US REG32(0x40028018) // FPGAIO's cycle counter, which is made to count microseconds
#define COUNTER_PRESCALE REG32(0x4002801c)

static void clock_start(void) {
    COUNTER_PRESCALE = CPU_MHZ - 1;
    COUNTER_US = 0;
    SYSTICK(4) = CPU_MHZ * 1000 - 1;
    SYSTICK(8) = 0;
    SYSTICK(0) = 7; // processor clock, interrupt, on
}

void lan_pend(void) {
    REG32(0xe000ed04) = 1 << 28; // ICSR: PENDSVSET
}

// Frames to our own address wait in their netif until somebody asks.
static bool is_loopback_due(void) {
    struct netif *n;
    NETIF_FOREACH(n) {
        if (n->loop_first) {
            return true;
        }
    }
    return false;
}

static void systick(void) {
    uint32_t before = lan_ticks_ms;
    uint32_t now = before;
    // A machine with much to do lets an interrupt come late, and two of them count as one.
    static uint32_t counted_us;
    for (uint32_t us = COUNTER_US; us - counted_us >= 1000; counted_us += 1000) {
        now++;
    }
    lan_ticks_ms = now;
    if (now / LWIP_POLL_MS != before / LWIP_POLL_MS) {
        is_poll_due = true;
        lan_pend();
    }
    bool is_timer_due = (int32_t)(soft_timer_next - before) > 0 && (int32_t)(soft_timer_next - now) <= 0;
    if (is_timer_due || is_loopback_due()) {
        lan_pend();
    }
}

static void pendsv(void) {
    if ((int32_t)(soft_timer_next - lan_ticks_ms) <= 0) {
        soft_timer_handler();
    }
    lan_eth_poll();
    netif_poll_all();
    if (is_poll_due) {
        is_poll_due = false;
        sys_check_timeouts();
    }
}

uint32_t sys_now(void) {
    return lan_ticks_ms;
}

// ---------------------------------------------------------------------------
// Time
// ---------------------------------------------------------------------------
mp_uint_t __wrap_mp_hal_ticks_ms(void) {
    return lan_ticks_ms;
}

mp_uint_t __wrap_mp_hal_ticks_us(void) {
    return COUNTER_US;
}

mp_uint_t __wrap_mp_hal_ticks_cpu(void) {
    return COUNTER_US * CPU_MHZ;
}

void __wrap_mp_hal_delay_us(mp_uint_t us) {
    uint32_t start = COUNTER_US;
    while (COUNTER_US - start < us) {
    }
}

// ---------------------------------------------------------------------------
// REPL on UART0, by interrupt: control-C stops a program as on a board
// ---------------------------------------------------------------------------
#define UART(offset) REG32(0x40004000 + (offset))
static uint8_t rx_ring[4096];
static volatile uint32_t rx_in, rx_out;

static void uart_rx_irq(void) {
    UART(0x0c) = 2; // RX interrupt
    while (UART(4) & 2) {
        if (rx_in - rx_out == sizeof(rx_ring)) {
            UART(8) &= ~8; // full: the sender waits until we enable it again
            return;
        }
        uint8_t c = UART(0);
        if (c == mp_interrupt_char) {
            mp_sched_keyboard_interrupt();
        } else {
            rx_ring[rx_in++ % sizeof(rx_ring)] = c;
        }
    }
}

int __wrap_mp_hal_stdin_rx_chr(void) {
    while (rx_in == rx_out) {
        mp_event_wait_indefinite();
    }
    uint32_t state = lan_disable_irq();
    int c = rx_ring[rx_out++ % sizeof(rx_ring)];
    if (!(UART(8) & 8)) {
        UART(8) |= 8;
        uart_rx_irq();
    }
    lan_enable_irq(state);
    return c;
}

uintptr_t __wrap_mp_hal_stdio_poll(uintptr_t flags) {
    uintptr_t ready = 0;
    if ((flags & MP_STREAM_POLL_RD) && rx_in != rx_out) {
        ready |= MP_STREAM_POLL_RD;
    }
    if (flags & MP_STREAM_POLL_WR) {
        ready |= MP_STREAM_POLL_WR;
    }
    return ready;
}

// ---------------------------------------------------------------------------
// Waiting
// ---------------------------------------------------------------------------
uint32_t lan_idle_us; // asleep since the start, interrupts not counted

void lan_wfe(void) {
    uint32_t state = lan_disable_irq(); // an interrupt ends the sleep, and runs after it
    uint32_t start = COUNTER_US;
    __asm volatile ("wfi");
    lan_idle_us += COUNTER_US - start;
    lan_enable_irq(state);
}

void __wrap_mp_hal_delay_ms(mp_uint_t ms) {
    uint32_t start = lan_ticks_ms;
    mp_event_handle_nowait();
    while (lan_ticks_ms - start < ms) {
        mp_event_wait_ms(1);
    }
}

// ---------------------------------------------------------------------------
// Random numbers and the time, from the host
// ---------------------------------------------------------------------------
static uint32_t random_state;

uint32_t lan_random32(void) {
    random_state ^= random_state << 13; // xorshift32, by Marsaglia: for tests, not for secrets
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state;
}

void __wrap_mp_hal_get_random(size_t n, uint8_t *buf) {
    for (size_t i = 0; i < n; ++i) {
        buf[i] = lan_random32() >> 16;
    }
}

uint32_t lan_seconds(void) {
    return LAN_HOST_TIME + lan_ticks_ms / 1000;
}

void lan_set_seconds(uint32_t seconds) {
    LAN_HOST_TIME = seconds - lan_ticks_ms / 1000;
}

uint64_t mp_hal_time_ns(void) {
    return (uint64_t)lan_seconds() * 1000000000;
}

// ---------------------------------------------------------------------------
// Start and end of the interpreter
// ---------------------------------------------------------------------------
static bool is_running, is_started;

// machine.reset(), and what becomes of an exception that nobody catches. The port's own ends QEMU.
// The NMI is the watchdog's.
NORETURN void lan_reset(void) {
    REG32(0xe000ed0c) = 0x05fa0004; // AIRCR: SYSRESETREQ
    for (;;) {
    }
}
NORETURN void __wrap_exit(int status) {
    lan_reset();
}

void lan_port_init(void) {
    if (!is_running) {
        is_running = true;
        random_state = LAN_HOST_SEED ? LAN_HOST_SEED : 0x12345678;
        memcpy(vectors, (void *)REG32(0xe000ed08), 16 * sizeof(uint32_t));
        for (size_t i = 16; i < MP_ARRAY_SIZE(vectors); ++i) {
            vectors[i] = vectors[3];
        }
        vectors[2] = (uint32_t)lan_reset;
        vectors[14] = (uint32_t)pendsv;
        vectors[15] = (uint32_t)systick;
        vectors[16 + 0] = (uint32_t)uart_rx_irq;
        vectors[16 + 13] = (uint32_t)lan_eth_irq;
        REG32(0xe000ed08) = (uint32_t)vectors; // VTOR
        REG32(0xe000ed20) = (REG32(0xe000ed20) & 0xff00ffff) | (LAN_PRI_PENDSV << 16); // SHPR3
        *(volatile uint8_t *)(0xe000e400 + 0) = 0x20;
        *(volatile uint8_t *)(0xe000e400 + 13) = 0xe0;
        __asm volatile ("dsb\nisb");
        clock_start();
        UART(8) |= 8; // RX interrupt
        lwip_init();
        lan_eth_init();
        REG32(0xe000e100) = 1 << 0 | 1 << 13;
        uint32_t state = lan_disable_irq();
        uart_rx_irq();
        lan_enable_irq(state);
    }
    is_started = false;
    mod_network_init();
}

// Runs once after each start: _boot.py mounts the file system; boot.py and main.py are the program's.
static void start(bool friendly) {
    if (!is_started) {
        is_started = true;
        pyexec_frozen_module("_boot.py", false);
        int ret = pyexec_file_if_exists("boot.py");
        if (friendly && !(ret & PYEXEC_FORCED_EXIT)) {
            pyexec_file_if_exists("main.py");
        }
    }
}

int __real_pyexec_raw_repl(void);
int __wrap_pyexec_raw_repl(void) {
    start(false);
    return __real_pyexec_raw_repl();
}

int __real_pyexec_friendly_repl(void);
int __wrap_pyexec_friendly_repl(void) {
    start(true);
    return __real_pyexec_friendly_repl();
}

// main.c calls this at a soft reset, and gc_collect() below it at every collection.
void __real_gc_sweep_all(void);
void __wrap_gc_sweep_all(void) {
    soft_timer_deinit();
    mod_network_deinit();
    __real_gc_sweep_all();
}

void __real_gc_helper_collect_regs_and_stack(void);
void __wrap_gc_helper_collect_regs_and_stack(void) {
    __real_gc_helper_collect_regs_and_stack();
    soft_timer_gc_mark_all();
}
