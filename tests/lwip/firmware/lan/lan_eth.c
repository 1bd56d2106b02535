// SMSC LAN9118 at 0x40200000, as QEMU's mps2-an385 has it, as a netif of lwIP.
#include <string.h>

#include "py/mphal.h"
#include "py/runtime.h"
#include "extmod/modnetwork.h"
#include "lwip/dhcp.h"
#include "lwip/etharp.h"
#include "lwip/netif.h"
#include "netif/ethernet.h"
#include "lan.h"

#define LAN(offset) REG32(0x40200000 + (offset))
enum {
    RX_DATA = 0x00, TX_DATA = 0x20, RX_STATUS = 0x40, TX_STATUS = 0x48, IRQ_CFG = 0x54,
    INT_STS = 0x58, INT_EN = 0x5c, BYTE_TEST = 0x64, FIFO_INT = 0x68, RX_CFG = 0x6c, TX_CFG = 0x70,
    HW_CFG = 0x74, RX_FIFO_INF = 0x7c, TX_FIFO_INF = 0x80, MAC_CMD = 0xa4, MAC_DATA = 0xa8,
};
#define RSFL (1 << 3) // the interrupt "a frame is there"
#define PHY_LOOK_MS (100)

bool lan_watch_phy = true;
uint32_t lan_lose_percent;
uint32_t lan_frames_in, lan_frames_out, lan_frames_lost;
static bool is_present, is_active;
static struct netif netif;
static struct dhcp dhcp;
static uint32_t frame_in[400], frame_out[400];

// A sequence of its own, the same at each start: a test that loses frames can be repeated.
static bool is_frame_to_lose(void) {
    static uint32_t state = 12345;
    if (lan_lose_percent == 0) {
        return false;
    }
    state = state * 1103515245 + 12345;
    return (state >> 16) % 100 < lan_lose_percent;
}

static void mac_wait(void) {
    while (LAN(MAC_CMD) & (1u << 31)) {
    }
}
static uint32_t mac_read(uint32_t reg) {
    mac_wait();
    LAN(MAC_CMD) = 3u << 30 | reg;
    mac_wait();
    return LAN(MAC_DATA);
}
static void mac_write(uint32_t reg, uint32_t value) {
    mac_wait();
    LAN(MAC_DATA) = value;
    LAN(MAC_CMD) = 1u << 31 | reg;
    mac_wait();
}
static uint32_t phy_read(uint32_t reg) {
    mac_write(6, 1 << 11 | reg << 6 | 1);
    return mac_read(7);
}

bool lan_eth_is_link_up(void) {
    return is_present && (phy_read(1) & 4);
}

// Within PendSV, or with it kept away: nobody else writes to the FIFO meanwhile.
static err_t output(struct netif *n, struct pbuf *p) {
    uint32_t len = p->tot_len;
    if (len > sizeof(frame_out) || (LAN(TX_FIFO_INF) & 0xffff) < len + 16) {
        lan_frames_lost++;
        return ERR_BUF;
    }
    if (is_frame_to_lose()) {
        lan_frames_lost++;
        return ERR_OK;
    }
    pbuf_copy_partial(p, frame_out, len, 0);
    LAN(TX_DATA) = 1 << 13 | 1 << 12 | len; // first and last piece
    LAN(TX_DATA) = len;
    for (uint32_t i = 0; i < (len + 3) / 4; ++i) {
        LAN(TX_DATA) = frame_out[i];
    }
    lan_frames_out++;
    while (LAN(TX_FIFO_INF) >> 16 & 0xff) {
        (void)LAN(TX_STATUS);
    }
    return ERR_OK;
}

static err_t init(struct netif *n) {
    n->linkoutput = output;
    n->output = etharp_output;
    n->mtu = 1500;
    n->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET | NETIF_FLAG_IGMP;
    NETIF_SET_CHECKSUM_CTRL(n, NETIF_CHECKSUM_ENABLE_ALL);
    return ERR_OK;
}

