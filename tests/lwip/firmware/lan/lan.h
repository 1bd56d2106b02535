#pragma once
#include <stdbool.h>
#include <stdint.h>

#define REG32(address) (*(volatile uint32_t *)(address))

// What QEMU's `-device loader` puts at the end of the PSRAM: a seed, and the time.
#define LAN_HOST_SEED REG32(0x21fffff8)
#define LAN_HOST_TIME REG32(0x21fffffc)

struct netif;

// lan_port.c
extern volatile uint32_t lan_ticks_ms;
extern uint32_t lan_idle_us; // asleep since the start, interrupts not counted
uint32_t lan_seconds(void);
void lan_set_seconds(uint32_t seconds);
void lan_pend(void);

// lan_eth.c
extern bool lan_watch_phy; // false: a cable that is out shows as silence only
extern uint32_t lan_lose_percent; // of the frames, in both directions
extern uint32_t lan_frames_in, lan_frames_out, lan_frames_lost;
bool lan_eth_init(void); // false: no such chip
void lan_eth_irq(void);
void lan_eth_poll(void); // at PendSV's priority
bool lan_eth_is_link_up(void);
void lan_eth_set_active(bool active);
bool lan_eth_is_active(void);
struct netif *lan_eth_netif(void);
