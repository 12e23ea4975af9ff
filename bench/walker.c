/*
 * The rival: a plain C walk of init_task.tasks over mapped guest RAM, nothing checked beyond the
 * bounds of RAM, that gathers the same facts per task as the listing it is measured against. What
 * the memory allows, with no safety at all.
 *
 * walker RAM_FILE RAM_SPLIT PAGE_OFFSET HEAD IMAGE_VIRTUAL IMAGE_PHYSICAL OFFSET…
 *
 * Offsets, in this order: tasks pid tgid flags state exit_state start_time on_cpu comm mm active_mm
 * real_parent signal real_cred thread_pid mm.pgd cred.uid pid.level. For each number of runs that
 * it reads, it prints tasks (below 0: an address that is none) and the median nanoseconds of a run.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { TASKS, PID, TGID, FLAGS, STATE, EXIT_STATE, START_TIME, ON_CPU, COMM, MM, ACTIVE_MM, PARENT, SIGNAL, CRED,
       THREAD_PID, PGD, UID, LEVEL, OFFSETS };

struct row {
	uint64_t task, start_time, mm, active_mm, parent, signal, cred, thread_pid, pgd, text_entry;
	uint32_t pid, tgid, flags, state, exit_state, on_cpu, ppid, uid, level;
	char comm[16];
};

static const uint8_t *ram;
static uint64_t ram_size, split, page_offset, image_virtual, image_physical;
static uint64_t off[OFFSETS];
static struct row rows[1 << 20];

static const uint8_t *at(uint64_t va)
{
	uint64_t pa = va >= image_virtual ? va - image_virtual + image_physical : va - page_offset;
	if (pa >= 1ull << 32)
		pa = pa - (1ull << 32) + split;
	return pa + 4096 <= ram_size ? ram + pa : NULL;
}

static uint64_t u64(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return v; }
static uint32_t u32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return v; }

static int walk(uint64_t head)
{
	int n = 0;
	const uint8_t *link = at(head);
	for (uint64_t next = u64(link); next != head && n < (1 << 20); n++) {
		uint64_t task = next - off[TASKS];
		const uint8_t *t = at(task), *p;
		struct row *r = &rows[n];
		if (!t)
			return -1;
		r->task = task;
		r->pid = u32(t + off[PID]);
		r->tgid = u32(t + off[TGID]);
		r->flags = u32(t + off[FLAGS]);
		r->state = u32(t + off[STATE]);
		r->exit_state = u32(t + off[EXIT_STATE]);
		r->start_time = u64(t + off[START_TIME]);
		r->on_cpu = u32(t + off[ON_CPU]);
		memcpy(r->comm, t + off[COMM], 16);
		r->mm = u64(t + off[MM]);
		r->active_mm = u64(t + off[ACTIVE_MM]);
		r->parent = u64(t + off[PARENT]);
		r->signal = u64(t + off[SIGNAL]);
		r->cred = u64(t + off[CRED]);
		r->thread_pid = u64(t + off[THREAD_PID]);
		uint64_t mm = r->mm ? r->mm : r->active_mm;
		r->pgd = mm && (p = at(mm)) ? u64(p + off[PGD]) : 0;
		r->text_entry = r->pgd && (p = at(r->pgd)) ? u64(p + 511 * 8) : 0;
		r->ppid = r->parent && (p = at(r->parent)) ? u32(p + off[TGID]) : 0;
		r->uid = r->cred && (p = at(r->cred)) ? u32(p + off[UID]) : 0;
		r->level = r->thread_pid && (p = at(r->thread_pid)) ? u32(p + off[LEVEL]) : 0;
		next = u64(t + off[TASKS]);
	}
	return n;
}

static uint64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	static uint64_t samples[1 << 16];
	struct stat st;
	int runs;
	if (argc != 7 + OFFSETS)
		return 2;
	int fd = open(argv[1], O_RDONLY);
	if (fd < 0 || fstat(fd, &st))
		return 1;
	ram_size = st.st_size;
	ram = mmap(NULL, ram_size, PROT_READ, MAP_SHARED, fd, 0);
	split = strtoull(argv[2], NULL, 0);
	page_offset = strtoull(argv[3], NULL, 0);
	uint64_t head = strtoull(argv[4], NULL, 0);
	image_virtual = strtoull(argv[5], NULL, 0);
	image_physical = strtoull(argv[6], NULL, 0);
	for (int i = 0; i < OFFSETS; i++)
		off[i] = strtoull(argv[7 + i], NULL, 0);
	memset(rows, 0, sizeof rows); /* no page fault is measured */
	setvbuf(stdout, NULL, _IOLBF, 0);
	while (scanf("%d", &runs) == 1 && runs > 0 && runs <= 1 << 16) {
		int n;
		/* 2 ms before it is measured, as what it is compared with */
		uint64_t warm = now() + 2000000;
		do
			n = walk(head);
		while (now() < warm);
		for (int i = 0; i < runs; i++) {
			uint64_t start = now();
			n = walk(head);
			samples[i] = now() - start;
		}
		qsort(samples, runs, sizeof *samples, ascending);
		printf("%d %llu\n", n, (unsigned long long)samples[runs / 2]);
	}
	return 0;
}
