/**
 * Types of variables that kernels have had for long. A kernel's own types (BTF) name its per-CPU
 * variables only, and before
 * 5.11 not even those.
 */
export const KNOWN_VARIABLES: ReadonlyMap<string, string> = new Map([
  // init/init_task.c
  ['init_task', 'struct task_struct'],
  // mm/init-mm.c
  ['init_mm', 'struct mm_struct'],
  // kernel/pid.c
  ['init_pid_ns', 'struct pid_namespace'],
  // kernel/nsproxy.c
  ['init_nsproxy', 'struct nsproxy'],
  // init/version.c
  ['init_uts_ns', 'struct uts_namespace'],
  // kernel/user.c
  ['init_user_ns', 'struct user_namespace'],
  // kernel/cred.c
  ['init_cred', 'struct cred'],
  // net/core/net_namespace.c
  ['init_net', 'struct net'],
  ['net_namespace_list', 'struct list_head'],
  // fs/file.c, fs/fs_struct.c
  ['init_files', 'struct files_struct'],
  ['init_fs', 'struct fs_struct'],
  // fs/super.c
  ['super_blocks', 'struct list_head'],
  // kernel/module/main.c
  ['modules', 'struct list_head'],
  // mm/slab_common.c
  ['slab_caches', 'struct list_head'],
  // kernel/cgroup/cgroup.c
  ['cgrp_dfl_root', 'struct cgroup_root'],
  // init/main.c
  ['saved_command_line', 'char *'],
  ['linux_banner', 'char[256]'],
  ['system_state', 'enum system_states'],
  // kernel/printk/printk.c, prb since commit 896fbe20b4e2 (5.10)
  ['prb', 'struct printk_ringbuffer *'],
  // kernel/time/timer.c
  ['jiffies_64', 'u64'],
  ['jiffies', 'unsigned long'],
  // kernel/sched/loadavg.c
  ['avenrun', 'unsigned long[3]'],
  // kernel/fork.c
  ['total_forks', 'unsigned long'],
  ['nr_threads', 'int'],
  // kernel/cpu.c
  ['__cpu_online_mask', 'struct cpumask'],
  ['__cpu_possible_mask', 'struct cpumask'],
  // kernel/irq/irqdesc.c
  ['irq_desc_tree', 'struct xarray'],
  ['sparse_irqs', 'struct maple_tree'],
  ['nr_irqs', 'int'],
  // block/genhd.c
  ['block_class', 'struct class'],
  // net/ipv4
  ['tcp_hashinfo', 'struct inet_hashinfo'],
  ['udp_table', 'struct udp_table'],
  // per-CPU: kernel/sched/core.c, arch/x86/kernel/cpu/common.c, arch/x86/mm/tlb.c,
  // kernel/time/hrtimer.c
  ['runqueues', 'struct rq'],
  ['current_task', 'struct task_struct *'],
  ['const_current_task', 'struct task_struct *'],
  ['pcpu_hot', 'struct pcpu_hot'],
  ['cpu_tlbstate', 'struct tlb_state'],
  ['hrtimer_bases', 'struct hrtimer_cpu_base'],
  ['kernel_cpustat', 'struct kernel_cpustat'],
  ['kstat', 'struct kernel_stat'],
  ['cpu_info', 'struct cpuinfo_x86'],
  ['boot_cpu_data', 'struct cpuinfo_x86'],
]);
