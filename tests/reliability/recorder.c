/* Put in front of the C library (LD_PRELOAD), writes down in order what a process does to the files of one folder:
 * writes with their bytes, cuts, syncs, names made, changed and removed. A power cut is made out of that by power.rs.
 *
 * TIDEWAITER_TEST_RECORD names the record, TIDEWAITER_TEST_FOLDER the folder. A sync takes four milliseconds longer
 * than it does, as on a slow disk, so that what is said before it is over shows. What is shared memory (-shm) or
 * holds nothing (.reserve) is left out. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WRITE = 1, CUT, SYNC, MAKE, RENAME, REMOVE, SYNC_FOLDER };

struct head { uint32_t kind, path; uint64_t number, length; };

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static int record = -1;
static uint64_t position;
static char folder[PATH_MAX];

#define REAL(result, name, ...) \
    static result (*real)(__VA_ARGS__); \
    if (!real) real = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

static ssize_t put(const void *bytes, size_t length) {
    REAL(ssize_t, write, int, const void *, size_t);
    return real(record, bytes, length);
}

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("TIDEWAITER_TEST_RECORD"), *of = getenv("TIDEWAITER_TEST_FOLDER");
    if (!path || !of || !realpath(of, folder)) return;
    record = openat(AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

/* Whether a path is of interest. */
static int ours(const char *path) {
    size_t length = strlen(folder), all = strlen(path);
    if (record < 0 || strncmp(path, folder, length) || (path[length] != '/' && path[length])) return 0;
    static const char *no[] = {"-shm", ".reserve", " (deleted)"};
    for (int i = 0; i < 3; i++)
        if (all >= strlen(no[i]) && !strcmp(path + all - strlen(no[i]), no[i])) return 0;
    return 1;
}

/* The path of a file or folder that is open; whether it is of interest. */
static int of(int fd, char *path, struct stat *found) {
    if (record < 0 || fstat(fd, found) || !(S_ISREG(found->st_mode) || S_ISDIR(found->st_mode))) return 0;
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return ours(path);
}

static void say(uint32_t kind, const char *path, uint64_t number, const void *bytes, uint64_t length) {
    struct head head = {kind, strlen(path), number, length};
    put(&head, sizeof head);
    put(path, head.path);
    if (length) put(bytes, length);
    position += sizeof head + head.path + length;
}

ssize_t write(int fd, const void *bytes, size_t length) {
    REAL(ssize_t, write, int, const void *, size_t);
    char path[PATH_MAX];
    struct stat found;
    if (fd == record || !of(fd, path, &found)) return real(fd, bytes, length);
    pthread_mutex_lock(&turn);
    ssize_t done = real(fd, bytes, length);
    if (done > 0) say(WRITE, path, lseek(fd, 0, SEEK_CUR) - done, bytes, done);
    pthread_mutex_unlock(&turn);
    return done;
}

#define PWRITE(name, offset_type) \
    ssize_t name(int fd, const void *bytes, size_t length, offset_type offset) { \
        REAL(ssize_t, name, int, const void *, size_t, offset_type); \
        char path[PATH_MAX]; \
        struct stat found; \
        if (!of(fd, path, &found)) return real(fd, bytes, length, offset); \
        pthread_mutex_lock(&turn); \
        ssize_t done = real(fd, bytes, length, offset); \
        if (done > 0) say(WRITE, path, offset, bytes, done); \
        pthread_mutex_unlock(&turn); \
        return done; \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define CUTS(name, offset_type) \
    int name(int fd, offset_type length) { \
        REAL(int, name, int, offset_type); \
        char path[PATH_MAX]; \
        struct stat found; \
        if (!of(fd, path, &found)) return real(fd, length); \
        pthread_mutex_lock(&turn); \
        int failed = real(fd, length); \
        if (!failed) say(CUT, path, length, 0, 0); \
        pthread_mutex_unlock(&turn); \
        return failed; \
    }
CUTS(ftruncate, off_t)
CUTS(ftruncate64, off64_t)

/* Covers what was written before it began. */
#define SYNCS(name) \
    int name(int fd) { \
        REAL(int, name, int); \
        char path[PATH_MAX]; \
        struct stat found; \
        if (!of(fd, path, &found)) return real(fd); \
        pthread_mutex_lock(&turn); \
        uint64_t began = position; \
        pthread_mutex_unlock(&turn); \
        usleep(4000); \
        int failed = real(fd); \
        pthread_mutex_lock(&turn); \
        if (!failed) say(S_ISDIR(found.st_mode) ? SYNC_FOLDER : SYNC, path, began, 0, 0); \
        pthread_mutex_unlock(&turn); \
        return failed; \
    }
SYNCS(fsync)
SYNCS(fdatasync)

/* Says what opening made or cut. */
static int opened(int fd, int flags, int was) {
    char path[PATH_MAX];
    struct stat found;
    if (fd >= 0 && fd != record && of(fd, path, &found) && S_ISREG(found.st_mode)) {
        pthread_mutex_lock(&turn);
        if ((flags & O_CREAT) && !was) say(MAKE, path, 0, 0, 0);
        else if (flags & O_TRUNC) say(CUT, path, 0, 0, 0);
        pthread_mutex_unlock(&turn);
    }
    return fd;
}

#define OPENS(name) \
    int name(const char *path, int flags, ...) { \
        REAL(int, name, const char *, int, ...); \
        va_list rest; \
        va_start(rest, flags); \
        int mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, int) : 0; \
        va_end(rest); \
        int was = (flags & O_CREAT) && faccessat(AT_FDCWD, path, F_OK, 0) == 0; \
        return opened(real(path, flags, mode), flags, was); \
    }
OPENS(open)
OPENS(open64)

int unlink(const char *path) {
    REAL(int, unlink, const char *);
    char whole[PATH_MAX];
    int known = record >= 0 && realpath(path, whole) && ours(whole);
    pthread_mutex_lock(&turn);
    int failed = real(path);
    if (!failed && known) say(REMOVE, whole, 0, 0, 0);
    pthread_mutex_unlock(&turn);
    return failed;
}

int rename(const char *from, const char *to) {
    REAL(int, rename, const char *, const char *);
    char whole[PATH_MAX], there[PATH_MAX];
    int known = record >= 0 && realpath(from, whole) && ours(whole);
    pthread_mutex_lock(&turn);
    int failed = real(from, to);
    if (!failed && known && realpath(to, there)) say(RENAME, whole, 0, there, strlen(there));
    pthread_mutex_unlock(&turn);
    return failed;
}
