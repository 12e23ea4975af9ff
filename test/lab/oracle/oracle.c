// SPDX-License-Identifier: GPL-2.0
/*
 * The truth about a guest's tasks, told from inside: the table that a lookup from outside is
 * compared with.
 *
 * Write a command to /proc/oracle, one a write:
 *   tell        a table of all tasks and CPUs, while the guest runs on
 *   freeze      the same inside stop_machine(); then every CPU spins with interrupts off until a
 *   byte waits on COM1 halt        the same, but each CPU is stopped by an interrupt in what it was
 *   doing, so that a user's task and its
 *               address space are still the current ones (stop_machine() makes the stopper thread
 *               current)
 *   hide PID    takes the task out of the list that starts at init_task.tasks, as a rootkit does
 *   unhide      puts every hidden task back
 *   say TEXT    prints TEXT
 *   drop        forgets what was printed
 * Bytes written to /proc/oracle_print are kept until `drop`; closing it announces them.
 *
 * Replies go to an isa-debugcon port by `rep outsb`: no driver, no buffer, nothing is dropped (not
 * to port 0x402, where SeaBIOS writes its own log). A port takes 0.3 MB/s under emulation, so what
 * is long stays in memory and only its place is told, for the host to read: lines `PIECE
 * physical-address length` (hex, decimal). /proc/oracle reads as the last table. Each write gives
 * one of: pieces, then `TABLE generation mode`; `DONE command`; `ERROR reason`; and a freeze that
 * is over gives a `THAW generation reason` line as well.
 */
#include <linux/module.h>
#include <linux/sched/signal.h>
#include <linux/sched/mm.h>
#include <linux/sched/task.h>
#include <linux/pid_namespace.h>
#include <linux/nsproxy.h>
#include <linux/gfp.h>
#include <linux/proc_fs.h>
#include <linux/slab.h>
#include <linux/stop_machine.h>
#include <linux/timekeeping.h>
#include <linux/uaccess.h>
#include <linux/utsname.h>
#ifndef MODULE
#include <linux/sched.h>
#include <asm/pgtable.h>
#include <asm/sections.h>
#include <asm/tlbflush.h>
#endif
#include <asm/io.h>
#include <asm/processor.h>
#include <asm/special_insns.h>
#include <asm/tsc.h>
#ifdef CONFIG_XEN_PV
#include <xen/xen.h>
#include <asm/xen/page.h>
#endif

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Tells PID, mm and CR3 of every task");

#ifdef MODULE
static unsigned long kallsyms;
module_param(kallsyms, ulong, 0);
MODULE_PARM_DESC(kallsyms, "address of kallsyms_lookup_name (not exported since commit 0bd476e6c671)");
#endif
static ushort port = 0x502;
module_param(port, ushort, 0);
MODULE_PARM_DESC(port, "isa-debugcon port for the replies, 0 for none");
static ushort com1 = 0x3f8;
module_param(com1, ushort, 0);
MODULE_PARM_DESC(com1, "UART whose waiting byte ends a freeze, 0 for none (then only the deadline ends one)");
static uint deadline = 120;
module_param(deadline, uint, 0);
MODULE_PARM_DESC(deadline, "seconds of guest time after which a freeze ends by itself");

enum mode { TELL, FREEZE, HALT };
static const char *const mode_names[] = { "tell", "freeze", "halt" };

/* What each CPU says about itself. */
struct cpu_fact {
	struct task_struct *current_task;
	struct mm_struct *loaded_mm;
	unsigned long cr3, cr4;
};
static struct cpu_fact *cpu_facts;

/* cpu_tlbstate's type is hidden from modules (commit bfe3d8f6313d); loaded_mm is its first member (3d28ebceaffa). */
static struct mm_struct *__percpu *tlbstate;
#ifdef MODULE
#define LOADED_MM_SWITCHING ((struct mm_struct *)1UL) /* asm/tlbflush.h, hidden from modules */
#endif

static DEFINE_MUTEX(command_lock);
static unsigned int generation;

