/* The library of the sleepers: a frame between two of the program's. */
int outside(int (*call)(int), int value)
{
	return call(value + 1) + 1;
}
