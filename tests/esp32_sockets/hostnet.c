// The network interface under lwIP, and a module for tests to look at it and to disturb it:
//     hostnet.drop(True)    frames vanish in both directions (out of reach of the access point)
//     hostnet.down(True)    the interface is down, as after Wi-Fi was left
//     hostnet.sockets()     the numbers of lwIP's sockets that are open
//     hostnet.forget()      TCP connections that we have closed no longer wait (TIME_WAIT): how many
// In the environment, HOSTNET_LOOPBACK=host makes 127.0.0.1 and ::1 this machine's; they are lwIP's
// own otherwise. This machine's are 10.0.2.2 and fec0::2 in any case.
// The DNS server of lwIP's getaddrinfo() is an address where nobody is: a call that should not
// have asked it takes long.
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "py/runtime.h"
#include "lwip/dns.h"
#include "lwip/etharp.h"
#include "lwip/ethip6.h"
#include "lwip/netif.h"
#include "lwip/priv/tcp_priv.h"
#include "lwip/sockets.h"
#include "lwip/tcpip.h"
#include "netif/ethernet.h"
#include "esp_netif.h"
#include "lwip_hooks.h"
#include "slirpnet.h"

static struct netif station;
static volatile bool is_dropping;
static bool is_loopback_passed_on;

// lwIP asks these where it finds no interface, and no router, for an address.
struct netif *hostnet_route(const ip4_addr_t *destination) {
    return is_loopback_passed_on && ip4_addr_isloopback(destination) ? &station : NULL;
}

struct netif *hostnet_route6(const ip6_addr_t *destination) {
    return is_loopback_passed_on && ip6_addr_isloopback(destination) ? &station : NULL;
}

const ip6_addr_t *hostnet_gateway6(const ip6_addr_t *destination) {
    static ip6_addr_t gateway;
    ip6addr_aton("fec0::2", &gateway);
    return &gateway;
}

static err_t transmit(struct netif *netif, struct pbuf *packet) {
    char frame[SLIRPNET_FRAME_BYTES_MAX];
    u16_t length = pbuf_copy_partial(packet, frame, sizeof(frame), 0);
    if (!is_dropping) {
        slirpnet_send(frame, length);
    }
    return ERR_OK;
}

static void receive(const void *frame, size_t length) {
    if (is_dropping) {
        return;
    }
    struct pbuf *packet = pbuf_alloc(PBUF_RAW, length, PBUF_POOL);
    if (packet != NULL) {
        pbuf_take(packet, frame, length);
        if (station.input(packet, &station) != ERR_OK) {
            pbuf_free(packet);
        }
    }
}

static err_t start_station(struct netif *netif) {
    static const u8_t address[] = {2, 0, 0, 0, 0, 15};
    memcpy(netif->hwaddr, address, sizeof(address));
    netif->hwaddr_len = sizeof(address);
    netif->mtu = 1500;
    netif->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET | NETIF_FLAG_LINK_UP;
    memcpy(netif->name, "st", 2);
    netif->output = etharp_output;
    netif->output_ip6 = ethip6_output;
    netif->linkoutput = transmit;
    return ERR_OK;
}

static void start(void *done) {
    ip4_addr_t address, mask, gateway;
    IP4_ADDR(&address, 10, 0, 2, 15);
    IP4_ADDR(&mask, 255, 255, 255, 0);
    IP4_ADDR(&gateway, 10, 0, 2, 2);
    netif_add(&station, &address, &mask, &gateway, NULL, start_station, tcpip_input);
    ip6_addr_t address6;
    ip6addr_aton("fec0::15", &address6);
    netif_ip6_addr_set(&station, 0, &address6);
    netif_ip6_addr_set_state(&station, 0, IP6_ADDR_PREFERRED);
    netif_set_default(&station);
    netif_set_up(&station);
    ip_addr_t server = IPADDR4_INIT_BYTES(10, 0, 2, 99);
    dns_setserver(0, &server);
    const char *loopback = getenv("HOSTNET_LOOPBACK");
    if (loopback != NULL && strcmp(loopback, "host") == 0) {
        // libslirp connects to 127.0.0.1 as it would to any other address.
        netif_set_down(netif_find("lo0"));
        is_loopback_passed_on = true;
    }
    slirpnet_start(receive);
    sys_sem_signal(done);
}

