// lwIP's own threads, mailboxes and clocks for unix, with one difference: a mailbox holds as many
// messages as it was made for (6 segments a socket on the ESP32), where lwIP's holds 128.
// It matters: a segment for which there is no room stays with TCP, which tries again when the
// next one arrives, or after 250 ms.
#include "lwip/sys.h"

#define sys_mbox_new new_mailbox
#define sys_mbox_trypost try_post
#include "contrib/ports/unix/port/sys_arch.c"
#undef sys_mbox_new
#undef sys_mbox_trypost

struct sized_mailbox {
    struct sys_mbox mailbox;
    int size;
};

err_t sys_mbox_new(struct sys_mbox **mailbox, int size) {
    err_t error = new_mailbox(mailbox, size);
    if (error == ERR_OK) {
        struct sized_mailbox *sized = realloc(*mailbox, sizeof(*sized));
        if (sized == NULL) {
            abort();
        }
        sized->size = size;
        *mailbox = &sized->mailbox;
    }
    return error;
}

// What arrives from the network is posted with this. sys_mbox_post(), which waits for room, is
// for calls of the application to lwIP's thread: no more than there are threads.
err_t sys_mbox_trypost(struct sys_mbox **mailbox, void *message) {
    struct sys_mbox *it = *mailbox;
    sys_arch_sem_wait(&it->mutex, 0);
    int is_full = it->last - it->first >= ((struct sized_mailbox *)it)->size;
    sys_sem_signal(&it->mutex);
    return is_full ? ERR_MEM : try_post(mailbox, message);
}
