/* Preloaded into a Redis server: a disk that is slow or fails, and a clock that is wrong.
 *
 * $FAULT_SHIM is a folder. `fsync` in it: how many ms each flush takes longer, or "fail" (EIO). `clock`: by how many ms
 * the wall clock is wrong. Both are read again at most every 10 ms; a missing file is 0. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int (*real_clock)(clockid_t, struct timespec *);
static int (*real_fdatasync)(int);
static int (*real_fsync)(int);

__attribute__((constructor)) static void find(void) {
  real_clock = dlsym(RTLD_NEXT, "clock_gettime");
  real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
  real_fsync = dlsym(RTLD_NEXT, "fsync");
}

static int contents(const char *name, char *text, size_t size) {
  const char *folder = getenv("FAULT_SHIM");
  char path[4096];
  if (!folder) return 0;
  snprintf(path, sizeof path, "%s/%s", folder, name);
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return 0;
  ssize_t length = read(file, text, size - 1);
  close(file);
  text[length > 0 ? length : 0] = 0;
  return length > 0;
}

static int before_a_flush(void) {
  char text[32];
  if (!contents("fsync", text, sizeof text)) return 0;
  if (!strncmp(text, "fail", 4)) {
    errno = EIO;
    return -1;
  }
  long ms = atol(text);
  struct timespec pause = {ms / 1000, ms % 1000 * 1000000};
  nanosleep(&pause, NULL);
  return 0;
}

int fdatasync(int file) { return before_a_flush() ? -1 : real_fdatasync(file); }

int fsync(int file) { return before_a_flush() ? -1 : real_fsync(file); }

static long long shift_ms(void) {
  static __thread long long read_at, shift;
  struct timespec now;
  real_clock(CLOCK_MONOTONIC, &now);
  long long ms = now.tv_sec * 1000LL + now.tv_nsec / 1000000;
  if (ms - read_at >= 10) {
    char text[32];
    int before = errno;
    read_at = ms;
    shift = contents("clock", text, sizeof text) ? atoll(text) : 0;
    errno = before;
  }
  return shift;
}

static void move(struct timespec *time) {
  long long ms = time->tv_sec * 1000LL + time->tv_nsec / 1000000 + shift_ms();
  time->tv_nsec = time->tv_nsec % 1000000 + ms % 1000 * 1000000;
  time->tv_sec = ms / 1000;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  if (!real_clock) find();
  int done = real_clock(clock, time);
  if (!done && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) move(time);
  return done;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
  struct timespec now;
  (void)zone;
  if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
  time->tv_sec = now.tv_sec;
  time->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *place) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (place) *place = now.tv_sec;
  return now.tv_sec;
}
