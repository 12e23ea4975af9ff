/**
 * Registers that some sources tell and others do not. `…Base` is the address in a segment register
 * or a table register; `cs` to `gs` are selectors. SDM vol. 3A, 2.1 and 3.4; vol. 4 for the MSRs
 * (`star`, `lstar`, `cstar`, `syscallMask`, `kernelGsBase`).
 */
export const MORE_REGISTERS = [
  ...['rax', 'rbx', 'rcx', 'rdx', 'rsi', 'rdi', 'rbp', 'rsp'],
  ...['r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15', 'rflags'],
  ...['cs', 'ds', 'es', 'fs', 'gs', 'ss'],
  ...['fsBase', 'gsBase', 'kernelGsBase', 'trBase', 'gdtBase', 'idtBase'],
  ...['cr2', 'cr8', 'dr0', 'dr1', 'dr2', 'dr3', 'dr6', 'dr7'],
  ...['star', 'lstar', 'cstar', 'syscallMask'],
] as const;

/** Registers of one vCPU, as the hypervisor holds them. What a source does not tell is absent. */
export interface VcpuRegisters {
  readonly vcpu: number;
  readonly cr0: bigint;
  readonly cr3: bigint;
  readonly cr4: bigint;
  readonly rip: bigint;
  /** IA32_EFER; 0 where the source does not tell. */
  readonly efer: bigint;
  readonly rax?: bigint;
  readonly rbx?: bigint;
  readonly rcx?: bigint;
  readonly rdx?: bigint;
  readonly rsi?: bigint;
  readonly rdi?: bigint;
  readonly rbp?: bigint;
  readonly rsp?: bigint;
  readonly r8?: bigint;
  readonly r9?: bigint;
  readonly r10?: bigint;
  readonly r11?: bigint;
  readonly r12?: bigint;
  readonly r13?: bigint;
  readonly r14?: bigint;
  readonly r15?: bigint;
  readonly rflags?: bigint;
  /** Selectors. The lowest two bits of `cs` are the privilege level: 0 kernel, 3 user. */
  readonly cs?: bigint;
  readonly ds?: bigint;
  readonly es?: bigint;
  readonly fs?: bigint;
  readonly gs?: bigint;
  readonly ss?: bigint;
  readonly fsBase?: bigint;
  readonly gsBase?: bigint;
  /** MSR_KERNEL_GS_BASE: what `swapgs` exchanges with `gsBase`. */
  readonly kernelGsBase?: bigint;
  readonly trBase?: bigint;
  readonly gdtBase?: bigint;
  readonly idtBase?: bigint;
  /** Address of the last page fault. */
  readonly cr2?: bigint;
  readonly cr8?: bigint;
  readonly dr0?: bigint;
  readonly dr1?: bigint;
  readonly dr2?: bigint;
  readonly dr3?: bigint;
  readonly dr6?: bigint;
  readonly dr7?: bigint;
  /** MSR_STAR, MSR_LSTAR (where `syscall` goes), MSR_CSTAR, MSR_SYSCALL_MASK. */
  readonly star?: bigint;
  readonly lstar?: bigint;
  readonly cstar?: bigint;
  readonly syscallMask?: bigint;
}

type Name = Exclude<keyof VcpuRegisters, 'vcpu'>;

/** Those of {@link MORE_REGISTERS} that a source tells. */
export function moreRegisters(value: (name: Name) => bigint | undefined): Partial<VcpuRegisters> {
  const found = (MORE_REGISTERS as readonly Name[]).map((name) => [name, value(name)] as const);
  return Object.fromEntries(found.filter(([, register]) => register !== undefined));
}