bool lan_eth_init(void) {
    is_present = LAN(BYTE_TEST) == 0x87654321;
    if (!is_present) {
        return false;
    }
    LAN(HW_CFG) = 1; // reset
    while (LAN(HW_CFG) & 1) {
    }
    LAN(HW_CFG) = 1 << 20 | 5 << 16; // store and forward; 5 KB for sending
    LAN(FIFO_INT) = 0;
    LAN(INT_EN) = 0;
    LAN(INT_STS) = 0xffffffff;
    LAN(RX_CFG) = 0;
    LAN(TX_CFG) = 1 << 1; // on
    uint32_t high = mac_read(2), low = mac_read(3);
    uint8_t mac[6] = {low, low >> 8, low >> 16, low >> 24, high, high >> 8};
    memcpy(netif.hwaddr, mac, 6);
    netif.hwaddr_len = 6;
    mac_write(1, 1 << 2 | 1 << 3 | 1 << 20); // receive, send, full duplex
    LAN(IRQ_CFG) = 1 << 8 | 1 << 4 | 1 << 0;
    return true;
}

void lan_eth_irq(void) {
    LAN(INT_EN) = 0; // until the frames are read
    lan_pend();
}

static struct pbuf *read_frame(void) {
    uint32_t status = LAN(RX_STATUS);
    uint32_t len = status >> 16 & 0x3fff; // with the checksum
    for (uint32_t i = 0; i < (len + 3) / 4; ++i) {
        uint32_t word = LAN(RX_DATA);
        if (i < MP_ARRAY_SIZE(frame_in)) {
            frame_in[i] = word;
        }
    }
    len -= 4;
    if (status & 1 << 15 || len > sizeof(frame_in) || is_frame_to_lose()) {
        return NULL;
    }
    struct pbuf *p = pbuf_alloc(PBUF_RAW, len, PBUF_POOL);
    if (p != NULL) {
        pbuf_take(p, frame_in, len);
    }
    return p;
}

static void look_at_phy(void) {
    static uint32_t last;
    if (lan_watch_phy && lan_ticks_ms - last >= PHY_LOOK_MS) {
        last = lan_ticks_ms;
        if (lan_eth_is_link_up()) {
            netif_set_link_up(&netif);
        } else {
            netif_set_link_down(&netif);
        }
    }
}

void lan_eth_poll(void) {
    if (!is_present || !is_active) {
        return;
    }
    while (LAN(RX_FIFO_INF) >> 16 & 0xff) {
        struct pbuf *p = read_frame();
        if (p == NULL) {
            lan_frames_lost++;
            continue;
        }
        lan_frames_in++;
        if (netif.input(p, &netif) != ERR_OK) {
            pbuf_free(p);
        }
    }
    LAN(INT_STS) = 0xffffffff;
    LAN(INT_EN) = RSFL;
    if (LAN(RX_FIFO_INF) >> 16 & 0xff) {
        lan_pend(); // it came in between
    }
    look_at_phy();
}

void lan_eth_set_active(bool active) {
    if (active == is_active) {
        return;
    }
    MICROPY_PY_LWIP_ENTER
    if (active) {
        ip_addr_t none;
        IP4_ADDR(&none, 0, 0, 0, 0);
        netif.name[0] = 'e';
        netif.name[1] = '0';
        netif_add(&netif, &none, &none, &none, NULL, init, ethernet_input);
        netif_set_hostname(&netif, mod_network_hostname_data);
        netif_set_default(&netif);
        netif_set_up(&netif);
        dhcp_set_struct(&netif, &dhcp);
        dhcp_start(&netif);
        if (lan_eth_is_link_up()) {
            netif_set_link_up(&netif);
        }
        LAN(INT_EN) = RSFL;
    } else {
        LAN(INT_EN) = 0;
        dhcp_stop(&netif);
        netif_remove(&netif);
        memset(netif.client_data, 0, sizeof(netif.client_data));
        netif.flags = 0;
    }
    is_active = active;
    MICROPY_PY_LWIP_EXIT
}

bool lan_eth_is_active(void) {
    return is_active;
}

struct netif *lan_eth_netif(void) {
    return &netif;
}
