// Lays out the RAM of a guest as a VMM does, for tests of what finds it in a process: stand-in-vmm
// LAYOUT FILE LOW, where FILE is RAM as one block and LOW the bytes of it below 4 GiB. Writes a
// line when all is there, and stays until its standard input ends.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define FOUR_GIB (UINT64_C(1) << 32)

static int file;

static void *check(void *mapping) {
  if (mapping == MAP_FAILED) {
    perror("mmap");
    exit(1);
  }
  return mapping;
}

static void *anonymous(uint64_t size) {
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  return check(mmap(NULL, size, PROT_READ | PROT_WRITE, flags, -1, 0));
}

// Copies what the file has, and touches nothing else.
static void fill(char *into, uint64_t offset, uint64_t size) {
  const uint64_t end = offset + size;
  for (off_t at = lseek(file, offset, SEEK_DATA); at >= 0 && (uint64_t)at < end;
       at = lseek(file, at, SEEK_DATA)) {
    off_t hole = lseek(file, at, SEEK_HOLE);
    if ((uint64_t)hole > end) hole = end;
    while (at < hole) {
      const ssize_t read = pread(file, into + (at - offset), hole - at, at);
      if (read <= 0) exit(1);
      at += read;
    }
  }
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  file = open(argv[2], O_RDONLY);
  struct stat stat;
  if (file < 0 || fstat(file, &stat) != 0) return 1;
  const uint64_t size = stat.st_size, low = strtoull(argv[3], NULL, 10), high = size - low;
  if (strcmp(argv[1], "two-blocks") == 0) {
    // Firecracker (vstate/memory.rs), Cloud Hypervisor (memory_manager.rs), libkrun: a mapping a
    // region, each between two pages that cannot be touched.
    const uint64_t sizes[] = {low, high}, offsets[] = {0, low};
    for (int i = 0; i < 2; ++i) {
      char *guarded = anonymous(sizes[i] + 2 * 4096);
      mprotect(guarded, 4096, PROT_NONE);
      mprotect(guarded + 4096 + sizes[i], 4096, PROT_NONE);
      fill(guarded + 4096, offsets[i], sizes[i]);
    }
  } else if (strcmp(argv[1], "one-memfd") == 0) {
    // crosvm (vm_memory guest_memory.rs): the regions follow each other in one memfd.
    const int memory = memfd_create("crosvm_guest", 0);
    if (ftruncate(memory, size) != 0) return 1;
    const int access = PROT_READ | PROT_WRITE;
    fill(check(mmap(NULL, low, access, MAP_SHARED, memory, 0)), 0, low);
    anonymous(1 << 20);
    fill(check(mmap(NULL, high, access, MAP_SHARED, memory, low)), low, high);
  } else if (strcmp(argv[1], "with-hole") == 0) {
    // kvmtool (x86/kvm.c, kvm__arch_init): the hole is a part of the mapping.
    char *all = anonymous(FOUR_GIB + high);
    mprotect(all + low, FOUR_GIB - low, PROT_NONE);
    fill(all, 0, low);
    fill(all + FOUR_GIB, low, high);
  } else {
    return 2;
  }
  puts("ready");
  fflush(stdout);
  char byte;
  while (read(0, &byte, 1) > 0) {
  }
  return 0;
}