#ifdef MODULE
static unsigned long lookup(const char *name)
{
	unsigned long (*kallsyms_lookup_name)(const char *) = (void *)kallsyms;

	return kallsyms_lookup_name(name);
}
#else
/* Built in, the linker knows what a module has to ask for, in a kernel without any names too. */
static unsigned long lookup(const char *name)
{
	static const struct { const char *name; unsigned long address; } known[] = {
		{ "tasklist_lock", (unsigned long)&tasklist_lock },
		{ "_stext", (unsigned long)_stext },
		{ "init_top_pgt", (unsigned long)init_top_pgt },
		{ "init_mm", (unsigned long)&init_mm },
		{ "idle_task", (unsigned long)idle_task },
		{ "cpu_tlbstate", (unsigned long)&cpu_tlbstate },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(known); i++)
		if (!strcmp(known[i].name, name))
			return known[i].address;
	return 0;
}
#endif

/* ---- output ---- */

static void out(const char *bytes, size_t length)
{
	while (port && length) {
		size_t part = min_t(size_t, length, 4096);

		outsb(port, bytes, part);
		bytes += part;
		length -= part;
	}
}

static __printf(1, 2) void reply(const char *format, ...)
{
	static char line[512];
	va_list args;
	int length;

	va_start(args, format);
	length = vscnprintf(line, sizeof(line) - 1, format, args);
	va_end(args);
	line[length++] = '\n';
	out(line, length);
}

/* ---- long output: pieces of memory that the host can read at one physical address each ---- */

#define PIECE_SIZE (1UL << 20)
#define PIECES_MAX 64

struct pieces {
	char *at[PIECES_MAX];
	size_t length[PIECES_MAX];
	int have, used; /* pieces allocated; pieces with something in them */
};
static struct pieces table, printed;
static size_t table_rows;
static bool table_overflow;

static int reserve(struct pieces *pieces, int count)
{
	while (pieces->have < count) {
		if (pieces->have == PIECES_MAX)
			return -ENOSPC;
		pieces->at[pieces->have] = alloc_pages_exact(PIECE_SIZE, GFP_KERNEL | __GFP_NOWARN);
		if (!pieces->at[pieces->have])
			return -ENOMEM;
		pieces->have++;
	}
	return 0;
}

/* Leaves no copy behind: a second BTF in memory would mislead whoever searches for the kernel's. */
static void drop(struct pieces *pieces)
{
	while (pieces->have) {
		pieces->have--;
		memset(pieces->at[pieces->have], 0, PIECE_SIZE);
		free_pages_exact(pieces->at[pieces->have], PIECE_SIZE);
	}
	pieces->used = 0;
}

static void empty(struct pieces *pieces)
{
	pieces->used = 0;
}

static void announce(struct pieces *pieces)
{
	int i;

	for (i = 0; i < pieces->used; i++)
		reply("PIECE %llx %zu", (unsigned long long)virt_to_phys(pieces->at[i]), pieces->length[i]);
}

/* The free end of the last piece, or of a new one if less than `wanted` is left; NULL when there is none. */
static char *room(struct pieces *pieces, size_t wanted, size_t *size)
{
	if (!pieces->used || PIECE_SIZE - pieces->length[pieces->used - 1] < wanted) {
		if (pieces->used == pieces->have)
			return NULL;
		pieces->length[pieces->used++] = 0;
	}
	*size = PIECE_SIZE - pieces->length[pieces->used - 1];
	return pieces->at[pieces->used - 1] + pieces->length[pieces->used - 1];
}

#define LINE_MAX 1024

static __printf(1, 2) void row(const char *format, ...)
{
	size_t size;
	char *at = room(&table, LINE_MAX, &size);
	va_list args;
	int length;

	if (!at) {
		table_overflow = true;
		return;
	}
	va_start(args, format);
	length = vsnprintf(at, LINE_MAX, format, args);
	va_end(args);
	if (length + 1 >= LINE_MAX) {
		table_overflow = true;
		return;
	}
	at[length] = '\n';
	table.length[table.used - 1] += length + 1;
	table_rows++;
}

/* ---- the algorithm under test ---- */

static bool is_pv(void)
{
#ifdef CONFIG_XEN_PV
	return xen_pv_domain();
#else
	return false;
#endif
}

/* What CR3 holds for a page directory: its physical address; in a PV guest of Xen that of the machine. */
static unsigned long cr3_for(pgd_t *pgd)
{
#ifdef CONFIG_XEN_PV
	if (is_pv())
		return arbitrary_virt_to_machine(pgd).maddr; /* by a walk of the page table: arch/x86/xen/mmu.c */
#endif
	return virt_to_phys(pgd);
}

