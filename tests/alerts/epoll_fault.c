// Preloaded into a gateway: while the file named by EPOLL_FAULT is there, its shards cannot add sockets to their poll sets, as
// when the kernel's fs.epoll.max_user_watches is used up.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

int epoll_ctl(int set, int operation, int descriptor, struct epoll_event *event) {
    int (*real)(int, int, int, struct epoll_event *) =
        (int (*)(int, int, int, struct epoll_event *))dlsym(RTLD_NEXT, "epoll_ctl");
    const char *file = getenv("EPOLL_FAULT");
    char thread[16] = "";
    pthread_getname_np(pthread_self(), thread, sizeof thread);
    if (operation == EPOLL_CTL_ADD && strncmp(thread, "shard", 5) == 0 && file != NULL && access(file, F_OK) == 0) {
        errno = ENOSPC;
        return -1;
    }
    return real(set, operation, descriptor, event);
}
