/*
 * A library with libvmi's calls over a file of RAM, made to misbehave. For tests of faults only:
 * what libvmi really does is tested with the real one.
 *
 * Every instance reads its orders from the environment when it is made:
 *   STANDIN_FAULT   kind@n: at the n-th call from then on, vmi_init being the first:
 *                   fail: report failure; short: report success with half the bytes; lie: report
 *                   success, write nothing; block: sleep for STANDIN_MS; loop: spin for STANDIN_MS;
 *                   crash: follow a null pointer
 *   STANDIN_MS      how long a call blocks or loops; default 1000
 *   STANDIN_SKEW    bytes to add to every physical address
 *   STANDIN_CHATTER a line on stderr at every call
 *   STANDIN_LOG     file that gets a line per call: thread, name
 *   STANDIN_EVENTS  total,batch: so many writes to CR3 in all, so many at each vmi_events_listen;
 *   write k (from 0) is of vCPU
 *                   k % 2, of the value 0x1000 * (k + 1), over 0x1000 * k
 *   STANDIN_EVENTS_VERSION  what vmi_events_version() says, and the layout of vmi_event_t; default
 *   9 STANDIN_XEN     file that stands for Xen with one domain, number 7: bytes that say whether
 *   its monitor is on, whether it is
 *                   gone, whether it is paused; how many writes to CR3 were taken, 32 bits, at
 *                   offset 4
 *   STANDIN_DESTROY_MS  how long vmi_destroy keeps that domain paused
 *   STANDIN_RAM     file of RAM of a domain that is attached to by number
 * It is libxenctrl, too, as far as this project uses that.
 * Built with -DTOO_OLD it lacks vmi_pagecache_flush, as libvmi 0.12 does.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { SUCCESS = 0, FAILURE = 1 };
enum fault { NONE, FAIL, SHORT, LIE, BLOCK, LOOP, CRASH };

struct instance {
  uint32_t magic;
  int fd;
  uint64_t size;
  char *name;
  enum fault fault;
  long at, calls, milliseconds, skew;
  int log;
  atomic_int inside;
  int chatter;
  int events;
  struct xen *xen;
  char *event;
  long fired, total, batch;
};

#define MAGIC 0x6c69626du

enum { DOMAIN = 7 };
struct xen {
  atomic_char monitor, gone, paused, reserved;
  atomic_uint taken;
};

static struct xen *xen(void) {
  const char *path = getenv("STANDIN_XEN");
  int fd = path != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;
  if (fd < 0) return NULL;
  void *memory = mmap(NULL, sizeof(struct xen), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  return memory == MAP_FAILED ? NULL : memory;
}

static void sleep_for(long milliseconds);
static int leave_taken(struct instance *vmi, unsigned *error);

static void note(int log, const char *what) {
  char line[80];
  int length = snprintf(line, sizeof line, "%ld %s\n", (long)syscall(SYS_gettid), what);
  if (log >= 0 && write(log, line, (size_t)length) != length) abort();
}

static void sleep_for(long milliseconds) {
  struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
  nanosleep(&time, NULL);
}

static long milliseconds_now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* Counts the call and does what was ordered; the fault that the call itself has to act out comes back. */
static enum fault enter(struct instance *vmi, const char *name) {
  if (vmi == NULL || vmi->magic != MAGIC) {
    fprintf(stderr, "stand-in: %s on an instance that is none\n", name);
    abort();
  }
  if (atomic_fetch_add(&vmi->inside, 1) != 0) note(vmi->log, "OVERLAP");
  note(vmi->log, name);
  if (vmi->chatter) fprintf(stderr, "stand-in: %s\n", name);
  enum fault fault = ++vmi->calls == vmi->at ? vmi->fault : NONE;
  if (fault == BLOCK) sleep_for(vmi->milliseconds);
  if (fault == LOOP)
    for (long end = milliseconds_now() + vmi->milliseconds; milliseconds_now() < end;)
      ;
  if (fault == CRASH) {
    fprintf(stderr, "stand-in: %s was told to crash\n", name);
    *(volatile int *)NULL = 1;
  }
  if (fault == FAIL) fprintf(stderr, "stand-in: %s was told to fail\n", name);
  return fault;
}

static int leave(struct instance *vmi, int status) {
  atomic_fetch_sub(&vmi->inside, 1);
  return status;
}