/* What CR3 holds in user mode of a PV guest: arch/x86/xen/mmu_pv.c, xen_get_user_pgd(). 0 elsewhere, and where there is none. */
static unsigned long user_cr3_for(pgd_t *pgd)
{
	pgd_t *user = is_pv() ? (pgd_t *)virt_to_page(pgd)->private : NULL;

	return user ? cr3_for(user) : 0;
}

static unsigned long cr3_of(struct task_struct *task)
{
	struct mm_struct *mm;

	if (!task)
		return 0; /* pid has no task_struct */
	mm = READ_ONCE(task->mm);
	if (!mm)
		mm = READ_ONCE(task->active_mm); /* kernel threads */
	if (!mm)
		return 0;
	return cr3_for(mm->pgd);
}

static unsigned long pid_to_cr3(int pid)
{
	return cr3_of(pid_task(find_vpid(pid), PIDTYPE_PID));
}

/* ---- hidden tasks ---- */

#define HIDDEN_MAX 16
static struct task_struct *hidden[HIDDEN_MAX];

static bool is_hidden(struct task_struct *task)
{
	int i;

	for (i = 0; i < HIDDEN_MAX; i++)
		if (hidden[i] == task)
			return true;
	return false;
}

static int hide(int pid)
{
	rwlock_t *tasklist = (rwlock_t *)lookup("tasklist_lock");
	struct task_struct *task;
	int i;

	if (!tasklist)
		return -ENOENT;
	rcu_read_lock();
	task = pid_task(find_vpid(pid), PIDTYPE_TGID);
	if (task)
		get_task_struct(task);
	rcu_read_unlock();
	if (!task)
		return -ESRCH;
	for (i = 0; i < HIDDEN_MAX && hidden[i]; i++)
		;
	if (i == HIDDEN_MAX || is_hidden(task) || task == current) {
		put_task_struct(task);
		return -EBUSY;
	}
	write_lock_irq(tasklist);
	list_del_rcu(&task->tasks);
	hidden[i] = task;
	write_unlock_irq(tasklist);
	synchronize_rcu();
	/* so that an exit, which takes it out once more, does no harm */
	INIT_LIST_HEAD(&task->tasks);
	return 0;
}

static int unhide(void)
{
	rwlock_t *tasklist = (rwlock_t *)lookup("tasklist_lock");
	int i;

	if (!tasklist)
		return -ENOENT;
	for (i = 0; i < HIDDEN_MAX; i++) {
		struct task_struct *task = hidden[i];

		if (!task)
			continue;
		write_lock_irq(tasklist);
		if (pid_alive(task))
			list_add_tail_rcu(&task->tasks, &init_task.tasks);
		hidden[i] = NULL;
		write_unlock_irq(tasklist);
		put_task_struct(task);
	}
	return 0;
}

/* ---- rows ---- */

#define OFFSET(type, member) row("offset\t" #type "." #member "\t%zu", offsetof(struct type, member))
#define FACT(name, format, value) row("fact\t" name "\t" format, value)

