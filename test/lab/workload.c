/*
 * The tasks of a lab guest: every kind that a PID -> CR3 lookup can meet, each with a name that
 * says what it is.
 *
 *   workload TASKS BUSY   starts them all (TASKS sleeping fillers, BUSY processes that can spin),
 *   writes `ready` to
 *                         standard output, then obeys lines on standard input: `tasks N`, `churn
 *                         on`, `churn off`, `spin on`, `spin off`. One line answers each: `done`,
 *                         or `error REASON`.
 *
 * Everything sits still once it is ready, but for the churn and the spinning while they are on.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int ready_pipe[2]; /* each task writes one byte when it is what it shall be */
static int expected;      /* how many bytes the starter waits for */

static void fail(const char *what)
{
	printf("error %s: %s\n", what, strerror(errno));
	fflush(stdout);
	_exit(1);
}

static void settle(void)
{
	char byte = 0;

	if (write(ready_pipe[1], &byte, 1) != 1)
		_exit(1);
}

static void await_settled(void)
{
	char bytes[512];

	while (expected > 0) {
		ssize_t count = read(ready_pipe[0], bytes, expected < 512 ? expected : 512);

		if (count <= 0)
			fail("waiting for tasks");
		expected -= count;
	}
}

static void sleep_forever(void)
{
	for (;;)
		pause();
}

static void sleep_settled(void)
{
	settle();
	sleep_forever();
}

/* Forks a task with a name; returns 0 in it. */
static pid_t start(const char *name)
{
	pid_t pid = fork();

	if (pid < 0)
		fail(name);
	if (pid == 0)
		prctl(PR_SET_NAME, name);
	return pid;
}

static void *thread_main(void *name)
{
	prctl(PR_SET_NAME, name);
	sleep_settled();
	return NULL;
}

/* A thread with a small stack: guests are small. */
static void start_thread(const char *name)
{
	pthread_attr_t small;
	pthread_t thread;

	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 64 * 1024);
	if (pthread_create(&thread, &small, thread_main, strdup(name)))
		_exit(1);
}

static void threads(void)
{
	char name[16];
	int process, thread;

	for (process = 0; process < 3; process++) {
		expected += 4;
		snprintf(name, sizeof(name), "threads-%d", process);
		if (start(name))
			continue;
		for (thread = 0; thread < 3; thread++) {
			snprintf(name, sizeof(name), "thread-%d.%d", process, thread);
			start_thread(name);
		}
		sleep_settled();
	}
}

static void zombie(void)
{
	siginfo_t info;
	pid_t pid;

	expected++;
	if (start("zombie-parent"))
		return;
	pid = start("zombie");
	if (pid == 0)
		_exit(7);
	if (waitid(P_PID, pid, &info, WEXITED | WNOWAIT))
		_exit(1);
	sleep_settled();
}

static void vforked(void)
{
	expected++;
	if (start("vfork-parent"))
		return;
	if (vfork() == 0) { /* the parent sleeps in the kernel, in the same address space, for as long as this sleeps */
		prctl(PR_SET_NAME, "vfork-child");
		sleep_settled();
	}
	_exit(1);
}

static int vm_child(void *unused)
{
	prctl(PR_SET_NAME, "clone-vm-child");
	sleep_settled();
	return 0;
}

static void clone_vm(void)
{
	char *stack;

	expected += 2;
	if (start("clone-vm"))
		return;
	stack = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (stack == MAP_FAILED || clone(vm_child, stack + 65536, CLONE_VM | SIGCHLD, NULL) < 0)
		_exit(1);
	sleep_settled();
}

/* Two levels: ns1-init, ns1-a, ns1-b in the first namespace; ns2-init, ns2-a, ns2-b in one inside it. */
static void namespaces(void)
{
	expected += 8;
	if (start("ns1-outer"))
		return;
	if (unshare(CLONE_NEWPID))
		_exit(1);
	if (start("ns1-init"))
		sleep_settled();
	if (!start("ns1-a") || !start("ns1-b"))
		sleep_settled();
	if (start("ns2-outer"))
		sleep_settled();
	if (unshare(CLONE_NEWPID))
		_exit(1);
	if (start("ns2-init"))
		sleep_settled();
	if (!start("ns2-a") || !start("ns2-b"))
		sleep_settled();
	sleep_settled();
}

/* Waits until the leader of this process is a zombie, so that `ready` means just that. */
static void *orphan_main(void *name)
{
	char path[64], text[256];
	int file;
	ssize_t length;

	prctl(PR_SET_NAME, name);
	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", getpid());
	for (;; usleep(10000)) {
		file = open(path, O_RDONLY);
		length = read(file, text, sizeof(text) - 1);
		close(file);
		if (length > 0 && (text[length] = 0, strstr(text, ") Z ")))
			break;
	}
	sleep_settled();
	return NULL;
}

static void dead_leader(void)
{
	pthread_t thread;

	expected += 2;
	if (start("dead-leader"))
		return;
	if (pthread_create(&thread, NULL, orphan_main, "orphan-0") || pthread_create(&thread, NULL, orphan_main, "orphan-1"))
		_exit(1);
	syscall(SYS_exit, 0); /* this thread alone */
}

