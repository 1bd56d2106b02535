#include <stdint.h>
extern uint32_t lan_random32(void);
#define LWIP_NETIF_EXT_STATUS_CALLBACK 1
#define LWIP_IPV6 0
#define LWIP_RAND() lan_random32()
#include "extmod/lwip-include/lwipopts_common.h" // as rp2, stm32 and mimxrt have it