static void row_facts(enum mode mode)
{
	unsigned long stext = lookup("_stext"), top = lookup("init_top_pgt");
	struct timespec64 boot;
	unsigned long cr4 = __read_cr4();

	if (!top)
		top = lookup("swapper_pg_dir");
	getboottime64(&boot);
	FACT("release", "%s", init_utsname()->release);
	FACT("version", "%s", init_utsname()->version);
	FACT("stext", "%lx", stext);
	FACT("phys_base", "%lx", phys_base);
	FACT("page_offset", "%lx", (unsigned long)PAGE_OFFSET);
	FACT("init_top_pgt", "%lx", top);
	FACT("init_top_pgt_physical", "%lx", is_pv() ? cr3_for((pgd_t *)top) : top - __START_KERNEL_map + phys_base);
	FACT("pv", "%d", is_pv());
	FACT("init_task", "%px", &init_task);
	FACT("init_pid_ns", "%px", &init_pid_ns);
	FACT("init_mm", "%lx", lookup("init_mm"));
	FACT("levels", "%d", cr4 & X86_CR4_LA57 ? 5 : 4);
	FACT("pti", "%d", boot_cpu_has(X86_FEATURE_PTI) ? 1 : 0);
	FACT("pcid", "%d", cr4 & X86_CR4_PCIDE ? 1 : 0);
	FACT("cpus", "%u", num_online_cpus());
	FACT("hz", "%d", HZ);
	FACT("tsc_khz", "%u", tsc_khz);
	FACT("boot_time", "%lld", (long long)boot.tv_sec);
	FACT("uptime_ns", "%llu", ktime_get_boottime_ns());
	FACT("teller", "%d", mode == FREEZE ? 0 : current->pid);

	OFFSET(task_struct, tasks);
	OFFSET(task_struct, pid);
	OFFSET(task_struct, tgid);
	OFFSET(task_struct, mm);
	OFFSET(task_struct, active_mm);
	OFFSET(task_struct, comm);
	OFFSET(task_struct, flags);
#if LAB_TASK_HAS__STATE
	OFFSET(task_struct, __state);
#else
	OFFSET(task_struct, state);
#endif
	OFFSET(task_struct, exit_state);
	OFFSET(task_struct, start_time);
	OFFSET(task_struct, start_boottime);
	OFFSET(task_struct, real_parent);
	OFFSET(task_struct, group_leader);
	OFFSET(task_struct, signal);
	OFFSET(task_struct, thread_node);
	OFFSET(task_struct, cred);
	OFFSET(task_struct, real_cred);
	OFFSET(task_struct, thread_pid);
	OFFSET(task_struct, nsproxy);
#ifdef CONFIG_SMP
	OFFSET(task_struct, on_cpu);
#endif
	OFFSET(signal_struct, thread_head);
	OFFSET(mm_struct, pgd);
	OFFSET(mm_struct, mm_users);
	OFFSET(mm_struct, mm_count);
#ifdef CONFIG_MEMCG
	OFFSET(mm_struct, owner);
#endif
	OFFSET(pid, level);
	OFFSET(pid, numbers);
	OFFSET(pid, tasks);
	OFFSET(cred, uid);
}

static const char task_columns[] =
	"columns\ttask\tpid\ttgid\tppid\tcomm\tflags\tstate\texit_state\ttask\tmm\tactive_mm\tpgd\tcr3\tpseudo\tuser_cr3\tfindvpid\tuid"
	"\tstart_time\tstart_boottime\ton_cpu\tcpu\tlevel\tpids\tkind";
static const char cpu_columns[] =
	"columns\tcpu\tcpu\ttask\tpid\tloaded_mm\tloaded_pgd\tcr3\tcr4";

/* The PIDs of a task in all its namespaces, outermost first. */
static void pids_of(struct task_struct *task, char *text, size_t size, int *level)
{
	struct pid *pid = READ_ONCE(task->thread_pid);
	int i, length = 0;

	*level = 0;
	text[0] = '-';
	text[1] = 0;
	if (!pid)
		return; /* a task that was just reaped */
	*level = pid->level;
	for (i = 0; i <= pid->level; i++)
		length += scnprintf(text + length, size - length, "%s%d", i ? "," : "", pid->numbers[i].nr);
}

static void row_task(struct task_struct *task, const char *kind)
{
	struct mm_struct *mm = READ_ONCE(task->mm), *active_mm = READ_ONCE(task->active_mm);
	struct mm_struct *used = mm ? mm : active_mm;
	struct task_struct *parent = rcu_dereference(task->real_parent);
	char pids[33 * 11 + 1];
	bool idle = !strcmp(kind, "idle");
	int level;

	BUILD_BUG_ON(TASK_COMM_LEN != 16);
	pids_of(task, pids, sizeof(pids), &level);
	row("task\t%d\t%d\t%d\t%16phN\t%x\t%lx\t%x\t%px\t%px\t%px\t%px\t%lx\t%lx\t%lx\t%lx\t%u\t%llu\t%llu\t%d\t%u\t%d\t%s\t%s",
	    task->pid, task->tgid, parent ? parent->tgid : 0, task->comm, task->flags,
#if LAB_TASK_HAS__STATE
	    (unsigned long)READ_ONCE(task->__state),
#else
	    (unsigned long)READ_ONCE(task->state),
#endif
	    (unsigned int)task->exit_state, task, mm, active_mm, used ? used->pgd : NULL, cr3_of(task),
	    used ? (unsigned long)virt_to_phys(used->pgd) : 0UL, used ? user_cr3_for(used->pgd) : 0UL,
	    idle ? 0 : pid_to_cr3(task->pid), from_kuid(&init_user_ns, __task_cred(task)->uid),
	    (unsigned long long)task->start_time, (unsigned long long)task->start_boottime,
#ifdef CONFIG_SMP
	    task->on_cpu,
#else
	    task_curr(task),
#endif
	    task_cpu(task), level, pids, kind);
}