static void stopped(void)
{
	pid_t pid;
	int status;

	expected++;
	if (start("stopper"))
		return;
	pid = start("stopped");
	if (pid == 0) {
		raise(SIGSTOP);
		sleep_forever();
	}
	if (waitpid(pid, &status, WUNTRACED) != pid || !WIFSTOPPED(status))
		_exit(1);
	sleep_settled();
}

static void other_user(void)
{
	expected++;
	if (start("other-user"))
		return;
	if (setresgid(1000, 1000, 1000) || setresuid(1000, 1000, 1000))
		_exit(1);
	sleep_settled();
}

/* Names that break a tool which takes them for text, or for what they say. */
static void hostile_names(void)
{
	static const char *const names[] = {
		"", " ", "new\nline", "tab\there", "\"quoted\"", "it's", "back\\slash", "cut \xf0\x9f\x90", "\xff\xfe\x80",
		"swapper/0", "kthreadd", "exactly15bytes!", "  spaces  ", "\x1b[31mred\x1b[0m", "\x1b]0;title\a", "a) S 1 1 (b",
		"%s%n%x", "$(reboot)", "<b>&amp;", "../../etc", "\r\rBEGIN 1", "\x7f\x01\x02",
	};
	unsigned i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		expected++;
		if (!start(names[i]))
			sleep_settled();
	}
}

/*
 * Forked past the C library, which in each child writes to its own data: every page written to is a
 * copy, and there may be 10,000 of these in 1 GiB.
 */
static void fillers(int count)
{
	while (count-- > 0) {
		pid_t pid = syscall(SYS_fork);

		expected++;
		if (pid < 0)
			fail("filler");
		if (pid == 0) {
			prctl(PR_SET_NAME, "filler");
			sleep_settled();
		}
	}
}

static int *spinning; /* shared by all; a futex */

static void spin(int on)
{
	*(volatile int *)spinning = on;
	syscall(SYS_futex, spinning, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
	if (on)
		usleep(20000); /* until each has its CPU */
}

/* One process pinned to each CPU. They spin only when told to: a spinning guest takes the host's CPUs from everyone. */
static void busy(int count)
{
	char name[16];
	cpu_set_t set;
	int cpu;

	spinning = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (spinning == MAP_FAILED)
		fail("busy");
	for (cpu = 0; cpu < count; cpu++) {
		expected++;
		snprintf(name, sizeof(name), "busy-%d", cpu);
		if (start(name))
			continue;
		CPU_ZERO(&set);
		CPU_SET(cpu, &set);
		sched_setaffinity(0, sizeof(set), &set);
		setpriority(PRIO_PROCESS, 0, 19);
		settle();
		for (;;) {
			while (*(volatile int *)spinning)
				asm volatile("pause");
			syscall(SYS_futex, spinning, FUTEX_WAIT, 0, NULL, NULL, 0);
		}
	}
}

static volatile sig_atomic_t churn_over;

static void end_churn(int unused)
{
	churn_over = 1;
}

/* Forks, executes, exits, over and over, until told to stop; leaves nothing behind. */
static pid_t churn(void)
{
	pid_t pid, child;

	expected++;
	pid = start("churn");
	if (pid)
		return pid;
	signal(SIGTERM, end_churn);
	settle();
	while (!churn_over) {
		child = start("churn-fork");
		if (child == 0) {
			execl("/proc/self/exe", "churn-exec", "leaf", NULL);
			_exit(1);
		}
		while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
			;
	}
	_exit(0);
}

static void obey(const char *line)
{
	static pid_t churner;
	int count;

	if (sscanf(line, "tasks %d", &count) == 1 && count > 0) {
		fillers(count);
	} else if (!strcmp(line, "spin on\n") || !strcmp(line, "spin off\n")) {
		spin(!strcmp(line, "spin on\n"));
	} else if (!strcmp(line, "churn on\n")) {
		if (!churner)
			churner = churn();
	} else if (!strcmp(line, "churn off\n")) {
		if (churner) {
			kill(churner, SIGTERM);
			waitpid(churner, NULL, 0);
		}
		churner = 0;
	} else {
		puts("error unknown");
		return;
	}
	await_settled();
	puts("done");
}

int main(int argc, char **argv)
{
	static const struct rlimit no_limit = { RLIM_INFINITY, RLIM_INFINITY };
	char line[128];

	if (argc == 2)
		return 0; /* the leaf of the churn */
	if (argc != 3 || pipe2(ready_pipe, O_CLOEXEC))
		return 1;
	setvbuf(stdout, NULL, _IOLBF, 0);
	setrlimit(RLIMIT_NPROC, &no_limit);
	threads();
	zombie();
	vforked();
	clone_vm();
	namespaces();
	dead_leader();
	stopped();
	other_user();
	hostile_names();
	fillers(atoi(argv[1]));
	busy(atoi(argv[2]));
	await_settled();
	puts("ready");
	while (fgets(line, sizeof(line), stdin))
		obey(line);
	return 0;
}