// The module calls this at its import.
esp_err_t esp_netif_init(void) {
    // All threads that begin here block all signals: a handler of MicroPython's must not run in
    // one that is not MicroPython's.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    sys_sem_t done;
    sys_sem_new(&done, 0);
    tcpip_init(start, &done);
    sys_arch_sem_wait(&done, 0);
    sys_sem_free(&done);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return ESP_OK;
}

static void set_down(void *is_down) {
    if (is_down) {
        netif_set_down(&station);
        netif_set_link_down(&station);
    } else {
        netif_set_up(&station);
        netif_set_link_up(&station);
    }
}

static mp_obj_t hostnet_drop(mp_obj_t is_wanted) {
    is_dropping = mp_obj_is_true(is_wanted);
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(hostnet_drop_obj, hostnet_drop);

static mp_obj_t hostnet_down(mp_obj_t is_wanted) {
    tcpip_callback(set_down, (void *)(uintptr_t)mp_obj_is_true(is_wanted));
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(hostnet_down_obj, hostnet_down);

struct forgetting {
    sys_sem_t done;
    int count;
};

static void forget(void *opaque) {
    struct forgetting *forgetting = opaque;
    for (; tcp_tw_pcbs != NULL; forgetting->count++) {
        tcp_abort(tcp_tw_pcbs);
    }
    sys_sem_signal(&forgetting->done);
}

static mp_obj_t hostnet_forget(void) {
    struct forgetting forgetting = {.count = 0};
    sys_sem_new(&forgetting.done, 0);
    tcpip_callback(forget, &forgetting);
    sys_arch_sem_wait(&forgetting.done, 0);
    sys_sem_free(&forgetting.done);
    return MP_OBJ_NEW_SMALL_INT(forgetting.count);
}
static MP_DEFINE_CONST_FUN_OBJ_0(hostnet_forget_obj, hostnet_forget);

static mp_obj_t hostnet_sockets(void) {
    mp_obj_t numbers = mp_obj_new_list(0, NULL);
    for (int fd = LWIP_SOCKET_OFFSET; fd < LWIP_SOCKET_OFFSET + MEMP_NUM_NETCONN; fd++) {
        if (lwip_fcntl(fd, F_GETFL, 0) != -1) {
            mp_obj_list_append(numbers, MP_OBJ_NEW_SMALL_INT(fd));
        }
    }
    return numbers;
}
static MP_DEFINE_CONST_FUN_OBJ_0(hostnet_sockets_obj, hostnet_sockets);

static const mp_rom_map_elem_t hostnet_globals_table[] = {
    { MP_ROM_QSTR(MP_QSTR___name__), MP_ROM_QSTR(MP_QSTR_hostnet) },
    { MP_ROM_QSTR(MP_QSTR_drop), MP_ROM_PTR(&hostnet_drop_obj) },
    { MP_ROM_QSTR(MP_QSTR_down), MP_ROM_PTR(&hostnet_down_obj) },
    { MP_ROM_QSTR(MP_QSTR_sockets), MP_ROM_PTR(&hostnet_sockets_obj) },
    { MP_ROM_QSTR(MP_QSTR_forget), MP_ROM_PTR(&hostnet_forget_obj) },
};
static MP_DEFINE_CONST_DICT(hostnet_globals, hostnet_globals_table);

const mp_obj_module_t hostnet_module = {
    .base = { &mp_type_module },
    .globals = (mp_obj_dict_t *)&hostnet_globals,
};
MP_REGISTER_MODULE(MP_QSTR_hostnet, hostnet_module);

void hostnet_wait_tick(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    usleep(10000 - now.tv_nsec / 1000 % 10000);
}