static void row_cpu(int cpu)
{
	struct cpu_fact *fact = &cpu_facts[cpu];
	struct mm_struct *mm = fact->loaded_mm;
	bool real = mm && mm != LOADED_MM_SWITCHING;

	row("cpu\t%d\t%px\t%d\t%px\t%lx\t%lx\t%lx", cpu, fact->current_task, fact->current_task->pid, mm,
	    real ? cr3_for(mm->pgd) : 0UL, fact->cr3, fact->cr4);
}

static void fill_table(enum mode mode)
{
	struct task_struct *leader, *task;
	struct task_struct *(*idle_of)(int) = (void *)lookup("idle_task");
	int cpu, i;

	empty(&table);
	table_overflow = false;
	row("BEGIN %u %s", ++generation, mode_names[mode]);
	table_rows = 0;
	row_facts(mode);
	row("%s", cpu_columns);
	row("%s", task_columns);
	rcu_read_lock();
	for_each_online_cpu(cpu)
		row_cpu(cpu);
	if (idle_of)
		for_each_online_cpu(cpu)
			row_task(idle_of(cpu), "idle");
	for_each_process_thread(leader, task)
		row_task(task, task == leader ? "process" : "thread");
	for (i = 0; i < HIDDEN_MAX; i++) {
		leader = hidden[i];
		if (!leader || !pid_alive(leader))
			continue;
		for_each_thread(leader, task)
			row_task(task, "hidden");
	}
	rcu_read_unlock();
	row("END %u %zu", generation, table_rows);
}

static void tell_table(enum mode mode)
{
	if (table_overflow) {
		reply("ERROR no room for the table: %zu rows in %d pieces", table_rows, table.have);
		return;
	}
	announce(&table);
	reply("TABLE %u %s", generation, mode_names[mode]);
}

/* Makes room for the table before anything is frozen: for a quarter more tasks than there are, 400 bytes each. */
static int make_room(void)
{
	struct task_struct *leader, *task;
	size_t count = 0;

	rcu_read_lock();
	for_each_process_thread(leader, task)
		count++;
	rcu_read_unlock();
	return reserve(&table, (65536 + (count + count / 4) * 400) / PIECE_SIZE + 1);
}

/* ---- the CPUs ---- */

static atomic_t waiting;
static bool thawed;
static const char *thaw_reason;

static void note_cpu(void *unused)
{
	struct cpu_fact *fact = &cpu_facts[smp_processor_id()];

	fact->current_task = current;
	fact->loaded_mm = tlbstate ? READ_ONCE(*this_cpu_ptr(tlbstate)) : NULL;
	fact->cr3 = __read_cr3();
	fact->cr4 = __read_cr4();
}

static bool byte_waits(void)
{
	return com1 && (inb(com1 + 5) & 1); /* line status register, data ready: 16550 data sheet, 8.6.3 */
}

/* The CPU that leads tells the table and waits for the byte; interrupts are off and all others spin. */
static void lead(enum mode mode)
{
	u64 end;

	fill_table(mode);
	tell_table(mode);
	end = rdtsc_ordered() + (u64)tsc_khz * 1000 * deadline;
	thaw_reason = "deadline";
	while (rdtsc_ordered() < end) {
		if (byte_waits()) {
			thaw_reason = "byte";
			break;
		}
		cpu_relax();
	}
	smp_store_release(&thawed, true);
}

static void wait_for_thaw(void)
{
	atomic_inc(&waiting);
	while (!smp_load_acquire(&thawed))
		cpu_relax();
	atomic_dec(&waiting);
}

static int freeze_cpu(void *leader)
{
	note_cpu(NULL);
	if (smp_processor_id() == *(int *)leader) {
		while (atomic_read(&waiting) < num_online_cpus() - 1)
			cpu_relax();
		lead(FREEZE);
	} else {
		wait_for_thaw();
	}
	return 0;
}

static void halt_cpu(void *unused)
{
	note_cpu(NULL);
	wait_for_thaw();
}

static void freeze(enum mode mode)
{
	int leader;

	thawed = false;
	atomic_set(&waiting, 0);
	if (mode == FREEZE) {
		leader = cpumask_first(cpu_online_mask);
		stop_machine(freeze_cpu, &leader, cpu_online_mask);
	} else {
		unsigned long flags;

		preempt_disable();
		smp_call_function(halt_cpu, NULL, false);
		local_irq_save(flags);
		while (atomic_read(&waiting) < num_online_cpus() - 1)
			cpu_relax();
		note_cpu(NULL);
		lead(HALT);
		while (atomic_read(&waiting))
			cpu_relax();
		local_irq_restore(flags);
		preempt_enable();
	}
	reply("THAW %u %s", generation, thaw_reason);
}

