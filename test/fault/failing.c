/*
 * The stand-in for libvmi with two things more: its vCPUs have the registers of a real guest, and
 * reads are counted and fail when told to, at any time, through a file that is shared with the
 * test. FAILING_CONTROL names it; it holds:
 *   reads so far, the number of the first read that fails (0: none), how many fail from then on,
 *   and how: 0 as a failure, 1 as a short read that is told to be one FAILING_REGISTERS:
 *   cr0,cr3,cr4 for every vCPU.
 */
#define vmi_read_pa standin_read_pa
#define vmi_get_vcpureg standin_get_vcpureg
#include "../libvmi/stand-in.c"
#undef vmi_read_pa
#undef vmi_get_vcpureg
#include <sys/mman.h>

struct control {
  volatile uint64_t reads, first, count, kind;
};

static struct control *control(void) {
  static struct control *shared;
  if (shared == NULL) {
    int fd = open(getenv("FAILING_CONTROL"), O_RDWR | O_CLOEXEC);
    void *mapped = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd < 0 || mapped == MAP_FAILED) abort();
    close(fd);
    shared = mapped;
  }
  return shared;
}

int vmi_read_pa(struct instance *vmi, uint64_t address, size_t count, void *into, size_t *done) {
  struct control *order = control();
  uint64_t number = ++order->reads;
  if (order->first == 0 || number < order->first || number - order->first >= order->count)
    return standin_read_pa(vmi, address, count, into, done);
  size_t got = 0;
  if (order->kind == 1) standin_read_pa(vmi, address, count / 2, into, &got);
  if (done != NULL) *done = got;
  return FAILURE;
}

/* Numbers of the registers: libvmi.h, CR0, CR3, CR4. */
int vmi_get_vcpureg(struct instance *vmi, uint64_t *value, uint64_t reg, unsigned long vcpu) {
  unsigned long long cr0, cr3, cr4;
  if (sscanf(getenv("FAILING_REGISTERS"), "%llu,%llu,%llu", &cr0, &cr3, &cr4) != 3) abort();
  if (standin_get_vcpureg(vmi, value, reg, vcpu) != SUCCESS) return FAILURE;
  switch (reg) {
    case FAILING_CR0: *value = cr0; return SUCCESS;
    case FAILING_CR3: *value = cr3; return SUCCESS;
    case FAILING_CR4: *value = cr4; return SUCCESS;
    default: *value = 0; return SUCCESS;
  }
}
