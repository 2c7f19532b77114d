/* Appends what a process does to a file named data.mdb, in order and with the data, to the file that
 * CRASH_LOG names. For LD_PRELOAD, on Linux. Each entry is three uint64 and then `length` bytes:
 *
 *     kind    'W' written, 'D' written on a descriptor with O_DSYNC, 'T' cut to a length,
 *             'S' synced, 'R' a directory got its name, 'A' what was written to a file named
 *             "acknowledged"
 *     offset  in the file
 *     length  of the data that follow
 *
 * A call is recorded when it has returned, and what it did before it failed is recorded too.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static int is_named(int fd, const char *name) {
    char link[32], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path);
    size_t length = strlen(name);
    return n > (ssize_t)length && path[n - length - 1] == '/' && !memcmp(path + n - length, name, length);
}

static void append(char kind, uint64_t offset, const struct iovec *parts, int count, ssize_t length) {
    static int log = -1;
    int before = errno;
    if (log < 0 && getenv("CRASH_LOG"))
        log = open(getenv("CRASH_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    uint64_t head[3] = {(unsigned char)kind, offset, (uint64_t)length};
    syscall(SYS_write, log, head, sizeof head);
    for (int i = 0; i < count && length > 0; i++) {
        size_t n = parts[i].iov_len < (size_t)length ? parts[i].iov_len : (size_t)length;
        syscall(SYS_write, log, parts[i].iov_base, n);
        length -= (ssize_t)n;
    }
    errno = before;
}

static ssize_t written(int fd, const struct iovec *parts, int count, off_t offset, ssize_t result) {
    if (result > 0) {
        if (is_named(fd, "data.mdb"))
            append(fcntl(fd, F_GETFL) & O_DSYNC ? 'D' : 'W', (uint64_t)offset, parts, count, result);
        else if (is_named(fd, "acknowledged"))
            append('A', 0, parts, count, result);
    }
    return result;
}

#define PART {(void *)data, n}

ssize_t write(int fd, const void *data, size_t n) {
    struct iovec part = PART;
    off_t at = lseek(fd, 0, SEEK_CUR);
    return written(fd, &part, 1, at, syscall(SYS_write, fd, data, n));
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    off_t at = lseek(fd, 0, SEEK_CUR);
    return written(fd, parts, count, at, syscall(SYS_writev, fd, parts, count));
}

ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) {
    struct iovec part = PART;
    return written(fd, &part, 1, at, syscall(SYS_pwrite64, fd, data, n, at));
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t at) { return pwrite64(fd, data, n, at); }

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) {
    return written(fd, parts, count, at, syscall(SYS_pwritev, fd, parts, count, at, 0));
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { return pwritev64(fd, parts, count, at); }

int ftruncate64(int fd, off64_t length) {
    int result = (int)syscall(SYS_ftruncate, fd, length);
    if (!result && is_named(fd, "data.mdb"))
        append('T', (uint64_t)length, NULL, 0, 0);
    return result;
}

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

static int synced(int fd, int result) {
    if (!result && is_named(fd, "data.mdb"))
        append('S', 0, NULL, 0, 0);
    return result;
}

int fsync(int fd) { return synced(fd, (int)syscall(SYS_fsync, fd)); }

int fdatasync(int fd) { return synced(fd, (int)syscall(SYS_fdatasync, fd)); }

int rename(const char *from, const char *to) {
    int result = (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    if (!result)
        append('R', 0, NULL, 0, 0);
    return result;
}
