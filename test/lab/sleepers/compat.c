/* A 32-bit program without a library: three frames, then pause(2) by the old gate. */
static volatile int mark = 0x1234;

__attribute__((noinline)) static int call(int number)
{
	int answer;

	__asm__ volatile("int $0x80" : "=a"(answer) : "a"(number) : "memory");
	return answer;
}

__attribute__((noinline)) static int inner(int value)
{
	return call(29) + value + mark;
}

__attribute__((noinline)) static int outer(int value)
{
	return inner(value + 1) + 1;
}

void _start(void)
{
	for (;;)
		outer(3);
}
