/** What `.help` prints: lines that can be typed as they are. */
export const HELP = `Ask the guest:
  ps()                          every process, with the CR3 it runs on
  ps({ threads: true })         every thread
  task(1)                       one task, by PID or TID
  task(1).toJSON()              everything known of it
  cr3(1)                        PID to CR3; null for a kernel thread off the CPU
  who(cr3(1))                   CR3 to tasks; any value a register can hold will do
  cpus()                        what each CPU runs and has loaded

Look inside:
  sym('init_task')              a symbol's address
  sym(0xffffffff81e0a590n)      an address's symbol
  read('linux_banner', 64)      memory, by symbol or address
  read(0x400000n, 64, { pid: 1 })    … in a process
  translate('init_task')        its physical address
  walk('init_task')             every level of the page walk
  type('task_struct')           a structure of this kernel, with offsets
  type('mm_struct').member('pgd').offset

Explore the kernel:
  task(1).object.mm.pgd         members of C structures, followed as they are named
  variable('init_task').comm    a variable; perCpu('runqueues', 0) what a CPU has of one
  object('list_head', 0xffffffff82e0c940n)    any address as any type
  [...list(variable('init_task').tasks, 'struct task_struct', 'tasks')].length
  files(1)                      also vmas(1), cmdline(1), environ(1), mounts(1), children(1)
  stack(2)                      the functions a task off the CPU is in; .stack PID, of any task
  whatIs(0xffff888003a40000n)   symbol, task, stack, cache, module; whatIs(0x400000n, 1) of a process
  await search('busybox', 1)    bytes, text or a bigint, in RAM or in a process
  dmesg()                       also modules(), sockets(), runQueues(), commandLine()

  await watch(() => task(1).object.nvcsw, 500)   prints what changes, until ctrl-C

Use JavaScript:
  ps().filter((t) => t.uid === 1000 && !t.kthread)
  new Set(ps({ threads: true }).map((t) => t.cr3)).size
  hex(4096)                     '0x1000'
  await guest.registers()       control registers, from the hypervisor

Commands begin with a dot, and take words: .explain 1, .what init_task, .dis schedule 8.

Objects: guest (all of the API), kernel (guest.kernel), memory (guest.memory).
Addresses are bigints: write 0x1000n. Tab completes symbols, structures and PIDs inside
the parentheses. ctrl-R searches the history, ctrl-D ends.
`;
