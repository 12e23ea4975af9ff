/*
 * The rival through libvmi: its own calls, in C, over the same RAM file. Built only where libvmi's
 * headers are.
 *
 * libvmi CONFIG NAME RUNS HEAD TASKS PID COMM MM PGD PHYSICAL
 *
 * CONFIG is an entry of libvmi.conf in a string, HEAD the address of init_task.tasks, then offsets.
 * Prints tasks and the nanoseconds of each listing (PID, comm, mm and PGD of every process, with
 * all caches flushed before), an empty line, and the nanoseconds of each 8-byte read of PHYSICAL
 * (the mean of 1,000; no flush).
 */
#include <libvmi/libvmi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static uint64_t off[5];
enum { TASKS, PID, COMM, MM, PGD };

static int64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static int walk(vmi_instance_t vmi, uint64_t head)
{
	int n = 0;
	addr_t next;
	vmi_pagecache_flush(vmi);
	vmi_v2pcache_flush(vmi, ~0ull);
	vmi_pidcache_flush(vmi);
	if (vmi_read_addr_va(vmi, head, 0, &next) != VMI_SUCCESS)
		return -1;
	for (; next != head; n++) {
		addr_t task = next - off[TASKS], mm = 0, pgd = 0;
		uint32_t pid;
		char *comm;
		if (vmi_read_32_va(vmi, task + off[PID], 0, &pid) != VMI_SUCCESS)
			return -1;
		comm = vmi_read_str_va(vmi, task + off[COMM], 0);
		free(comm);
		vmi_read_addr_va(vmi, task + off[MM], 0, &mm);
		if (mm)
			vmi_read_addr_va(vmi, mm + off[PGD], 0, &pgd);
		if (vmi_read_addr_va(vmi, next, 0, &next) != VMI_SUCCESS)
			return -1;
	}
	return n;
}

int main(int argc, char **argv)
{
	vmi_instance_t vmi = NULL;
	vmi_init_error_t error;
	if (argc != 11)
		return 2;
	if (vmi_init_complete(&vmi, argv[2], VMI_INIT_DOMAINNAME, NULL, VMI_CONFIG_STRING, argv[1], &error) != VMI_SUCCESS) {
		fprintf(stderr, "vmi_init_complete: %d\n", error);
		return 1;
	}
	int runs = atoi(argv[3]);
	uint64_t head = strtoull(argv[4], NULL, 0), physical = strtoull(argv[10], NULL, 0), value;
	for (int i = 0; i < 5; i++)
		off[i] = strtoull(argv[5 + i], NULL, 0);
	printf("tasks %d\n", walk(vmi, head));
	for (int i = 0; i < runs; i++) {
		int64_t start = now();
		int n = walk(vmi, head);
		if (n < 0)
			return 1;
		printf("%lld\n", (long long)(now() - start));
	}
	printf("\n");
	for (int i = 0; i < runs; i++) {
		int64_t start = now();
		for (int j = 0; j < 1000; j++)
			if (vmi_read_64_pa(vmi, physical, &value) != VMI_SUCCESS)
				return 1;
		printf("%g\n", (now() - start) / 1000.0);
	}
	vmi_destroy(vmi);
	return 0;
}