static void order(struct instance *vmi) {
  static const char *const kinds[] = {"none", "fail", "short", "lie", "block", "loop", "crash"};
  const char *text = getenv("STANDIN_FAULT");
  const char *milliseconds = getenv("STANDIN_MS");
  const char *log = getenv("STANDIN_LOG");
  const char *skew = getenv("STANDIN_SKEW");
  vmi->chatter = getenv("STANDIN_CHATTER") != NULL;
  const char *events = getenv("STANDIN_EVENTS");
  if (events != NULL) sscanf(events, "%ld,%ld", &vmi->total, &vmi->batch);
  vmi->skew = skew != NULL ? atol(skew) : 0;
  vmi->milliseconds = milliseconds != NULL ? atol(milliseconds) : 1000;
  vmi->log = log != NULL ? open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
  for (size_t i = 0; text != NULL && i < sizeof kinds / sizeof *kinds; i++) {
    size_t length = strlen(kinds[i]);
    if (strncmp(text, kinds[i], length) == 0 && text[length] == '@') {
      vmi->fault = (enum fault)i;
      vmi->at = atol(text + length + 1);
    }
  }
}

int vmi_destroy(struct instance *vmi) {
  // As libvmi does it: the domain stands still while its events are taken from it.
  int running = vmi->xen != NULL && vmi->events && vmi->xen->paused == 0;
  if (running) vmi->xen->paused = 1;
  enum fault fault = enter(vmi, "vmi_destroy");
  leave(vmi, 0);
  const char *milliseconds = getenv("STANDIN_DESTROY_MS");
  if (vmi->xen != NULL && vmi->events && milliseconds != NULL) sleep_for(atol(milliseconds));
  if (vmi->xen != NULL && vmi->events) vmi->xen->monitor = 0;
  if (running) vmi->xen->paused = 0;
  vmi->magic = 0;
  close(vmi->fd);
  if (vmi->log >= 0) close(vmi->log);
  free(vmi->name);
  free(vmi);
  return fault == FAIL ? FAILURE : SUCCESS;
}

int vmi_init(struct instance **out, unsigned mode, const void *domain, uint64_t flags, void *data, unsigned *error) {
  (void)data;
  struct instance *vmi = calloc(1, sizeof *vmi);
  vmi->magic = MAGIC;
  const char *ram = getenv("STANDIN_RAM");
  vmi->name = strdup(flags & 1 ? domain : ram != NULL ? ram : "");
  vmi->events = (flags & 4) != 0;
  vmi->fd = open(vmi->name, O_RDONLY | O_CLOEXEC);
  order(vmi);
  enum fault fault = enter(vmi, "vmi_init");
  struct stat status;
  leave(vmi, 0);
  if (vmi->fd < 0 || fstat(vmi->fd, &status) != 0 || fault == FAIL) {
    *error = fault == FAIL ? 2 : 3;
    // As errprint() of a libvmi with its Bareflank driver, which is built by default.
    if (fault != FAIL) fprintf(stdout, "stand-in: there is no %s\n", vmi->name);
    vmi->at = 0;
    vmi_destroy(vmi);
    *out = NULL;
    return FAILURE;
  }
  if (vmi->events && mode == 2) {
    *error = 6;
    fprintf(stderr, "stand-in: files have no events\n");
    vmi->at = 0;
    vmi_destroy(vmi);
    *out = NULL;
    return FAILURE;
  }
  if (mode == 0) vmi->xen = xen();
  if (vmi->xen != NULL && vmi->events && vmi->xen->monitor != 0) {
    *out = NULL;
    return leave_taken(vmi, error);
  }
  if (vmi->xen != NULL && vmi->events) vmi->xen->monitor = 1;
  vmi->size = (uint64_t)status.st_size;
  *out = fault == LIE ? NULL : vmi;
  if (fault == LIE) vmi_destroy(vmi);
  return SUCCESS;
}

static int leave_taken(struct instance *vmi, unsigned *error) {
  *error = 6;
  fprintf(stderr, "stand-in: vm_event is (or was) active on this domain\n");
  vmi->events = 0;
  vmi->at = 0;
  vmi_destroy(vmi);
  return FAILURE;
}

