# A variant of MicroPython's unix port whose socket module is the ESP32 port's, over lwIP.
# tools/get_esp32_sockets.py builds it: LWIP=, the sources of lwIP, is given there.

HERE := $(abspath $(dir $(lastword $(MAKEFILE_LIST))))
FROZEN_MANIFEST ?= $(VARIANT_DIR)/manifest.py

MICROPY_PY_THREAD_GIL = 1 # as on the ESP32
MICROPY_PY_SOCKET = 0 # the unix port's own
MICROPY_PY_SSL = 1
MICROPY_PY_BTREE = 0 # its sources are not in Debian's
SHARED_SRC_C_EXTRA += netutils/netutils.c

INC += -I$(HERE)/include -I$(LWIP) -I$(LWIP)/src/include -I$(LWIP)/contrib/ports/unix/port/include
CFLAGS_EXTRA += -include $(HERE)/include/newlib_errno.h
# ESP-IDF's mbedTLS reads PEM by default (CONFIG_MBEDTLS_PEM_PARSE_C), and has no TLS 1.3.
CFLAGS_EXTRA += -DMBEDTLS_PEM_PARSE_C -DMBEDTLS_BASE64_C
LDFLAGS_EXTRA += -lslirp -lpthread

LWIP_C = $(addprefix $(LWIP)/src/,\
	$(addprefix core/, \
		def.c dns.c inet_chksum.c init.c ip.c mem.c memp.c netif.c pbuf.c raw.c stats.c sys.c \
		tcp.c tcp_in.c tcp_out.c timeouts.c udp.c) \
	$(addprefix core/ipv4/, acd.c etharp.c icmp.c igmp.c ip4.c ip4_addr.c ip4_frag.c) \
	$(addprefix core/ipv6/, \
		ethip6.c icmp6.c inet6.c ip6.c ip6_addr.c ip6_frag.c mld6.c nd6.c) \
	$(addprefix api/, \
		api_lib.c api_msg.c err.c if_api.c netbuf.c netdb.c netifapi.c sockets.c tcpip.c) \
	netif/ethernet.c)
SRC_C += $(LWIP_C)

# Warnings of lwIP are not ours to mend.
$(addprefix $(BUILD)/, $(LWIP_C:.c=.o)) $(BUILD)/$(VARIANT_DIR)/sys_arch.o: CFLAGS += -w
# These two talk to this machine's C library about errors.
$(BUILD)/$(VARIANT_DIR)/sys_arch.o $(BUILD)/$(VARIANT_DIR)/slirpnet.o: CFLAGS += -DHOST_ERRNO
