/* Preloaded: of the calls to the system between fail_arm(at, code, only) and fail_arm(0, 0, ""), the
 * at-th fails with the error `code`; `only` is the name of those that count, "" for all of them.
 * Whoever calls: Python, its libraries, the storage engine. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long at, count;
static int code;
static const char *counted = "";
static const char *volatile failed = "";

void fail_arm(long n, int error, const char *only) {
    count = 0; code = error; counted = only; failed = ""; at = n;
}
long fail_count(void) { return count; }
const char *fail_name(void) { return failed; }

static int strikes(const char *name) {
    long n = at;
    if (!n || (*counted && strcmp(counted, name)) || atomic_fetch_add(&count, 1) + 1 != n) return 0;
    failed = name;
    errno = code;
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FAILS(type, bad, name, parameters, ...) \
    type name parameters { \
        static __typeof__(&name) real; \
        if (!real) real = REAL(name); \
        if (strikes(#name)) return bad; \
        return real(__VA_ARGS__); \
    }
#define OPENS(name, parameters, ...) \
    int name parameters { \
        static __typeof__(&name) real; \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = va_arg(rest, mode_t); \
        va_end(rest); \
        if (!real) real = REAL(name); \
        if (strikes(#name)) return -1; \
        return real(__VA_ARGS__); \
    }
#define STATS(name, buffer) \
    FAILS(int, -1, name, (const char *path, struct buffer *found), path, found)
#define STATS_FD(name, buffer) FAILS(int, -1, name, (int fd, struct buffer *found), fd, found)
#define MAPS(name, offset_type) \
    void *name(void *where, size_t n, int kind, int flags, int fd, offset_type offset) { \
        static __typeof__(&name) real; \
        if (!real) real = REAL(name); \
        if (fd >= 0 && strikes(#name)) return MAP_FAILED; \
        return real(where, n, kind, flags, fd, offset); \
    }

OPENS(open, (const char *path, int flags, ...), path, flags, mode)
OPENS(open64, (const char *path, int flags, ...), path, flags, mode)
OPENS(openat, (int fd, const char *path, int flags, ...), fd, path, flags, mode)
OPENS(openat64, (int fd, const char *path, int flags, ...), fd, path, flags, mode)
STATS(stat, stat)
STATS(stat64, stat64)
STATS(lstat, stat)
STATS(lstat64, stat64)
STATS_FD(fstat, stat)
STATS_FD(fstat64, stat64)
FAILS(int, -1, fstatat, (int fd, const char *p, struct stat *s, int f), fd, p, s, f)
FAILS(int, -1, fstatat64, (int fd, const char *p, struct stat64 *s, int f), fd, p, s, f)
FAILS(int, -1, statvfs, (const char *p, struct statvfs *s), p, s)
FAILS(int, -1, statvfs64, (const char *p, struct statvfs64 *s), p, s)
FAILS(DIR *, NULL, opendir, (const char *p), p)
FAILS(DIR *, NULL, fdopendir, (int fd), fd)
FAILS(int, -1, mkdir, (const char *p, mode_t m), p, m)
FAILS(int, -1, mkdirat, (int fd, const char *p, mode_t m), fd, p, m)
FAILS(int, -1, rename, (const char *a, const char *b), a, b)
FAILS(int, -1, renameat, (int a, const char *p, int b, const char *q), a, p, b, q)
FAILS(int, -1, renameat2, (int a, const char *p, int b, const char *q, unsigned f), a, p, b, q, f)
FAILS(int, -1, unlink, (const char *p), p)
FAILS(int, -1, unlinkat, (int fd, const char *p, int f), fd, p, f)
FAILS(int, -1, rmdir, (const char *p), p)
FAILS(int, -1, chmod, (const char *p, mode_t m), p, m)
FAILS(int, -1, fchmod, (int fd, mode_t m), fd, m)
FAILS(int, -1, chown, (const char *p, uid_t u, gid_t g), p, u, g)
FAILS(int, -1, fchown, (int fd, uid_t u, gid_t g), fd, u, g)
FAILS(int, -1, fsync, (int fd), fd)
FAILS(int, -1, fdatasync, (int fd), fd)
FAILS(int, -1, flock, (int fd, int how), fd, how)
FAILS(int, -1, ftruncate, (int fd, off_t n), fd, n)
FAILS(int, -1, ftruncate64, (int fd, off64_t n), fd, n)
FAILS(ssize_t, -1, pread, (int fd, void *b, size_t n, off_t o), fd, b, n, o)
FAILS(ssize_t, -1, pread64, (int fd, void *b, size_t n, off64_t o), fd, b, n, o)
FAILS(ssize_t, -1, pwrite, (int fd, const void *b, size_t n, off_t o), fd, b, n, o)
FAILS(ssize_t, -1, pwrite64, (int fd, const void *b, size_t n, off64_t o), fd, b, n, o)
FAILS(ssize_t, -1, pwritev, (int fd, const struct iovec *v, int n, off_t o), fd, v, n, o)
FAILS(ssize_t, -1, pwritev64, (int fd, const struct iovec *v, int n, off64_t o), fd, v, n, o)
FAILS(ssize_t, -1, read, (int fd, void *b, size_t n), fd, b, n)
FAILS(ssize_t, -1, write, (int fd, const void *b, size_t n), fd, b, n)
FAILS(int, code, posix_fallocate, (int fd, off_t o, off_t n), fd, o, n)
FAILS(int, code, posix_fallocate64, (int fd, off64_t o, off64_t n), fd, o, n)
FAILS(int, -1, gethostname, (char *name, size_t n), name, n)
FAILS(char *, NULL, getcwd, (char *b, size_t n), b, n)
FAILS(int, code, pthread_create,
      (pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *x), t, a, f, x)
MAPS(mmap, off_t)
MAPS(mmap64, off64_t)
