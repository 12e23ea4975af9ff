// Loads the kernel that runs when this one crashes: kexec KERNEL INITRD COMMAND-LINE.
// kexec_file_load(2).
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ON_CRASH 2UL

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  const int kernel = open(argv[1], O_RDONLY);
  const int initrd = open(argv[2], O_RDONLY);
  if (kernel < 0 || initrd < 0 ||
      syscall(SYS_kexec_file_load, kernel, initrd, strlen(argv[3]) + 1, argv[3], ON_CRASH) != 0) {
    perror("kexec");
    return 1;
  }
  puts("loaded");
  return 0;
}
