// What lwIP asks, see LWIP_HOOK_FILENAME in lwipopts.h. hostnet.c answers.
#pragma once
#include "lwip/ip4_addr.h"
#include "lwip/ip6_addr.h"
struct netif *hostnet_route(const ip4_addr_t *destination);
struct netif *hostnet_route6(const ip6_addr_t *destination);
const ip6_addr_t *hostnet_gateway6(const ip6_addr_t *destination);
