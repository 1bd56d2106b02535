// See slirpnet.h. libslirp ends the board's TCP connections and opens ones of this machine; it
// needs no privileges. Its network: 10.0.2.0/24, this machine is 10.0.2.2, the board 10.0.2.15; and
// fec0::/64, where they are fec0::2 and fec0::15.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <slirp/libslirp.h>
#include "slirpnet.h"

// libslirp keeps the socket of a datagram, a query of DNS, for four minutes.
#define POLLS_MAX (2048)

static void (*receive_frame)(const void *frame, size_t length);
static int ends[2]; // of a socket pair for frames: [0] is lwIP's, [1] is libslirp's

// ---------------------------------------------------------------------------
// libslirp's process
// ---------------------------------------------------------------------------

static struct pollfd polls[POLLS_MAX];
static int polls_count;

static ssize_t on_packet(const void *frame, size_t length, void *opaque) {
    // If there is no room the frame is lost, as on any Ethernet.
    send(ends[1], frame, length, MSG_DONTWAIT);
    return length;
}

static void on_guest_error(const char *text, void *opaque) {
}

static int64_t clock_ns(void *opaque) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

// Only router advertisements (IPv6) would use timers: the board needs none.
static void *timer_new(SlirpTimerCb callback, void *argument, void *opaque) {
    return malloc(1);
}

static void timer_free(void *timer, void *opaque) {
    free(timer);
}

static void timer_mod(void *timer, int64_t expire, void *opaque) {
}

static void ignore_fd(int fd, void *opaque) {
}

static void ignore(void *opaque) {
}

static int add_poll(int fd, int events, void *opaque) {
    if (polls_count == POLLS_MAX) {
        abort();
    }
    short wanted = (events & SLIRP_POLL_IN ? POLLIN : 0) | (events & SLIRP_POLL_OUT ? POLLOUT : 0)
        | (events & SLIRP_POLL_PRI ? POLLPRI : 0);
    polls[polls_count] = (struct pollfd) {.fd = fd, .events = wanted};
    return polls_count++;
}

static int get_events(int index, void *opaque) {
    short found = polls[index].revents;
    return (found & POLLIN ? SLIRP_POLL_IN : 0) | (found & POLLOUT ? SLIRP_POLL_OUT : 0)
           | (found & POLLPRI ? SLIRP_POLL_PRI : 0) | (found & POLLERR ? SLIRP_POLL_ERR : 0)
           | (found & POLLHUP ? SLIRP_POLL_HUP : 0);
}

static void serve(void) {
    static const SlirpCb callbacks = {
        .send_packet = on_packet,
        .guest_error = on_guest_error,
        .clock_get_ns = clock_ns,
        .timer_new = timer_new,
        .timer_free = timer_free,
        .timer_mod = timer_mod,
        .register_poll_fd = ignore_fd,
        .unregister_poll_fd = ignore_fd,
        .notify = ignore,
    };
    SlirpConfig config = {.version = 1, .in_enabled = true, .in6_enabled = true};
    inet_aton("10.0.2.0", &config.vnetwork);
    inet_aton("255.255.255.0", &config.vnetmask);
    inet_aton("10.0.2.2", &config.vhost);
    inet_aton("10.0.2.15", &config.vdhcp_start);
    inet_aton("10.0.2.3", &config.vnameserver);
    inet_pton(AF_INET6, "fec0::", &config.vprefix_addr6);
    config.vprefix_len = 64;
    inet_pton(AF_INET6, "fec0::2", &config.vhost6);
    inet_pton(AF_INET6, "fec0::3", &config.vnameserver6);
    Slirp *slirp = slirp_new(&config, &callbacks, NULL);
    for (;;) {
        static char frame[SLIRPNET_FRAME_BYTES_MAX];
        uint32_t timeout = 1000;
        polls_count = 0;
        add_poll(ends[1], SLIRP_POLL_IN, NULL);
        slirp_pollfds_fill(slirp, &timeout, add_poll, NULL);
        int ready = poll(polls, polls_count, timeout);
        slirp_pollfds_poll(slirp, ready < 0, get_events, NULL);
        ssize_t length;
        while ((length = recv(ends[1], frame, sizeof(frame), MSG_DONTWAIT)) > 0) {
            slirp_input(slirp, (uint8_t *)frame, length);
        }
        if (length == 0) {
            _exit(0); // MicroPython has ended, in whatever way
        }
    }
}

// ---------------------------------------------------------------------------
// MicroPython's process
// ---------------------------------------------------------------------------

static void *deliver(void *opaque) {
    static char frame[SLIRPNET_FRAME_BYTES_MAX];
    ssize_t length;
    while ((length = recv(ends[0], frame, sizeof(frame), 0)) > 0) {
        receive_frame(frame, length);
    }
    return NULL;
}

void slirpnet_start(void (*receive)(const void *frame, size_t length)) {
    pthread_t thread;
    receive_frame = receive;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends)) {
        abort();
    }
    // A process of its own: its sockets are not among those of MicroPython's process, and a
    // MicroPython that is stopped (SIGSTOP) has a network that goes on.
    if (fork() == 0) {
        // Not the standard streams either: who waits for their end waits for MicroPython's.
        for (int fd = 0; fd < 1024; fd++) {
            if (fd != ends[1]) {
                close(fd);
            }
        }
        for (int fd = 0; fd < 3; fd++) {
            open("/dev/null", O_RDWR);
        }
        struct rlimit files;
        if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
            files.rlim_cur = files.rlim_max;
            setrlimit(RLIMIT_NOFILE, &files);
        }
        serve();
    }
    close(ends[1]);
    if (pthread_create(&thread, NULL, deliver, NULL)) {
        abort();
    }
}

void slirpnet_send(const void *frame, size_t length) {
    send(ends[0], frame, length, MSG_DONTWAIT);
}
