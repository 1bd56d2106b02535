LAN_DIR := $(USERMOD_DIR)
SRC_USERMOD_C += $(addprefix $(LAN_DIR)/,lan_eth.c lan_port.c lan_network.c lan_thread.c lan_timer.c)
SRC_USERMOD_LIB_C += $(LAN_DIR)/lan_tls.c
CFLAGS_USERMOD += -I$(LAN_DIR)
