// network.LAN, also named WLAN, so that programs for a Wi-Fi board find it.
#include <string.h>

#include "py/mphal.h"
#include "py/runtime.h"
#include "extmod/modnetwork.h"
#include "lwip/dhcp.h"
#include "lwip/netif.h"
#include "lan.h"

extern const mp_obj_type_t lan_type;
static const mp_obj_base_t lan = {&lan_type};

static mp_obj_t lan_make_new(const mp_obj_type_t *type, size_t n_args, size_t n_kw, const mp_obj_t *args) {
    mp_arg_check_num(n_args, n_kw, 0, 1, false);
    mod_network_register_nic(MP_OBJ_FROM_PTR(&lan));
    return MP_OBJ_FROM_PTR(&lan);
}

static bool is_connected(void) {
    struct netif *n = lan_eth_netif();
    return lan_eth_is_active() && netif_is_link_up(n) && n->ip_addr.addr != 0;
}

static mp_obj_t lan_active(size_t n_args, const mp_obj_t *args) {
    if (n_args == 1) {
        return mp_obj_new_bool(lan_eth_is_active());
    }
    lan_eth_set_active(mp_obj_is_true(args[1]));
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(lan_active_obj, 1, 2, lan_active);

static mp_obj_t lan_connect(size_t n_args, const mp_obj_t *args) {
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_VAR(lan_connect_obj, 1, lan_connect);

static mp_obj_t lan_isconnected(mp_obj_t self) {
    return mp_obj_new_bool(is_connected());
}
static MP_DEFINE_CONST_FUN_OBJ_1(lan_isconnected_obj, lan_isconnected);

// As on the Pico W: 3 with an address, 2 without one yet, 0 link down. status("rssi") is asked of
// Wi-Fi, and is answered like a good signal.
static mp_obj_t lan_status(size_t n_args, const mp_obj_t *args) {
    if (n_args == 2) {
        return MP_OBJ_NEW_SMALL_INT(-50);
    }
    int status = 0;
    if (lan_eth_is_active() && netif_is_link_up(lan_eth_netif())) {
        status = is_connected() ? 3 : 2;
    }
    return MP_OBJ_NEW_SMALL_INT(status);
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(lan_status_obj, 1, 2, lan_status);

static mp_obj_t lan_ifconfig(size_t n_args, const mp_obj_t *args) {
    return mod_network_nic_ifconfig(lan_eth_netif(), n_args - 1, args + 1);
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(lan_ifconfig_obj, 1, 2, lan_ifconfig);

static mp_obj_t lan_ipconfig(size_t n_args, const mp_obj_t *args, mp_map_t *kwargs) {
    return mod_network_nic_ipconfig(lan_eth_netif(), n_args - 1, args + 1, kwargs);
}
static MP_DEFINE_CONST_FUN_OBJ_KW(lan_ipconfig_obj, 1, lan_ipconfig);

// To be set: watch_phy (False: a cable that is out shows as silence only), lose (per cent of the
// frames, in both directions); pm and others of a Wi-Fi chip are taken and do nothing. To be read:
// mac, frames (in, out, lost), idle_us (microseconds asleep, interrupts not counted).
static mp_obj_t lan_config(size_t n_args, const mp_obj_t *args, mp_map_t *kwargs) {
    mp_map_elem_t *watch = mp_map_lookup(kwargs, MP_OBJ_NEW_QSTR(MP_QSTR_watch_phy), MP_MAP_LOOKUP);
    if (watch) {
        lan_watch_phy = mp_obj_is_true(watch->value);
    }
    mp_map_elem_t *lose = mp_map_lookup(kwargs, MP_OBJ_NEW_QSTR(MP_QSTR_lose), MP_MAP_LOOKUP);
    if (lose) {
        lan_lose_percent = mp_obj_get_int(lose->value);
    }
    if (n_args == 1) {
        return mp_const_none;
    }
    switch (mp_obj_str_get_qstr(args[1])) {
        case MP_QSTR_mac:
            return mp_obj_new_bytes(lan_eth_netif()->hwaddr, 6);
        case MP_QSTR_frames: {
            mp_obj_t items[3] = {
                mp_obj_new_int_from_uint(lan_frames_in),
                mp_obj_new_int_from_uint(lan_frames_out),
                mp_obj_new_int_from_uint(lan_frames_lost),
            };
            return mp_obj_new_tuple(3, items);
        }
        case MP_QSTR_idle_us:
            return MP_OBJ_NEW_SMALL_INT(lan_idle_us & 0x3fffffff); // as ticks_us() wraps
        default:
            mp_raise_ValueError(MP_ERROR_TEXT("unknown config param"));
    }
}
static MP_DEFINE_CONST_FUN_OBJ_KW(lan_config_obj, 1, lan_config);

static const mp_rom_map_elem_t lan_locals_dict_table[] = {
    { MP_ROM_QSTR(MP_QSTR_active), MP_ROM_PTR(&lan_active_obj) },
    { MP_ROM_QSTR(MP_QSTR_connect), MP_ROM_PTR(&lan_connect_obj) },
    { MP_ROM_QSTR(MP_QSTR_disconnect), MP_ROM_PTR(&lan_connect_obj) },
    { MP_ROM_QSTR(MP_QSTR_isconnected), MP_ROM_PTR(&lan_isconnected_obj) },
    { MP_ROM_QSTR(MP_QSTR_status), MP_ROM_PTR(&lan_status_obj) },
    { MP_ROM_QSTR(MP_QSTR_ifconfig), MP_ROM_PTR(&lan_ifconfig_obj) },
    { MP_ROM_QSTR(MP_QSTR_ipconfig), MP_ROM_PTR(&lan_ipconfig_obj) },
    { MP_ROM_QSTR(MP_QSTR_config), MP_ROM_PTR(&lan_config_obj) },
};
static MP_DEFINE_CONST_DICT(lan_locals_dict, lan_locals_dict_table);

MP_DEFINE_CONST_OBJ_TYPE(
    lan_type, MP_QSTR_LAN, MP_TYPE_FLAG_NONE,
    make_new, lan_make_new,
    locals_dict, &lan_locals_dict
    );

// machine.unique_id(): the MAC address, of which QEMU gives each board its own if asked to.
static mp_obj_t lan_unique_id(void) {
    uint8_t id[8] = {0xe6, 0x60};
    memcpy(id + 2, lan_eth_netif()->hwaddr, 6);
    return mp_obj_new_bytes(id, sizeof(id));
}
MP_DEFINE_CONST_FUN_OBJ_0(lan_unique_id_obj, lan_unique_id);

// machine.set_time(), for RTC in frozen/machine.py.
static mp_obj_t lan_set_time(mp_obj_t seconds) {
    lan_set_seconds(mp_obj_get_int_truncated(seconds));
    return mp_const_none;
}
MP_DEFINE_CONST_FUN_OBJ_1(lan_set_time_obj, lan_set_time);
