// Ethernet frames to and from libslirp, which is in a process of its own.
#pragma once
#include <stddef.h>

#define SLIRPNET_FRAME_BYTES_MAX (1600)

// receive() is called in a thread of its own. The threads that begin here inherit the caller's
// signal mask.
void slirpnet_start(void (*receive)(const void *frame, size_t length));
void slirpnet_send(const void *frame, size_t length);