static void make_table(enum mode mode)
{
	if (make_room()) {
		reply("ERROR no memory for the table");
		return;
	}
	if (mode != TELL) {
		freeze(mode);
		return;
	}
	on_each_cpu(note_cpu, NULL, true);
	fill_table(mode);
	tell_table(mode);
}

/* ---- /proc ---- */

static void obey(char *command)
{
	int pid, error;

	if (!strcmp(command, "tell")) {
		make_table(TELL);
	} else if (!strcmp(command, "freeze")) {
		make_table(FREEZE);
	} else if (!strcmp(command, "halt")) {
		make_table(HALT);
	} else if (sscanf(command, "hide %d", &pid) == 1) {
		error = hide(pid);
		reply(error ? "ERROR hide %d: error %d" : "DONE hide %d", pid, error);
	} else if (!strcmp(command, "unhide")) {
		error = unhide();
		reply(error ? "ERROR unhide: error %d" : "DONE unhide", error);
	} else if (!strcmp(command, "drop")) {
		drop(&printed);
		reply("DONE drop");
	} else if (!strncmp(command, "say ", 4)) {
		reply("%s", command + 4);
	} else {
		reply("ERROR unknown command: %s", command);
	}
}

static ssize_t command_write(struct file *file, const char __user *from, size_t count, loff_t *at)
{
	char command[256];
	size_t length = min(count, sizeof(command) - 1);

	if (copy_from_user(command, from, length))
		return -EFAULT;
	command[length] = 0;
	mutex_lock(&command_lock);
	obey(strim(command));
	mutex_unlock(&command_lock);
	return count;
}

static ssize_t table_read(struct file *file, char __user *to, size_t count, loff_t *at)
{
	loff_t from = *at;
	ssize_t done = 0;
	int i;

	mutex_lock(&command_lock);
	for (i = 0; i < table.used && !done; i++) {
		done = simple_read_from_buffer(to, count, &from, table.at[i], table.length[i]);
		if (!done)
			from -= table.length[i];
	}
	if (done > 0)
		*at += done;
	mutex_unlock(&command_lock);
	return done;
}

static ssize_t print_write(struct file *file, const char __user *from, size_t count, loff_t *at)
{
	size_t size;
	ssize_t done = -ENOSPC;
	char *to;

	mutex_lock(&command_lock);
	to = room(&printed, 1, &size);
	if (!to && !reserve(&printed, printed.have + 1))
		to = room(&printed, 1, &size);
	if (to) {
		size = min(size, count);
		done = copy_from_user(to, from, size) ? -EFAULT : size;
		if (done > 0)
			printed.length[printed.used - 1] += done;
	}
	mutex_unlock(&command_lock);
	return done;
}

static int print_close(struct inode *inode, struct file *file)
{
	mutex_lock(&command_lock);
	announce(&printed);
	mutex_unlock(&command_lock);
	return 0;
}

static const struct proc_ops command_ops = { .proc_read = table_read, .proc_write = command_write };
static const struct proc_ops print_ops = { .proc_write = print_write, .proc_release = print_close };

static int __init oracle_init(void)
{
#ifdef MODULE
	if (!kallsyms)
		return -EINVAL;
#endif
	tlbstate = (struct mm_struct *__percpu *)lookup("cpu_tlbstate");
	cpu_facts = kcalloc(nr_cpu_ids, sizeof(*cpu_facts), GFP_KERNEL);
	if (!cpu_facts)
		return -ENOMEM;
	if (!proc_create("oracle", 0600, NULL, &command_ops))
		goto no_memory;
	if (!proc_create("oracle_print", 0200, NULL, &print_ops)) {
		remove_proc_entry("oracle", NULL);
		goto no_memory;
	}
	return 0;
no_memory:
	kfree(cpu_facts);
	return -ENOMEM;
}

static void __exit oracle_exit(void)
{
	remove_proc_entry("oracle_print", NULL);
	remove_proc_entry("oracle", NULL);
	unhide();
	drop(&table);
	drop(&printed);
	kfree(cpu_facts);
}

module_init(oracle_init);
module_exit(oracle_exit);
