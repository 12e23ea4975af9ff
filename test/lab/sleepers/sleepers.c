/*
 * Processes that sleep at the end of a known chain of calls, for debuggers to find.
 *
 *   sleepers MODE   deep: seven frames of recursion, in read(2)
 *                   handler: in a signal's handler, over the frame that the kernel made for it
 *                   threads: three threads beside the first, each in another call
 *                   wait: in nanosleep(2), below a function of its library
 *
 * It is built as PIE, at a fixed address, static, static at any address, and optimised. `outside()`
 * is in a library of its own where the program has libraries.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

extern int outside(int (*call)(int), int value);

/* What a debugger shall find in memory. */
volatile unsigned long marks[4] = { 0x1122334455667788, 2, 3, 4 };
__thread volatile int own = 5;
static int silent[2];

__attribute__((noinline)) static int in_read(int value)
{
	char byte;

	own = value;
	return (int)read(silent[0], &byte, 1) + value;
}

__attribute__((noinline)) static int descend(int depth)
{
	if (depth == 0)
		return in_read(77) + 1;
	return descend(depth - 1) + (int)marks[depth & 3];
}

__attribute__((noinline)) static int in_sleep(int value)
{
	struct timespec time = { 1000000 + value, 0 };

	return nanosleep(&time, NULL) + value;
}

__attribute__((noinline)) static int in_poll(int value)
{
	struct pollfd one = { silent[0], POLLIN, 0 };

	return poll(&one, 1, -1) + value;
}

static void on_signal(int number)
{
	marks[1] = (unsigned long)in_read(number);
}

__attribute__((noinline)) static int in_handler(int value)
{
	signal(SIGUSR1, on_signal);
	return raise(SIGUSR1) + value;
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t never = PTHREAD_COND_INITIALIZER;

__attribute__((noinline)) static int in_condition(int value)
{
	pthread_mutex_lock(&lock);
	return pthread_cond_wait(&never, &lock) + value;
}

static void *thread_main(void *argument)
{
	switch ((long)argument) {
	case 0:
		return (void *)(long)descend(3);
	case 1:
		return (void *)(long)outside(in_poll, 8);
	default:
		return (void *)(long)in_condition(9);
	}
}

__attribute__((noinline)) static int in_threads(int value)
{
	pthread_t threads[3];
	long i;

	for (i = 0; i < 3; i++)
		if (pthread_create(&threads[i], NULL, thread_main, (void *)i))
			_exit(1);
	return pthread_join(threads[0], NULL) + value;
}

int main(int count, char **words)
{
	const char *mode = count > 1 ? words[1] : "";

	if (pipe(silent))
		return 1;
	if (!strcmp(mode, "deep"))
		return descend(7);
	if (!strcmp(mode, "handler"))
		return outside(in_handler, 1);
	if (!strcmp(mode, "threads"))
		return outside(in_threads, 1);
	if (!strcmp(mode, "wait"))
		return outside(in_sleep, 1);
	fprintf(stderr, "usage: sleepers deep|handler|threads|wait\n");
	return 2;
}
