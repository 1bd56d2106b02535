// What lwIP asks, see LWIP_HOOK_FILENAME in lwipopts.h. hostnet.c answers.
#pragma once
#include "lwip/ip4_addr.h"
struct netif *hostnet_route(const ip4_addr_t *destination);