int vmi_read_pa(struct instance *vmi, uint64_t address, size_t count, void *into, size_t *done) {
  enum fault fault = enter(vmi, "vmi_read_pa");
  size_t got = 0;
  if (fault == SHORT) count /= 2;
  if (fault != FAIL && fault != LIE && address < vmi->size) {
    ssize_t result = pread(vmi->fd, into, count, (off_t)address + vmi->skew);
    got = result > 0 ? (size_t)result : 0;
  }
  if (done != NULL) *done = fault == LIE ? (size_t)-1 : got;
  return leave(vmi, fault == LIE || fault == SHORT || (fault != FAIL && got == count) ? SUCCESS : FAILURE);
}

uint64_t vmi_get_memsize(struct instance *vmi) {
  enum fault fault = enter(vmi, "vmi_get_memsize");
  leave(vmi, 0);
  return fault == FAIL ? 0 : vmi->size;
}

uint64_t vmi_get_max_physical_address(struct instance *vmi) {
  enum fault fault = enter(vmi, "vmi_get_max_physical_address");
  leave(vmi, 0);
  return fault == FAIL ? 0 : vmi->size;
}

unsigned vmi_get_num_vcpus(struct instance *vmi) {
  enum fault fault = enter(vmi, "vmi_get_num_vcpus");
  leave(vmi, 0);
  return fault == FAIL ? 0 : 2;
}

/* CR3 of vCPU n is 0x1000 * (n + 1), any other register its number; no EFER (74) with STANDIN_PV, as in a PV guest of Xen. */
int vmi_get_vcpureg(struct instance *vmi, uint64_t *value, uint64_t reg, unsigned long vcpu) {
  enum fault fault = enter(vmi, "vmi_get_vcpureg");
  if (reg == 74 && getenv("STANDIN_PV") != NULL) return leave(vmi, FAILURE);
  if (fault != FAIL && fault != LIE) *value = reg == 20 ? 0x1000 * (vcpu + 1) : reg;
  return leave(vmi, fault == FAIL ? FAILURE : SUCCESS);
}

