import { libvmiReport } from '../../../lib/libvmi/report.js';

const report = libvmiReport();

/** Why tests with the real libvmi do not run; `undefined` where they do. */
export const NO_LIBVMI: string | undefined = !report.loaded
  ? `no libvmi here: ${report.error}`
  : report.needed.length > 0
    ? `${report.path} lacks ${report.needed.join(', ')}`
    : undefined;

if (NO_LIBVMI !== undefined) console.log(`skipped: ${NO_LIBVMI}`);
