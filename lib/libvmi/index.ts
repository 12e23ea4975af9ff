/** `node-libvmi/libvmi`: libvmi's own calls, one for one, and what this host's libvmi can do. */
export { CrashError, FaultError, VmiError, type VmiErrorCode } from '../errors.js';
export type { LibvmiConfig, LibvmiKernel, LibvmiTable } from './config.js';
export { type Cr3Write, type Cr3WriteOptions, Cr3WriteStream } from './cr3-writes.js';
export {
  Libvmi,
  type LibvmiContext,
  type LibvmiMode,
  type LibvmiOptions,
  type LibvmiOs,
  type LibvmiPageMode,
  type StringOptions,
  type TscInfo,
} from './libvmi.js';
export type { RegisterName } from './registers.js';
export { type LibvmiDriver, type LibvmiReport, libvmiReport } from './report.js';
export type { CallOptions, SessionOptions } from './session.js';