#define SIMPLE(name)                                                    \
  int name(struct instance *vmi) {                                      \
    return leave(vmi, enter(vmi, #name) == FAIL ? FAILURE : SUCCESS);   \
  }
#define FLUSH(name)              \
  void name(struct instance *vmi) { \
    enter(vmi, #name);           \
    leave(vmi, 0);               \
  }
SIMPLE(vmi_pause_vm)
SIMPLE(vmi_resume_vm)
FLUSH(vmi_symcache_flush)
FLUSH(vmi_pidcache_flush)
#ifndef TOO_OLD
FLUSH(vmi_pagecache_flush)
#endif

void vmi_v2pcache_flush(struct instance *vmi, uint64_t table) {
  enter(vmi, table == ~UINT64_C(0) ? "vmi_v2pcache_flush" : "vmi_v2pcache_flush of one table");
  leave(vmi, 0);
}

/* Some of the optional ones. A task's page table is 0x1000 * PID; PID 2 is a sleeping kernel thread. */
int vmi_pid_to_dtb(struct instance *vmi, int32_t pid, uint64_t *table) {
  enum fault fault = enter(vmi, "vmi_pid_to_dtb");
  if (fault != FAIL && fault != LIE && pid < 100) *table = pid == 2 ? 0 : 0x1000 * (uint64_t)pid;
  return leave(vmi, fault == FAIL || pid >= 100 ? FAILURE : SUCCESS);
}

int vmi_translate_ksym2v(struct instance *vmi, const char *symbol, uint64_t *address) {
  enum fault fault = enter(vmi, "vmi_translate_ksym2v");
  int known = strcmp(symbol, "init_task") == 0;
  if (fault != FAIL && fault != LIE && known) *address = UINT64_C(0xffffffff82a15940);
  return leave(vmi, fault == FAIL || !known ? FAILURE : SUCCESS);
}

/* As libvmi does without an OS layer: success, and nothing written. */
int vmi_get_offset(struct instance *vmi, const char *name, uint64_t *offset) {
  (void)name, (void)offset;
  return leave(vmi, enter(vmi, "vmi_get_offset") == FAIL ? FAILURE : SUCCESS);
}

uint64_t vmi_get_vmid(struct instance *vmi) {
  enum fault fault = enter(vmi, "vmi_get_vmid");
  leave(vmi, 0);
  return fault == FAIL ? 0 : DOMAIN;
}

char *vmi_get_name(struct instance *vmi) {
  enum fault fault = enter(vmi, "vmi_get_name");
  leave(vmi, 0);
  return fault == FAIL ? NULL : strdup(vmi->name);
}

/* Events. Offsets in vmi_event_t: 4 type, 16 data, 24 callback, 32 vcpu_id; of reg_event_t in it, by version. */
#ifndef NO_EVENTS
uint32_t vmi_events_version(void) {
  const char *version = getenv("STANDIN_EVENTS_VERSION");
  return version != NULL ? (uint32_t)atol(version) : 9;
}

static long register_event_offset(void) {
  return vmi_events_version() == 9 ? 40 : 64;
}

int vmi_register_event(struct instance *vmi, char *event) {
  enum fault fault = enter(vmi, "vmi_register_event");
  uint32_t version;
  uint16_t type;
  uint64_t reg;
  memcpy(&version, event, sizeof version);
  memcpy(&type, event + 4, sizeof type);
  memcpy(&reg, event + register_event_offset(), sizeof reg);
  char access = event[register_event_offset() + 18];
  int fine = vmi->events && version == vmi_events_version() && type == 2 && reg == 20 && access == 4;
  if (fault == FAIL || !fine) {
    if (!fine) fprintf(stderr, "stand-in: cannot register this event\n");
    return leave(vmi, FAILURE);
  }
  if (fault != LIE) vmi->event = event;
  return leave(vmi, SUCCESS);
}

int vmi_clear_event(struct instance *vmi, char *event, void (*done)(char *, int)) {
  (void)done;
  enum fault fault = enter(vmi, "vmi_clear_event");
  int known = vmi->event == event;
  vmi->event = NULL;
  return leave(vmi, fault == FAIL || !known ? FAILURE : SUCCESS);
}

int vmi_events_listen(struct instance *vmi, uint32_t timeout) {
  enum fault fault = enter(vmi, "vmi_events_listen");
  long fired = 0;
  for (; vmi->event != NULL && fault != LIE && fired < vmi->batch && vmi->fired < vmi->total; fired++, vmi->fired++) {
    uint32_t vcpu = (uint32_t)(vmi->fired % 2);
    uint64_t values[] = {0x1000 * ((uint64_t)vmi->fired + 1), 0x1000 * (uint64_t)vmi->fired};
    memcpy(vmi->event + 32, &vcpu, sizeof vcpu);
    memcpy(vmi->event + register_event_offset() + 24, values, sizeof values);
    uint32_t (*callback)(struct instance *, char *);
    memcpy(&callback, vmi->event + 24, sizeof callback);
    if (callback(vmi, vmi->event) != 0) abort();
    if (vmi->xen != NULL) vmi->xen->taken++;
  }
  if (fired == 0) sleep_for(timeout);
  /* A guest does not run any faster because it is listened to. */
  else if (vmi->xen != NULL) sleep_for(1);
  return leave(vmi, fault == FAIL ? FAILURE : SUCCESS);
}
#endif

/* libxenctrl. */
void *xc_interface_open(void *logger, void *builder, unsigned flags) {
  (void)logger, (void)builder, (void)flags;
  return xen();
}

int xc_interface_close(void *interface) {
  return munmap(interface, sizeof(struct xen));
}

/* struct xen_domctl_getdomaininfo: domain, flags (0: dying, 3: paused), pages, most pages. */
int xc_domain_getinfolist(struct xen *interface, uint32_t first, unsigned count, void *into) {
  if (count == 0 || first > DOMAIN) return 0;
  uint32_t words[2] = {DOMAIN, (interface->gone ? 1u : 0u) | (interface->paused ? 8u : 0u)};
  uint64_t pages[2] = {80000, 81920};
  memcpy(into, words, sizeof words);
  memcpy((char *)into + sizeof words, pages, sizeof pages);
  return 1;
}

int xc_domain_setmaxmem(void *interface, uint32_t domain, uint64_t kib) {
  (void)interface;
  return domain == DOMAIN && kib == 4 * 81920 ? 0 : -1;
}

int xc_domain_unpause(struct xen *interface, uint32_t domain) {
  if (domain != DOMAIN) return -1;
  interface->paused = 0;
  return 0;
}

int xc_monitor_resume(struct xen *interface, uint32_t domain) {
  if (domain == DOMAIN && interface->monitor) return 0;
  errno = ENODEV;
  return -1;
}

int xc_monitor_disable(struct xen *interface, uint32_t domain) {
  if (domain != DOMAIN) return -1;
  interface->monitor = 0;
  return 0;
}
