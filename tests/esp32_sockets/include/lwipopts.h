// lwIP as ESP-IDF configures it for MicroPython: ESP-IDF's own defaults, and what MicroPython's
// boards/sdkconfig.base changes. Read in ESP-IDF 5's components/lwip/Kconfig and
// port/include/lwipopts.h, 2026-11-28. What is not here has lwIP's default in ESP-IDF as well.
//
//   option of ESP-IDF (CONFIG_LWIP_...)  default  option of lwIP
//   MAX_SOCKETS                               10  MEMP_NUM_NETCONN
//   MAX_ACTIVE_TCP                            16  MEMP_NUM_TCP_PCB; MicroPython: 12
//   MAX_LISTENING_TCP                         16  MEMP_NUM_TCP_PCB_LISTEN
//   MAX_UDP_PCBS                              16  MEMP_NUM_UDP_PCB
//   MAX_RAW_PCBS                              16  MEMP_NUM_RAW_PCB
//   TCPIP_RECVMBOX_SIZE                       32  TCPIP_MBOX_SIZE
//   TCP_RECVMBOX_SIZE                          6  DEFAULT_TCP_RECVMBOX_SIZE
//   TCP_ACCEPTMBOX_SIZE                        6  DEFAULT_ACCEPTMBOX_SIZE
//   UDP_RECVMBOX_SIZE                          6  DEFAULT_UDP_RECVMBOX_SIZE
//   TCP_MSS                                 1440  TCP_MSS
//   TCP_SND_BUF_DEFAULT                     5760  TCP_SND_BUF
//   TCP_WND_DEFAULT                         5760  TCP_WND
//   TCP_MAXRTX                                12  TCP_MAXRTX
//   TCP_SYNMAXRTX                             12  TCP_SYNMAXRTX
//   TCP_RTO_TIME                            1500  LWIP_TCP_RTO_TIME
//   TCP_TMR_INTERVAL                         250  TCP_TMR_INTERVAL
//   TCP_MSL                                60000  TCP_MSL
//   TCP_FIN_WAIT_TIMEOUT                   20000  TCP_FIN_WAIT_TIMEOUT
//   TCP_OVERSIZE                             MSS  TCP_OVERSIZE
//   TCP_QUEUE_OOSEQ                            y  TCP_QUEUE_OOSEQ
//   TCP_OOSEQ_MAX_PBUFS                        4  TCP_OOSEQ_MAX_PBUFS
//   SO_REUSE, SO_REUSE_RXTOALL                 y  the same
//   SO_LINGER, SO_RCVBUF                       n  LWIP_SO_LINGER, LWIP_SO_RCVBUF
//   LOOPBACK_MAX_PBUFS                         8  LWIP_LOOPBACK_MAX_PBUFS
//   IP4_REASSEMBLY, IP6_REASSEMBLY             n  IP_REASSEMBLY, LWIP_IPV6_REASS
//   CHECKSUM_CHECK_IP, CHECKSUM_CHECK_UDP      n  CHECKSUM_CHECK_IP, CHECKSUM_CHECK_UDP
//   IPV6                                       y  LWIP_IPV6
//   IPV6_NUM_ADDRESSES                         3  LWIP_IPV6_NUM_ADDRESSES
//   DNS_MAX_SERVERS                            3  DNS_MAX_SERVERS
//   TCPIP_CORE_LOCKING                         n  LWIP_TCPIP_CORE_LOCKING
//   ESP_LWIP_ASSERT                            y  LWIP_NOASSERT; MicroPython: no assertions
#pragma once
#include <fcntl.h>
#include <sys/select.h>

#define MEMP_NUM_NETCONN 10
#define MEMP_NUM_TCP_PCB 12
#define MEMP_NUM_TCP_PCB_LISTEN 16
#define MEMP_NUM_UDP_PCB 16
#define MEMP_NUM_RAW_PCB 16
#define TCPIP_MBOX_SIZE 32
#define DEFAULT_TCP_RECVMBOX_SIZE 6
#define DEFAULT_ACCEPTMBOX_SIZE 6
#define DEFAULT_UDP_RECVMBOX_SIZE 6
#define DEFAULT_RAW_RECVMBOX_SIZE 6
#define TCP_MSS 1440
#define TCP_SND_BUF 5760
#define TCP_WND 5760
#define TCP_MAXRTX 12
#define TCP_SYNMAXRTX 12
#define LWIP_TCP_RTO_TIME 1500
#define TCP_TMR_INTERVAL 250
#define TCP_MSL 60000
#define TCP_FIN_WAIT_TIMEOUT 20000
#define TCP_OVERSIZE TCP_MSS
#define TCP_QUEUE_OOSEQ 1
#define TCP_OOSEQ_MAX_PBUFS 4
#define SO_REUSE 1
#define SO_REUSE_RXTOALL 1
#define LWIP_SO_LINGER 0
#define LWIP_SO_RCVBUF 0
#define LWIP_LOOPBACK_MAX_PBUFS 8
#define IP_REASSEMBLY 0
#define LWIP_IPV6_REASS 0
#define CHECKSUM_CHECK_IP 0
#define CHECKSUM_CHECK_UDP 0
#define LWIP_IPV6 1
#define LWIP_IPV6_NUM_ADDRESSES 3
#define DNS_MAX_SERVERS 3
#define LWIP_TCPIP_CORE_LOCKING 0
#define LWIP_TCPIP_CORE_LOCKING_INPUT 0
// lwIP 2.2.1 fails one of its own, when a listener is closed that has a connection waiting.
#define LWIP_NOASSERT

// Set in ESP-IDF's lwipopts.h whatever the configuration.
#define LWIP_TIMEVAL_PRIVATE 0
#define SYS_LIGHTWEIGHT_PROT 1
#define MEM_LIBC_MALLOC 1
#define MEMP_MEM_MALLOC 1
#define ARP_QUEUEING 1
#define TCP_LISTEN_BACKLOG 1
#define LWIP_NETCONN_SEM_PER_THREAD 1
#define LWIP_NETCONN_FULLDUPLEX 1
#define LWIP_COMPAT_SOCKETS 0
#define LWIP_POSIX_SOCKETS_IO_NAMES 0
#define LWIP_SOCKET_OFFSET 54 // FD_SETSIZE of the ESP32's C library, 64, less MAX_SOCKETS
#define LWIP_SO_SNDTIMEO 1
#define LWIP_SO_RCVTIMEO 1
#define LWIP_TCP_KEEPALIVE 1
#define LWIP_NETIF_LOOPBACK 1
#define LWIP_NETIF_TX_SINGLE_PBUF 1
#define LWIP_IGMP 1
#define LWIP_DNS 1
#define LWIP_RAW 1
#define TCPIP_THREAD_NAME "tiT"

// As this machine and these tests need them.
#define MEM_ALIGNMENT 8
#define IPV6_FRAG_COPYHEADER 1 // pointers have 64 bits here
#define LWIP_DHCP 0 // the address is fixed
#define LWIP_STATS 0
#define LWIP_NETIF_LINK_CALLBACK 1
// See hostnet.c, HOSTNET_LOOPBACK.
#define LWIP_HOOK_FILENAME "lwip_hooks.h"
#define LWIP_HOOK_IP4_ROUTE(destination) hostnet_route(destination)
#define LWIP_HOOK_IP6_ROUTE(source, destination) hostnet_route6(destination)
#define LWIP_HOOK_ND6_GET_GW(netif, destination) hostnet_gateway6(destination)
